// cadre profile: what was learned about the use of experts, to a file and from one.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cadre/v1/expert_service.grpc.pb.h"
#include "proto/profile_file.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/duration_option.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

constexpr int kShownExperts = 4;

struct ProfileOptions {
  std::string model;
  std::string file;
  int max_pairs = 256;
  absl::Duration timeout = absl::Seconds(30);
};

int Fail(const absl::Status& status) {
  std::cerr << "cadre: " << std::string(status.message()) << "\n";
  return kExitFailed;
}

// "3/17 8.1%": the layer, the expert and its share of what the class had, most first.
std::string MostUsed(const v1::ExpertProfile& profile, const v1::TokenClassProfile& of_class) {
  const int experts = std::max(1, profile.num_experts());
  std::vector<int> cells(static_cast<size_t>(of_class.assignments_size()));
  std::iota(cells.begin(), cells.end(), 0);
  const auto end = cells.begin() + std::min<std::ptrdiff_t>(kShownExperts, std::ssize(cells));
  std::partial_sort(cells.begin(), end, cells.end(), [&of_class](int a, int b) {
    return std::pair(of_class.assignments(b), a) < std::pair(of_class.assignments(a), b);
  });
  std::string text;
  for (auto cell = cells.begin(); cell != end; ++cell) {
    const int row = *cell / experts;
    absl::StrAppendFormat(&text, "  %d/%d %.0f%%", row < profile.layers_size() ? profile.layers(row) : row,
                          *cell % experts,
                          100.0 * static_cast<double>(of_class.assignments(*cell)) /
                              static_cast<double>(std::max<int64_t>(1, of_class.tokens())));
  }
  return text;
}

std::string Describe(const v1::ExpertProfile& profile) {
  std::string text = absl::StrFormat("%s: %d MoE layers of %d experts, %d tokens, %d of them looked at one by one\n",
                                     WithoutControlCharacters(profile.model_fingerprint()), profile.layers_size(),
                                     profile.num_experts(), profile.tokens(), profile.sampled_tokens());
  if (profile.token_classes_size() > 0) text += "class           tokens  layer/expert, share of the class's tokens\n";
  for (const v1::TokenClassProfile& of_class : profile.token_classes()) {
    absl::StrAppendFormat(&text, "%-12s %9d%s\n", WithoutControlCharacters(of_class.token_class()), of_class.tokens(),
                          MostUsed(profile, of_class));
  }
  return text;
}

int Show(const v1::ExpertProfile& profile, const ClientOptions& client) {
  std::cout << (client.json ? ToJsonLine(profile) : Describe(profile)) << std::flush;
  return kExitOk;
}

int Export(const ProfileOptions& options, const ClientOptions& client) {
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  v1::ExportProfileRequest request;
  request.set_model(options.model);
  request.set_max_pairs(options.max_pairs);
  v1::ExportProfileResponse response;
  const grpc::Status status = stub->ExportProfile(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  if (const absl::Status written = WriteProfile(response.profile(), options.file); !written.ok()) return Fail(written);
  return Show(response.profile(), client);
}

int Import(const ProfileOptions& options, const ClientOptions& client) {
  absl::StatusOr<v1::ExpertProfile> profile = ReadProfileFile(options.file);
  if (!profile.ok()) return Fail(profile.status());
  const auto stub = v1::ExpertService::NewStub(OpenChannel(client));
  v1::ImportProfileRequest request;
  request.set_model(options.model);
  *request.mutable_profile() = *std::move(profile);
  v1::ImportProfileResponse response;
  const grpc::Status status = stub->ImportProfile(MakeContext(options.timeout).get(), request, &response);
  if (!status.ok()) return ReportError(status, client.address);
  std::cout << (client.json ? ToJsonLine(response) : "imported: drift is measured against this profile now\n")
            << std::flush;
  return kExitOk;
}

int ShowFile(const ProfileOptions& options, const ClientOptions& client) {
  const absl::StatusOr<v1::ExpertProfile> profile = ReadProfileFile(options.file);
  return profile.ok() ? Show(*profile, client) : Fail(profile.status());
}

}  // namespace

void AddProfileCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand("profile", "Use of experts as a file: export it, import it, show it");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, int (*run)(const ProfileOptions&, const ClientOptions&)) {
    CLI::App* verb = command->add_subcommand(name, help);
    verb->add_option("file", options->file, "The profile")->required();
    verb->callback([options, &client, exit_code, run] { *exit_code = run(*options, client); });
    return verb;
  };
  CLI::App* to_file = add("export", "Write what a server has seen to a file", &Export);
  to_file->add_option("--max-pairs", options->max_pairs, "Most frequent pairs of experts of each layer")
      ->check(CLI::Range(0, 4096));
  CLI::App* from_file = add("import", "Let a server measure drift against a file", &Import);
  add("show", "Show a file", &ShowFile);
  for (CLI::App* verb : {to_file, from_file}) {
    verb->add_option("--model", options->model, "Model name; default: the one that is served");
    AddTimeoutOption(*verb, &options->timeout);
  }
}

}  // namespace cadre
