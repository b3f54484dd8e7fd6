// How experts are limited: what Ops::LimitCapacity is told of each sequence, and what it says of each assignment.
// Values, which rooms that know no tensors may name, too.
#ifndef CADRE_KERNELS_CAPACITY_H_
#define CADRE_KERNELS_CAPACITY_H_

#include <cstdint>

namespace cadre {

// Whose rows share the places of an expert.
enum class CapacityScope : int32_t {
  kOff,      // an expert takes every row
  kRequest,  // those of one group of consecutive positions of one sequence, in order of position
  kBatch,    // those of one call that are limited so, in order of falling weight
};
// What becomes of an assignment whose expert has no place left.
enum class Overflow : int32_t {
  kDrop,      // it is lost, and its weight with it
  kReweight,  // it is lost, and the row's other weights are scaled up to the sum they had together with it
  kReroute,   // the best expert by c (see RouteTopK) that the row does not have and that has a place takes it
};
// What became of an assignment.
enum class AssignmentState : int32_t { kProcessed, kRerouted, kReweighted, kDropped };
inline constexpr int64_t kNumAssignmentStates = 4;

// How the assignments of one sequence of a step are limited.
struct SequenceCapacity {
  CapacityScope scope = CapacityScope::kOff;
  Overflow overflow = Overflow::kDrop;
  int32_t places = 0;  // of each expert, for each group or call
  int32_t group = 0;   // kRequest: positions in a group, at least 1
  int32_t slot = 0;    // kRequest: where the sequence's places are counted; no other sequence has it
};
inline constexpr int64_t kSequenceCapacityWords = sizeof(SequenceCapacity) / sizeof(int32_t);

}  // namespace cadre

#endif  // CADRE_KERNELS_CAPACITY_H_
