// cadre generate: streams the continuation of a prompt.

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "tools/answer_summary.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/generate_options.h"
#include "tools/generation_printer.h"
#include "tools/routing_file.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

using std::chrono::steady_clock;

struct GenerateFlags {
  GenerateOptions options;
  std::string prompt;
  std::vector<int32_t> token_ids;
  std::optional<int32_t> num_sequences;
  std::optional<int32_t> top_logprobs;
  std::optional<int32_t> prompt_logprobs;
  bool no_special_tokens = false;
  bool parse_special = false;
  bool logprobs = false;
  bool echo = false;
  bool token_bytes = false;
  std::string routed_experts_file;
  std::string replay_file;
  v1::ReplayWeights replay_weights = v1::REPLAY_WEIGHTS_UNSPECIFIED;
  bool quiet = false;
};

v1::GenerateRequest MakeRequest(const GenerateFlags& flags) {
  v1::GenerateRequest request = flags.options.request;
  if (flags.token_ids.empty()) {
    request.set_text(ReadTextArgument(flags.prompt));
  } else {
    request.mutable_token_ids()->mutable_ids()->Add(flags.token_ids.begin(), flags.token_ids.end());
  }
  if (flags.num_sequences) request.mutable_sampling()->set_n(*flags.num_sequences);
  if (flags.no_special_tokens) request.mutable_prompt()->set_add_special_tokens(false);
  if (flags.parse_special) request.mutable_prompt()->set_parse_special(true);
  v1::OutputOptions& output = *request.mutable_output();
  if (flags.logprobs || flags.top_logprobs) output.set_logprobs(true);
  if (flags.top_logprobs) output.set_top_logprobs(*flags.top_logprobs);
  if (flags.prompt_logprobs) output.set_prompt_logprobs(*flags.prompt_logprobs);
  if (flags.echo) output.set_echo(true);
  if (flags.token_bytes) output.set_token_bytes(true);
  if (!flags.routed_experts_file.empty()) output.set_routed_experts(true);
  return request;
}

// Reads the record that is to be replayed, if one is.
absl::Status AddReplay(const GenerateFlags& flags, v1::GenerateRequest* request) {
  if (flags.replay_file.empty()) return absl::OkStatus();
  auto record = ReadRoutedExperts(flags.replay_file);
  if (!record.ok()) return record.status();
  *request->mutable_replay_routing()->mutable_record() = *std::move(record);
  request->mutable_replay_routing()->set_weights(flags.replay_weights);
  return absl::OkStatus();
}

// Keeps what was told of the one sequence there is.
absl::Status SaveRouting(const GenerateFlags& flags, const v1::RoutedExperts& routed) {
  if (flags.routed_experts_file.empty()) return absl::OkStatus();
  return WriteRoutedExperts(routed, flags.routed_experts_file);
}

int RunGenerate(GenerateFlags& flags, const ClientOptions& client) {
  if (const absl::Status status = CompleteGenerateOptions(flags.options); !status.ok()) {
    std::cerr << "cadre: " << status.message() << "\n";
    return kExitUsage;
  }
  const auto stub = v1::GenerationService::NewStub(OpenChannel(client));
  const auto context = MakeContext(flags.options.timeout);
  v1::GenerateRequest request = MakeRequest(flags);
  if (const absl::Status status = AddReplay(flags, &request); !status.ok()) {
    std::cerr << "cadre: " << status.message() << "\n";
    return kExitUsage;
  }
  GenerationPrinter printer(request);
  const steady_clock::time_point start = steady_clock::now();
  std::optional<steady_clock::duration> first_token;
  AnswerSummary summary;
  v1::RoutedExperts routed;

  const auto stream = stub->Generate(context.get(), request);
  for (v1::GenerateResponse event; stream->Read(&event);) {
    if (event.has_delta() && !first_token) first_token = steady_clock::now() - start;
    if (event.has_finished()) summary.Add(event.finished());
    if (event.finished().has_routed_experts()) routed = event.finished().routed_experts();
    std::cout << (client.json ? ToJsonLine(event) : ForStdout(printer.Print(event))) << std::flush;
  }
  const steady_clock::duration total = steady_clock::now() - start;
  if (!client.json && first_token && summary.empty()) std::cout << std::endl;
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return ReportError(status, client.address);
  if (summary.empty()) {
    std::cerr << "cadre: the stream ended without a finished event\n";
    return kExitFailed;
  }
  if (const absl::Status saved = SaveRouting(flags, routed); !saved.ok()) {
    std::cerr << "cadre: " << saved.message() << "\n";
    return kExitFailed;
  }
  if (!client.json && !flags.quiet) {
    std::cerr << "[" << summary.Text(absl::FromChrono(first_token.value_or(total))) << "]\n";
  }
  return kExitOk;
}

void AddOutputOptions(CLI::App& command, GenerateFlags& flags) {
  command.add_option("--sequences,--n", flags.num_sequences, "So many continuations of the prompt");
  command.add_flag("--logprobs", flags.logprobs, "Show the probability of each token");
  command.add_option("--top-logprobs", flags.top_logprobs, "And of so many of the most likely alternatives");
  command.add_option("--prompt-logprobs", flags.prompt_logprobs, "The same for the tokens of the prompt");
  command.add_flag("--token-bytes", flags.token_bytes, "Show the bytes of each token");
  command.add_flag("--echo", flags.echo, "Repeat the prompt in front of the text");
  command.add_flag("--no-special-tokens", flags.no_special_tokens,
                   "Do not add the special tokens that the model's tokenizer adds to a prompt");
  command.add_flag("--parse-special", flags.parse_special,
                   "Read the text of a special token as the token, not as its characters");
  command
      .add_option("--routed-experts", flags.routed_experts_file,
                  "Write the experts of each token to this file, as JSON")
      ->excludes("--sequences");
  CLI::Option* const replay =
      command.add_option("--replay-routing", flags.replay_file, "Route the tokens to the experts in such a file");
  const std::map<std::string, v1::ReplayWeights> weights = {{"router", v1::REPLAY_WEIGHTS_ROUTER},
                                                            {"recorded", v1::REPLAY_WEIGHTS_RECORDED}};
  command
      .add_option("--replay-weights", flags.replay_weights,
                  "What these experts weigh: what the router gives them now, or what the file says")
      ->transform(CLI::CheckedTransformer(weights).description("router|recorded"))
      ->needs(replay);
  command.add_flag("-q,--quiet", flags.quiet, "No summary on stderr");
}

}  // namespace

void AddGenerateCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt and print the text as it comes");
  CLI::Option* prompt = command->add_option("prompt", flags->prompt, "The text to continue, or - for stdin");
  CLI::Option* token_ids = command->add_option("--token-ids", flags->token_ids, "A prompt as ids, such as 12,345");
  token_ids->delimiter(',')->excludes(prompt)->allow_extra_args(false);
  AddGenerateOptions(*command, flags->options);
  AddOutputOptions(*command, *flags);
  command->callback([flags, prompt, token_ids, &client, exit_code] {
    if (prompt->count() + token_ids->count() == 0) throw CLI::RequiredError("prompt or --token-ids");
    *exit_code = RunGenerate(*flags, client);
  });
}

}  // namespace cadre
