// Whether the routers of a model send everything to a few experts, with hysteresis: what lies between the two
// thresholds stays what it was.
#ifndef CADRE_ENGINE_EXPERTS_COLLAPSE_DETECTOR_H_
#define CADRE_ENGINE_EXPERTS_COLLAPSE_DETECTOR_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cadre {

// How freely a router uses its experts: (X - k) / (E - k), where X is the number of effective experts (see
// EffectiveExperts) and k the mean number of experts of a token. 0: every token goes to the same k; 1: all are used
// alike. 1 where there is no choice (k >= E), or no load.
double RoutingFreedom(std::span<const int64_t> loads, double per_token);

// A layer is collapsed once its freedom is below the first, until it is above the second.
inline constexpr double kCollapseBelow = 0.10;
inline constexpr double kRecoverAbove = 0.20;

// Of all layers. A single thread at a time.
class CollapseDetector {
 public:
  explicit CollapseDetector(size_t num_layers) : collapsed_(num_layers, 0) {}

  // The loads of one layer over a window, `tokens` of them. A window of fewer assignments than one for each expert says
  // nothing and changes nothing.
  void Observe(size_t layer, std::span<const int64_t> loads, int64_t tokens);
  void Reset() { collapsed_.assign(collapsed_.size(), 0); }

  // [num_layers] 1 for a layer that is collapsed.
  const std::vector<uint8_t>& collapsed() const { return collapsed_; }

 private:
  std::vector<uint8_t> collapsed_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_COLLAPSE_DETECTOR_H_
