// What LimitCapacity must do, written down the obvious way: every place is an entry in a map, every ranking a sorted
// list.
#ifndef CADRE_TESTS_SUPPORT_REFERENCE_CAPACITY_H_
#define CADRE_TESTS_SUPPORT_REFERENCE_CAPACITY_H_

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace cadre {

// One row that the router has decided.
struct ReferenceRow {
  int32_t sequence = 0;  // of the call, or kPadding
  int32_t position = 0;
  std::vector<int32_t> ids;    // at most K
  std::vector<float> weights;  // as many
  std::vector<float> logits;   // [E]
  std::vector<float> scores;   // [E] s of RouteTopK
};

struct ReferenceAssignment {
  AssignmentState state = AssignmentState::kProcessed;
  int32_t origin = 0;   // the expert that the router chose
  int32_t expert = 0;   // where it goes; the origin when it is lost
  double weight = 0.0;  // with which it is added; 0 when it is lost
};

// Remembers the places that were taken in all earlier calls.
class ReferenceCapacity {
 public:
  ReferenceCapacity(RouterOptions options, std::vector<float> bias) : options_(options), bias_(std::move(bias)) {}

  // What becomes of each row's assignments; rows of padding have none.
  std::vector<std::vector<ReferenceAssignment>> Place(std::span<const ReferenceRow> rows,
                                                      std::span<const SequenceCapacity> sequences);

 private:
  using Places = std::map<int32_t, int64_t>;  // by expert

  // Experts that may be chosen, the best first.
  std::vector<int32_t> Ranking(const ReferenceRow& row) const;
  double WeightBeside(const ReferenceRow& row, int32_t expert) const;
  void Reroute(const ReferenceRow& row, std::vector<ReferenceAssignment>* assignments, size_t j, int32_t limit,
               Places* places) const;

  RouterOptions options_;
  std::vector<float> bias_;                               // [E] or empty
  std::map<std::pair<int32_t, int32_t>, Places> groups_;  // by slot and number of the group; begun again, it is empty
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_REFERENCE_CAPACITY_H_
