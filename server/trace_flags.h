// The flags that have calls traced.
#ifndef CADRE_SERVER_TRACE_FLAGS_H_
#define CADRE_SERVER_TRACE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>

namespace cadre {

// Must stay where it is from AddTo until the flags are parsed.
struct TraceFlags {
  std::string endpoint;  // empty: nothing is traced
  double sample_ratio = 1.0;

  void AddTo(CLI::App& app);
};

}  // namespace cadre

#endif  // CADRE_SERVER_TRACE_FLAGS_H_
