// The flags that limit experts.
#ifndef CADRE_SERVER_CAPACITY_FLAGS_H_
#define CADRE_SERVER_CAPACITY_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/request/capacity_policy.h"

namespace cadre {

// As CLI::Range, which lets "nan" pass.
CLI::Validator NumberIn(double low, double high);

// Values as they are typed. Must stay where it is from AddTo until the flags are parsed.
struct CapacityFlags {
  double factor = 0;  // 0: off
  int32_t min_places = CapacityPolicy().min_places;
  int32_t group_tokens = CapacityPolicy().group_tokens;
  std::string scope = "request";
  std::string overflow = "drop";
  std::string overrides = "allow";  // or refuse

  void AddTo(CLI::App& app);
  // After parsing: which flag would be without effect, as "--flag: problem"; empty where each has one.
  std::string FindFault() const;
  CapacityPolicy Policy() const;

 private:
  // Those that mean something beside a factor alone.
  std::vector<const CLI::Option*> needs_factor_;
  const CLI::Option* group_option_ = nullptr;
};

}  // namespace cadre

#endif  // CADRE_SERVER_CAPACITY_FLAGS_H_
