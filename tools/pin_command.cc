// cadre pin: which experts stay in memory, of a model that does not fit.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "proto/profile_file.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

struct PinOptions {
  std::string model;
  std::vector<std::string> experts;
  bool none = false;
  std::string profile;
  int count = 0;
  absl::Duration timeout = absl::Seconds(10);
};

// "3/17": expert 17 of layer 3.
std::optional<v1::ExpertRef> ParseRef(const std::string& text) {
  const size_t slash = text.find('/');
  int32_t layer = 0;
  int32_t expert = 0;
  if (slash == std::string::npos || !absl::SimpleAtoi(text.substr(0, slash), &layer) ||
      !absl::SimpleAtoi(text.substr(slash + 1), &expert)) {
    return std::nullopt;
  }
  v1::ExpertRef ref;
  ref.set_layer(layer);
  ref.set_expert(expert);
  return ref;
}

std::string CheckRef(const std::string& text) {
  return ParseRef(text).has_value() ? "" : text + " is not LAYER/EXPERT, such as 3/17";
}

// The most used experts of all layers, those that were used at all: as the engine chooses for --expert-keep. Tools know
// nothing of the engine, and the protos hold messages alone, so it stands here once more.
void AddMostUsed(const v1::ExpertProfile& profile, int count, v1::PinExpertsRequest* request) {
  std::vector<int> cells(static_cast<size_t>(profile.assignments_size()));
  std::iota(cells.begin(), cells.end(), 0);
  std::ranges::sort(cells, {}, [&](int cell) { return std::tuple(-profile.assignments(cell), cell); });
  for (const int cell : cells) {
    const int row = cell / std::max(1, profile.num_experts());
    if (request->experts_size() == count || profile.assignments(cell) <= 0 || row >= profile.layers_size()) return;
    v1::ExpertRef* const ref = request->add_experts();
    ref->set_layer(profile.layers(row));
    ref->set_expert(cell % std::max(1, profile.num_experts()));
  }
}

int Pin(const PinOptions& options, const ClientOptions& client) {
  v1::PinExpertsRequest request;
  request.set_model(options.model);
  for (const std::string& text : options.experts) *request.add_experts() = *ParseRef(text);  // as the parser has seen
  if (!options.profile.empty()) {
    const absl::StatusOr<v1::ExpertProfile> profile = ReadProfileFile(options.profile);
    if (!profile.ok()) {
      std::cerr << "cadre: " << std::string(profile.status().message()) << "\n";
      return kExitFailed;
    }
    AddMostUsed(*profile, options.count, &request);
  }
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  v1::PinExpertsResponse response;
  const grpc::Status status = stub->PinExperts(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  std::cout << (client.json ? ToJsonLine(response) : absl::StrFormat("pinned: %d experts\n", response.num_pinned()))
            << std::flush;
  return kExitOk;
}

}  // namespace

void AddPinCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<PinOptions>();
  CLI::App* command = app.add_subcommand("pin", "Keep experts in memory, in place of those that were pinned before");
  const auto check = CLI::Validator(CheckRef, "LAYER/EXPERT");
  CLI::Option* experts = command->add_option("experts", options->experts, "The experts: 3/17 is expert 17 of layer 3");
  experts->check(check);
  CLI::Option* none = command->add_flag("--none", options->none, "Pin none");
  CLI::Option* profile =
      command->add_option("--profile", options->profile, "A profile: pin its most used experts, --count of them");
  CLI::Option* count = command->add_option("--count", options->count, "How many of the profile");
  count->check(CLI::PositiveNumber)->needs(profile);
  profile->needs(count)->excludes(experts)->excludes(none);
  none->excludes(experts);
  command->add_option("--model", options->model, "Model name; default: the one that is served");
  AddTimeoutOption(*command, &options->timeout);
  // Forgetting to say which must not unpin all.
  command->callback([=, &client] {
    if (options->experts.empty() && !options->none && options->profile.empty()) {
      throw CLI::RequiredError("experts to pin, --profile or --none");
    }
    *exit_code = Pin(*options, client);
  });
}

}  // namespace cadre
