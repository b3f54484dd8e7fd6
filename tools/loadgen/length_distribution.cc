#include "tools/loadgen/length_distribution.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace cadre {
namespace {

constexpr double kMaxSigma = 10.0;

bool ParseLength(absl::string_view text, int32_t* length) {
  return absl::SimpleAtoi(text, length) && *length >= 1 && *length <= LengthDistribution::kMaxLength;
}

absl::Status Wrong(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text,
                                                 "\" is no length; try 128, uniform:64-256 or lognormal:128,0.8,2048 "
                                                 "(median, sigma in [0, 10], limit), each length in [1, ",
                                                 LengthDistribution::kMaxLength, "]"));
}

}  // namespace

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(const std::string& text) {
  LengthDistribution parsed;
  parsed.text_ = text;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "uniform:")) {
    const std::vector<absl::string_view> ends = absl::StrSplit(rest, '-');
    if (ends.size() != 2 || !ParseLength(ends[0], &parsed.low_) || !ParseLength(ends[1], &parsed.high_) ||
        parsed.low_ > parsed.high_) {
      return Wrong(text);
    }
    parsed.kind_ = Kind::kUniform;
  } else if (absl::ConsumePrefix(&rest, "lognormal:")) {
    const std::vector<absl::string_view> parts = absl::StrSplit(rest, ',');
    int32_t median = 0;
    if (parts.size() < 2 || parts.size() > 3 || !ParseLength(parts[0], &median) ||
        !absl::SimpleAtod(parts[1], &parsed.sigma_) || !(parsed.sigma_ >= 0.0 && parsed.sigma_ <= kMaxSigma) ||
        (parts.size() == 3 && !ParseLength(parts[2], &parsed.high_))) {
      return Wrong(text);
    }
    parsed.median_ = median;
    parsed.kind_ = Kind::kLognormal;
  } else {
    absl::ConsumePrefix(&rest, "fixed:");
    if (!ParseLength(rest, &parsed.low_)) return Wrong(text);
  }
  return parsed;
}

int32_t LengthDistribution::Draw(Random& random) const {
  switch (kind_) {
    case Kind::kFixed:
      return low_;
    case Kind::kUniform:
      return static_cast<int32_t>(random.Integer(low_, high_));
    case Kind::kLognormal:
      break;
  }
  const double drawn = std::round(median_ * std::exp(sigma_ * random.Normal()));
  return static_cast<int32_t>(std::clamp(drawn, 1.0, static_cast<double>(high_)));
}

}  // namespace cadre
