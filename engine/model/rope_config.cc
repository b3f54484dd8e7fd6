#include "engine/model/rope_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre {
namespace {

using nlohmann::json;

constexpr double kMinTheta = 1.001;  // YaRN divides by ln(theta)
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;

// theta^(2i/r) for i in [0, r/2): the wavelengths over 2 pi.
std::vector<float> Periods(double theta, int64_t rotary_dim) {
  std::vector<float> periods(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < periods.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotary_dim);
    periods[i] = static_cast<float>(std::pow(static_cast<double>(static_cast<float>(theta)), double{exponent}));
  }
  return periods;
}

std::vector<float> DefaultFrequencies(double theta, int64_t rotary_dim) {
  std::vector<float> frequencies = Periods(theta, rotary_dim);
  for (float& f : frequencies) f = 1.0f / f;
  return frequencies;
}

// The object with the scaling: `rope_scaling` before `rope_parameters`, as transformers reads them.
const json& ScalingObject(ConfigReader& config) {
  const json& scaling = config.Object("rope_scaling");
  if (!scaling.empty()) return scaling;
  const json& parameters = config.Object("rope_parameters");
  // A model with layer types nests one object under each; those that cadre runs have full attention alone.
  const auto nested = parameters.find("full_attention");
  return nested != parameters.end() && nested->is_object() ? *nested : parameters;
}

RopeConfig Linear(ConfigReader& scaling, double theta, int64_t rotary_dim) {
  const auto factor = static_cast<float>(scaling.Number("factor", 1.0, kMaxFactor));
  RopeConfig rope{.inverse_frequencies = DefaultFrequencies(theta, rotary_dim)};
  for (float& f : rope.inverse_frequencies) f /= factor;
  return rope;
}

RopeConfig Llama3(ConfigReader& scaling, double theta, int64_t rotary_dim, double original_positions) {
  const auto factor = static_cast<float>(scaling.Number("factor", 1.0, kMaxFactor));
  const double low_factor = scaling.Number("low_freq_factor", 1e-6, kMaxFactor);
  const double high_factor = scaling.Number("high_freq_factor", 1e-6, kMaxFactor);
  if (high_factor <= low_factor) {
    scaling.Fail(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("high_freq_factor is ", high_factor, ", must be above low_freq_factor ", low_factor));
  }
  const auto low_wavelength = static_cast<float>(original_positions / low_factor);
  const auto high_wavelength = static_cast<float>(original_positions / high_factor);
  RopeConfig rope{.inverse_frequencies = DefaultFrequencies(theta, rotary_dim)};
  for (float& f : rope.inverse_frequencies) {
    const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / f;
    if (wavelength > low_wavelength) {
      f /= factor;
    } else if (!(wavelength < high_wavelength)) {
      const float smooth = (static_cast<float>(original_positions) / wavelength - static_cast<float>(low_factor)) /
                           static_cast<float>(high_factor - low_factor);
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
  return rope;
}

// The dimension whose wavelength fits `rotations` times into the original context.
double CorrectionDimension(double rotations, int64_t rotary_dim, double theta, double original_positions) {
  return static_cast<double>(rotary_dim) * std::log(original_positions / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(theta));
}

double MagnitudeScale(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

float YarnAmplitude(ConfigReader& scaling, double factor) {
  if (scaling.Has("attention_factor")) return static_cast<float>(scaling.Number("attention_factor", 1e-6, 1e6));
  const double mscale = scaling.Number("mscale", 0.0, 1e6, 0.0);
  const double mscale_all_dim = scaling.Number("mscale_all_dim", 0.0, 1e6, 0.0);
  if (mscale != 0.0 && mscale_all_dim != 0.0) {
    return static_cast<float>(MagnitudeScale(factor, mscale) / MagnitudeScale(factor, mscale_all_dim));
  }
  return static_cast<float>(MagnitudeScale(factor, 1.0));
}

RopeConfig Yarn(ConfigReader& scaling, double theta, int64_t rotary_dim, double original_positions,
                double max_positions) {
  const double factor = scaling.Has("factor") ? scaling.Number("factor", 1.0, kMaxFactor)
                                              : std::max(1.0, max_positions / original_positions);
  double beta_fast = scaling.Number("beta_fast", 0.0, 1e6, 0.0);
  double beta_slow = scaling.Number("beta_slow", 0.0, 1e6, 0.0);
  if (beta_fast == 0.0) beta_fast = 32.0;
  if (beta_slow == 0.0) beta_slow = 1.0;
  double low = CorrectionDimension(beta_fast, rotary_dim, theta, original_positions);
  double high = CorrectionDimension(beta_slow, rotary_dim, theta, original_positions);
  if (scaling.Bool("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotary_dim - 1));
  if (low == high) high += 0.001;

  RopeConfig rope{.inverse_frequencies = Periods(theta, rotary_dim), .amplitude = YarnAmplitude(scaling, factor)};
  rope.scaled_positions =
      static_cast<int64_t>(std::min(factor * original_positions, static_cast<double>(kMaxPositionEmbeddings)));
  for (size_t i = 0; i < rope.inverse_frequencies.size(); ++i) {
    const float period = rope.inverse_frequencies[i];
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float kept = 1.0f - ramp;
    rope.inverse_frequencies[i] = 1.0f / (static_cast<float>(factor) * period) * (1.0f - kept) + 1.0f / period * kept;
  }
  return rope;
}

}  // namespace

absl::StatusOr<RopeConfig> ReadRopeConfig(ConfigReader& config, int64_t head_dim, int64_t max_position_embeddings,
                                          double default_theta) {
  ConfigReader scaling(ScalingObject(config),
                       config.Has("rope_scaling") ? "config.json: rope_scaling" : "config.json: rope_parameters");
  const double outer_theta = config.Number("rope_theta", kMinTheta, kMaxTheta, default_theta);
  const double theta = scaling.Number("rope_theta", kMinTheta, kMaxTheta, outer_theta);
  const std::string type = scaling.String("rope_type", scaling.String("type", "default"));
  const double outer_partial = config.Number("partial_rotary_factor", 0.0, 1.0, 1.0);
  if (scaling.Number("partial_rotary_factor", 0.0, 1.0, outer_partial) != 1.0) {
    scaling.Fail(absl::StatusCode::kUnimplemented, "partial_rotary_factor other than 1 is not supported");
  }
  const int64_t inner_original =
      scaling.Int({"original_max_position_embeddings"}, 1, kMaxPositionEmbeddings, max_position_embeddings);
  const auto original_positions =
      static_cast<double>(config.Int({"original_max_position_embeddings"}, 1, kMaxPositionEmbeddings, inner_original));
  CADRE_RETURN_IF_ERROR(config.status());

  RopeConfig rope;
  if (type == "default") {
    rope.inverse_frequencies = DefaultFrequencies(theta, head_dim);
  } else if (type == "linear") {
    rope = Linear(scaling, theta, head_dim);
  } else if (type == "llama3") {
    rope = Llama3(scaling, theta, head_dim, original_positions);
  } else if (type == "yarn") {
    rope = Yarn(scaling, theta, head_dim, original_positions, static_cast<double>(max_position_embeddings));
  } else {
    scaling.Fail(absl::StatusCode::kUnimplemented,
                 absl::StrCat("rope_type ", Quoted(type), " is not supported (default, linear, llama3, yarn are)"));
  }
  CADRE_RETURN_IF_ERROR(scaling.status());
  return rope;
}

}  // namespace cadre
