// The options that requests of `generate` and `chat` have in common, as flags and as settings by name.
#ifndef CADRE_TOOLS_GENERATE_OPTIONS_H_
#define CADRE_TOOLS_GENERATE_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cadre/v1/generation_service.pb.h"

namespace cadre {

// Flags are parsed straight into `request`; what is not given stays unset and is decided by the server.
struct GenerateOptions {
  v1::GenerateRequest request;
  std::string json_schema_file;  // its text becomes the constraint
  absl::Duration timeout = absl::ZeroDuration();
};

// How tokens are chosen, when to end, structured output, scheduling, names and --timeout. `options` outlives `command`.
void AddGenerateOptions(CLI::App& command, GenerateOptions& options);

// What of the flags is only done once they are all known: reads the schema. INVALID_ARGUMENT names the file.
absl::Status CompleteGenerateOptions(GenerateOptions& options);

// Sets the field called `name` of the request's prompt, sampling, stopping, output or scheduling options to `value`;
// empty text unsets it. INVALID_ARGUMENT when there is no such field or the value is none of its type.
absl::Status SetRequestField(const std::string& name, const std::string& value, v1::GenerateRequest* request);
// "temperature = 0.7" for each field of these options that is set, by name.
std::vector<std::string> DescribeRequestFields(const v1::GenerateRequest& request);
// All names that SetRequestField knows.
std::vector<std::string> RequestFieldNames();

}  // namespace cadre

#endif  // CADRE_TOOLS_GENERATE_OPTIONS_H_
