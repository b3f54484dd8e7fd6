// Experts that lie in the device's memory for good, where the device has memory of its own and the host's does not hold
// the others: those come and go in the host's memory, from the checkpoint.
#ifndef CADRE_ENGINE_MODEL_RESIDENT_EXPERTS_H_
#define CADRE_ENGINE_MODEL_RESIDENT_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/expert_source.h"
#include "engine/model/expert_layout.h"
#include "kernels/device.h"

namespace cadre {

// Does not change once it is there: any thread.
class ResidentExperts {
 public:
  // Nobody.
  ResidentExperts() = default;
  // Reads `experts`, none twice, with up to `num_threads` reads at a time. Errors are those of the source, which is not
  // asked again, and of the device.
  static absl::StatusOr<ResidentExperts> Load(const ExpertLayout& layout, int64_t num_experts,
                                              std::span<const ExpertId> experts, const ExpertSource& source,
                                              int num_threads, Device* device);

  bool Has(ExpertId expert) const { return !slots_.empty() && slots_[static_cast<size_t>(expert)] >= 0; }
  // Laid out as ExpertLayout says, in the device's memory. REQUIRES: Has(expert).
  std::byte* WeightsOf(ExpertId expert) const {
    return SlotData(static_cast<size_t>(slots_[static_cast<size_t>(expert)]));
  }
  const std::vector<ExpertId>& experts() const { return experts_; }

 private:
  ResidentExperts(size_t slot_bytes, int64_t num_experts, std::span<const ExpertId> experts, DeviceBuffer arena);

  std::byte* SlotData(size_t slot) const { return arena_.data() + slot * slot_bytes_; }

  size_t slot_bytes_ = 0;
  std::vector<ExpertId> experts_;
  std::vector<int64_t> slots_;  // of each expert of the model; -1: not here
  DeviceBuffer arena_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_MODEL_RESIDENT_EXPERTS_H_
