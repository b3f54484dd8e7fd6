// cadre generate: streams the continuation of a prompt.

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

using std::chrono::steady_clock;

// What is not set is left to the server.
struct GenerateOptions {
  std::string prompt;
  std::vector<int32_t> token_ids;
  std::string model;
  std::string request_id;
  std::optional<int32_t> max_tokens;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool quiet = false;
  absl::Duration timeout = absl::ZeroDuration();
};

v1::GenerateRequest MakeRequest(const GenerateOptions& options) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  request.set_request_id(options.request_id);
  if (options.token_ids.empty()) {
    request.set_text(ReadTextArgument(options.prompt));
  } else {
    request.mutable_token_ids()->mutable_ids()->Add(options.token_ids.begin(), options.token_ids.end());
  }
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_k) sampling.set_top_k(*options.top_k);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.min_p) sampling.set_min_p(*options.min_p);
  if (options.seed) sampling.set_seed(*options.seed);
  v1::StopConditions& stopping = *request.mutable_stopping();
  if (options.max_tokens) stopping.set_max_tokens(*options.max_tokens);
  if (options.ignore_eos) stopping.set_ignore_eos(true);
  for (const std::string& stop : options.stop_strings) stopping.add_stop_strings(stop);
  for (int32_t id : options.stop_token_ids) stopping.add_stop_token_ids(id);
  return request;
}

std::string FinishReasonText(const v1::FinishedEvent& finished) {
  switch (finished.reason()) {
    case v1::FINISH_REASON_END_OF_SEQUENCE:
      return "end of sequence";
    case v1::FINISH_REASON_STOP_TOKEN:
      return absl::StrFormat("stop token %d", finished.matched_token_id());
    case v1::FINISH_REASON_STOP_STRING:
      return "stop string";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_TIME_LIMIT:
      return "time limit";
    default:
      return "unknown reason";
  }
}

// "42 tokens after 5, 31.5 tokens/s, first token after 12 ms, end: length"
std::string Summary(const v1::FinishedEvent& finished, steady_clock::duration first_token,
                    steady_clock::duration total) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  const int64_t tokens = finished.usage().generated_tokens();
  const double decode_seconds = std::chrono::duration<double>(total - first_token).count();
  std::string text = absl::StrFormat("%d tokens after a prompt of %d", tokens, finished.usage().prompt_tokens());
  if (tokens > 1 && decode_seconds > 0.0) {
    text += absl::StrFormat(", %.1f tokens/s", static_cast<double>(tokens - 1) / decode_seconds);
  }
  text += absl::StrFormat(", first token after %.1f ms, end: %s", Milliseconds(first_token).count(),
                          FinishReasonText(finished));
  const v1::RoutingReport& routing = finished.routing();
  if (const int64_t lost = routing.reweighted() + routing.dropped(); lost > 0) {
    text += absl::StrFormat(", lost assignments: %d of %d", lost, lost + routing.processed() + routing.rerouted());
  }
  return text;
}

int RunGenerate(const GenerateOptions& options, const ClientOptions& client) {
  const auto stub = v1::GenerationService::NewStub(OpenChannel(client));
  const auto context = MakeContext(options.timeout);
  const v1::GenerateRequest request = MakeRequest(options);
  const steady_clock::time_point start = steady_clock::now();
  std::optional<steady_clock::duration> first_token;
  std::optional<v1::FinishedEvent> finished;

  const auto stream = stub->Generate(context.get(), request);
  for (v1::GenerateResponse event; stream->Read(&event);) {
    if (event.has_delta() && !first_token) first_token = steady_clock::now() - start;
    if (event.has_finished()) finished = event.finished();
    if (client.json) {
      std::cout << ToJsonLine(event) << std::flush;
    } else {
      const std::string& text = event.has_delta() ? event.delta().text() : event.finished().text();
      std::cout << ForStdout(text) << std::flush;
    }
  }
  const steady_clock::duration total = steady_clock::now() - start;
  if (!client.json && first_token) std::cout << std::endl;
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return ReportError(status, client.address);
  if (!finished) {
    std::cerr << "cadre: the stream ended without a finished event\n";
    return kExitFailed;
  }
  if (!client.json && !options.quiet) {
    std::cerr << "[" << Summary(*finished, first_token.value_or(total), total) << "]\n";
  }
  return kExitOk;
}

void AddSamplingOptions(CLI::App& command, GenerateOptions& options) {
  command.add_option("-n,--max-tokens", options.max_tokens, "The most tokens to generate");
  command.add_option("-t,--temperature", options.temperature, "0 always takes the most likely token");
  command.add_option("--top-k", options.top_k, "Choose among the k most likely tokens; 0 for all");
  command.add_option("--top-p", options.top_p, "Choose among the most likely tokens that reach this probability");
  command.add_option("--min-p", options.min_p, "Drop tokens less likely than this share of the most likely one");
  command.add_option("--seed", options.seed, "The same seed gives the same text");
  command.add_option("--stop", options.stop_strings, "End where this text appears; may be given again")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("--stop-token-id", options.stop_token_ids, "End with this token; may be given again")
      ->take_all()
      ->allow_extra_args(false);
  command.add_flag("--ignore-eos", options.ignore_eos, "Go on behind the model's own end of text");
}

}  // namespace

void AddGenerateCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt and print the text as it comes");
  CLI::Option* prompt = command->add_option("prompt", options->prompt, "The text to continue, or - for stdin");
  CLI::Option* token_ids = command->add_option("--token-ids", options->token_ids, "A prompt as ids, such as 12,345");
  token_ids->delimiter(',')->excludes(prompt)->allow_extra_args(false);
  AddSamplingOptions(*command, *options);
  command->add_option("--model", options->model, "Model name; default: the one that is served");
  command->add_option("--request-id", options->request_id, "Appears in the server's log");
  command->add_flag("-q,--quiet", options->quiet, "No summary on stderr");
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, prompt, token_ids, &client, exit_code] {
    if (prompt->count() + token_ids->count() == 0) throw CLI::RequiredError("prompt or --token-ids");
    *exit_code = RunGenerate(*options, client);
  });
}

}  // namespace cadre
