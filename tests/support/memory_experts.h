// A source of experts in memory, which fails, waits and lies when it is told to.
#ifndef CADRE_TESTS_SUPPORT_MEMORY_EXPERTS_H_
#define CADRE_TESTS_SUPPORT_MEMORY_EXPERTS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/experts/expert_source.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"

namespace cadre {

// All calls from any thread.
class MemoryExperts final : public ExpertSource {
 public:
  static constexpr size_t kPieces = 4;

  // Bytes of each expert, all of one size.
  explicit MemoryExperts(std::vector<std::vector<std::byte>> experts);

  int64_t expert_bytes() const override { return static_cast<int64_t>(experts_.front().size()); }
  absl::Status Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const override;
  std::string Describe(ExpertId expert) const override;

  // The next `times` reads of `expert` fail with `status`.
  void Fail(ExpertId expert, const absl::Status& status, int64_t times);
  // Of those, how many are still to come.
  int64_t num_failures_left(ExpertId expert) const;
  // Reads of `expert` give other bytes, or the right ones again.
  void SetCorrupt(ExpertId expert, bool is_corrupt);
  // Reads of `expert` give zeros: it computes zero, whatever it is given.
  void SetZero(ExpertId expert);
  // Reads of `expert` do not end, or go on.
  void SetStuck(ExpertId expert, bool is_stuck);
  // That were begun.
  int64_t num_reads(ExpertId expert) const;
  // Of all reads of `expert`, kPieces each; before each one the reader's pace is asked.
  int64_t num_pieces(ExpertId expert) const;

 private:
  struct Failure {
    absl::Status status;
    int64_t times = 0;
  };

  const std::vector<std::vector<std::byte>> experts_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::map<ExpertId, Failure> failures_;
  std::set<ExpertId> corrupt_;
  std::set<ExpertId> zero_;
  std::set<ExpertId> stuck_;
  mutable std::map<ExpertId, int64_t> reads_;
  mutable std::map<ExpertId, int64_t> pieces_;
};

// As many experts of `bytes` each; every byte of expert number i is i + 1.
std::vector<std::vector<std::byte>> MakeNumberedExperts(int count, size_t bytes);

// Takes the experts of all layers out of `weights`, whose memory is the host's.
std::vector<std::vector<std::byte>> TakeExperts(const ModelConfig& config, Weights* weights);

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_MEMORY_EXPERTS_H_
