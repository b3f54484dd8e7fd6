// cadre tokenize: text to token ids, and back.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "cadre/v1/generation_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

struct TokenizeOptions {
  std::string input;              // the text, or ids
  std::vector<std::string> more;  // ids
  std::string model;
  bool decode = false;
  bool no_special_tokens = false;
  bool parse_special = false;
  bool keep_special_tokens = false;
  absl::Duration timeout = absl::Seconds(10);
};

int RunTokenize(const TokenizeOptions& options, const ClientOptions& client) {
  const auto stub = v1::GenerationService::NewStub(OpenChannel(client));
  v1::TokenizeRequest request;
  request.set_model(options.model);
  request.set_text(ReadTextArgument(options.input));
  if (options.no_special_tokens) request.mutable_prompt()->set_add_special_tokens(false);
  if (options.parse_special) request.mutable_prompt()->set_parse_special(true);
  v1::TokenizeResponse response;
  const grpc::Status status = stub->Tokenize(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  if (client.json) {
    std::cout << ToJsonLine(response);
    return kExitOk;
  }
  const char* separator = "";
  for (int32_t id : response.token_ids()) {
    std::cout << separator << id;
    separator = " ";
  }
  std::cout << "\n";
  return kExitOk;
}

// Ids separated by spaces, commas or line breaks, also in brackets as JSON has them. False when one is none.
bool ParseTokenIds(const TokenizeOptions& options, google::protobuf::RepeatedField<int32_t>* ids) {
  std::string joined = ReadTextArgument(options.input);
  for (const std::string& more : options.more) absl::StrAppend(&joined, " ", ReadTextArgument(more));
  for (const absl::string_view word : absl::StrSplit(joined, absl::ByAnyChar(" \t\r\n,[]"), absl::SkipEmpty())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(word, &id)) return false;
    ids->Add(id);
  }
  return true;
}

int RunDetokenize(const TokenizeOptions& options, const ClientOptions& client) {
  v1::DetokenizeRequest request;
  request.set_model(options.model);
  request.set_skip_special_tokens(!options.keep_special_tokens);
  if (!ParseTokenIds(options, request.mutable_token_ids())) {
    std::cerr << "cadre: --decode takes token ids, such as 12,345\n";
    return kExitUsage;
  }
  const auto stub = v1::GenerationService::NewStub(OpenChannel(client));
  v1::DetokenizeResponse response;
  const grpc::Status status = stub->Detokenize(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  std::cout << (client.json ? ToJsonLine(response) : ForStdout(response.text()) + "\n");
  return kExitOk;
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "Turn text into token ids, or with --decode ids into text");
  // One string: of several, the library would read "[a]" as a list.
  command->add_option("input", options->input, "The text, or - for stdin; with --decode the ids")->required();
  command->add_option("more", options->more, "With --decode: more ids");
  command->add_flag("--decode", options->decode, "Turn ids into text");
  command->add_flag("--no-special-tokens", options->no_special_tokens,
                    "Do not add the special tokens that the model's tokenizer adds to a prompt");
  command->add_flag("--parse-special", options->parse_special,
                    "Read the text of a special token as the token, not as its characters");
  command->add_flag("--keep-special-tokens", options->keep_special_tokens, "With --decode: show special tokens");
  command->add_option("--model", options->model, "Model name; default: the one that is served");
  AddTimeoutOption(*command, &options->timeout);
  command->callback([options, &client, exit_code] {
    if (!options->decode && !options->more.empty()) {
      throw CLI::ValidationError("input", "takes one text; quote it");
    }
    *exit_code = options->decode ? RunDetokenize(*options, client) : RunTokenize(*options, client);
  });
}

}  // namespace cadre
