// How long prompts and outputs are.
#ifndef CADRE_TOOLS_LOADGEN_LENGTH_DISTRIBUTION_H_
#define CADRE_TOOLS_LOADGEN_LENGTH_DISTRIBUTION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "tools/loadgen/random.h"

namespace cadre {

class LengthDistribution {
 public:
  static constexpr int32_t kMaxLength = 1 << 24;

  // "128"; "uniform:64-256", both ends included; "lognormal:128,0.8" (median, sigma of the logarithm) or
  // "lognormal:128,0.8,2048" with a limit that draws are cut to. Lengths are in [1, kMaxLength]. INVALID_ARGUMENT says
  // what is wrong.
  static absl::StatusOr<LengthDistribution> Parse(const std::string& text);

  int32_t Draw(Random& random) const;
  // As Parse reads it.
  const std::string& text() const { return text_; }

 private:
  enum class Kind { kFixed, kUniform, kLognormal };

  Kind kind_ = Kind::kFixed;
  int32_t low_ = 1;  // the length, when it is fixed
  int32_t high_ = kMaxLength;
  double median_ = 1.0;
  double sigma_ = 0.0;
  std::string text_ = "1";
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_LENGTH_DISTRIBUTION_H_
