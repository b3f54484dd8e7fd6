#include "tests/support/capacity_walk.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/request/capacity_policy.h"
#include "kernels/ops.h"
#include "tests/support/reference_capacity.h"

namespace cadre {
namespace {

using Draw = std::function<uint32_t(uint32_t)>;

template <typename T, size_t N>
T Pick(const Draw& draw, const std::array<T, N>& values) {
  return values[draw(static_cast<uint32_t>(N))];
}

// A tensor of a call; the host writes and reads it.
struct Owned {
  DeviceBuffer buffer;
  View view;
};

class World {
 public:
  World(Device& device, const CapacityWalkLimits& limits, const Draw& draw)
      : device_(device), limits_(limits), draw_(draw) {
    constexpr std::array<int64_t, 8> kExperts = {1, 2, 3, 6, 8, 16, 60, 128};
    num_experts_ = std::min<int64_t>(Pick(draw, kExperts), limits.max_experts);
    PickRouter();
    PickExtent();
    if (draw(3) == 0) {
      for (int64_t e = 0; e < num_experts_; ++e) bias_.push_back((static_cast<float>(draw(33)) - 16.0f) / 8.0f);
    }
    num_slots_ = 1 + draw(6);
    for (int64_t i = 0; i < num_slots_; ++i) runs_.push_back(NewRun());
    reference_ = std::make_unique<ReferenceCapacity>(options_, bias_);
  }

  absl::StatusOr<CapacityCounts> Run() {
    taken_ = Make(DType::kI32, {num_slots_, num_experts_});
    std::memset(taken_.view.raw(), 0x7F, taken_.view.size_bytes());  // whatever was there before
    const uint32_t num_calls = 1 + draw_(static_cast<uint32_t>(limits_.max_calls));
    for (uint32_t i = 0; i < num_calls; ++i) CADRE_RETURN_IF_ERROR(Call());
    return counts_;
  }

 private:
  // A sequence, or several that have the same slot one after the other.
  struct Running {
    SequenceCapacity capacity;
    double factor = 0.0;
    int32_t min_places = 0;
    int32_t position = 0;
    uint32_t hot = 0;  // the expert that it likes
  };

  void PickRouter() {
    options_.top_k = 1 + draw_(static_cast<uint32_t>(std::min<int64_t>(num_experts_, limits_.max_top_k)));
    options_.score = Pick(draw_, std::array{RouterScore::kSoftmax, RouterScore::kSigmoid});
    options_.norm =
        Pick(draw_, std::array{WeightNorm::kNone, WeightNorm::kSum, WeightNorm::kSoftmax, WeightNorm::kUniform});
    options_.scaling_factor = Pick(draw_, std::array{1.0f, 2.5f});
    if (num_experts_ % 4 == 0 && options_.top_k <= num_experts_ / 2 && draw_(3) == 0) {
      options_.num_groups = 4;
      options_.num_kept_groups = 2;
      options_.group_score = Pick(draw_, std::array{GroupScore::kMax, GroupScore::kTop2Sum});
    }
  }

  // How many experts a row chooses, and how far its overflow goes.
  void PickExtent() {
    if (draw_(3) == 0) {
      options_.top_p = Pick(draw_, std::array{0.1f, 0.5f, 0.9f, 1.0f});
      options_.min_k = 1 + draw_(static_cast<uint32_t>(options_.top_k));
    }
    if (draw_(3) == 0) options_.spill_over = 1 + draw_(3);
  }

  Running NewRun() {
    Running run;
    run.capacity.scope = Pick(draw_, std::array{CapacityScope::kOff, CapacityScope::kRequest, CapacityScope::kRequest,
                                                CapacityScope::kBatch});
    run.capacity.overflow = Pick(draw_, std::array{Overflow::kDrop, Overflow::kReweight, Overflow::kReroute});
    run.factor =
        Pick(draw_, std::array{0.0, 1e-3, 0.25, 0.5, 1.0, 1.25, 2.0, 1000.0, std::numeric_limits<double>::infinity()});
    run.min_places = Pick(draw_, std::array{0, 1, 4});
    run.capacity.group = Pick(draw_, std::array{1, 2, 7, 16, 64, 256});
    run.hot = draw_(static_cast<uint32_t>(num_experts_));
    return run;
  }

  Owned Make(DType dtype, Shape shape) {
    absl::StatusOr<DeviceBuffer> buffer =
        device_.Allocate(std::max<size_t>(1, static_cast<size_t>(shape.num_elements())) * DTypeBytes(dtype));
    CADRE_CHECK(buffer.ok());
    Owned owned{.buffer = *std::move(buffer), .view = {}};
    owned.view = owned.buffer.view(dtype, shape);
    std::memset(owned.view.raw(), 0, owned.view.size_bytes());
    return owned;
  }
  template <typename T>
  Owned Of(DType dtype, Shape shape, const std::vector<T>& values) {
    Owned owned = Make(dtype, shape);
    std::copy(values.begin(), values.end(), owned.view.data<T>());
    return owned;
  }

  // The next rows of the sequences, some of padding behind them.
  void PickRows() {
    sequences_.clear();
    row_sequence_.clear();
    positions_.clear();
    std::vector<Running*> members;
    auto budget = static_cast<uint32_t>(limits_.max_rows);
    for (int64_t slot = 0; slot < num_slots_; ++slot) {
      Running& run = runs_[static_cast<size_t>(slot)];
      if (draw_(4) == 0 || budget == 0) continue;
      if (draw_(8) == 0) run = NewRun();
      // Back to a place where a group begins, as after a preemption.
      if (draw_(8) == 0) {
        run.position = static_cast<int32_t>(draw_(3)) * run.capacity.group;
      }
      run.capacity.slot = static_cast<int32_t>(slot);
      const uint32_t count = std::min(budget, draw_(2) == 0 ? 1 : 1 + draw_(static_cast<uint32_t>(limits_.max_rows)));
      budget -= count;
      for (uint32_t i = 0; i < count; ++i) {
        row_sequence_.push_back(static_cast<int32_t>(members.size()));
        positions_.push_back(run.position++);
      }
      members.push_back(&run);
    }
    int64_t num_batch_rows = 0;
    for (const int32_t s : row_sequence_) {
      num_batch_rows += members[static_cast<size_t>(s)]->capacity.scope == CapacityScope::kBatch ? 1 : 0;
    }
    for (Running* run : members) {
      const int64_t group = run->capacity.scope == CapacityScope::kBatch ? num_batch_rows : run->capacity.group;
      run->capacity.places = CapacityPlaces(run->factor, run->min_places, group, options_.top_k, num_experts_);
      sequences_.push_back(run->capacity);
      hot_.resize(sequences_.size());
      hot_.back() = run->hot;
    }
    for (uint32_t i = draw_(3); i > 0 && budget > 0; --i, --budget) {
      row_sequence_.push_back(kPadding);
      positions_.push_back(0);
    }
  }

  std::vector<float> PickLogits() {
    std::vector<float> logits;
    for (const int32_t s : row_sequence_) {
      for (int64_t e = 0; e < num_experts_; ++e) {
        float logit = (static_cast<float>(draw_(64)) - 32.0f) / 8.0f;
        if (s != kPadding && static_cast<uint32_t>(e) == hot_[static_cast<size_t>(s)]) logit += 4.0f;
        logits.push_back(logit);
      }
    }
    return logits;
  }

  absl::Status Call() {
    PickRows();
    if (row_sequence_.empty()) return absl::OkStatus();
    const auto t = static_cast<int64_t>(row_sequence_.size());
    const int64_t k = options_.top_k;
    const auto s = static_cast<int64_t>(sequences_.size());
    const Owned logits = Of(DType::kF32, {t, num_experts_}, PickLogits());
    const Owned bias = Of(DType::kF32, {num_experts_}, bias_.empty() ? std::vector<float>(num_experts_) : bias_);
    const ConstView bias_view = bias_.empty() ? ConstView() : ConstView(bias.view);
    const Owned row_sequence = Of(DType::kI32, {t}, row_sequence_);
    const Owned positions = Of(DType::kI32, {t}, positions_);
    const Owned sequences = Make(DType::kI32, {s, kSequenceCapacityWords});
    if (s > 0) std::memcpy(sequences.view.raw(), sequences_.data(), sequences.view.size_bytes());
    const Owned ids = Make(DType::kI32, {t, k});
    const Owned weights = Make(DType::kF32, {t, k});
    const Owned probabilities = Make(DType::kF32, {t, num_experts_});
    const Owned log_sum_exp = Make(DType::kF32, {t});
    device_.ops().RouteTopK(ids.view, weights.view, probabilities.view, log_sum_exp.view, logits.view, bias_view,
                            row_sequence.view, options_);
    CADRE_RETURN_IF_ERROR(device_.Synchronize());
    const std::vector<ReferenceRow> rows = MakeRows(ids.view, weights.view, probabilities.view, logits.view);
    const auto expected = reference_->Place(rows, sequences_);
    num_routed_ = 0;
    for (const ReferenceRow& row : rows) num_routed_ += static_cast<int64_t>(row.ids.size());

    const Owned states = Make(DType::kI32, {t, k});
    const Owned outputs = Make(DType::kF32, {t * k, 3});
    std::memset(outputs.view.raw(), 0xFF, outputs.view.size_bytes());
    const Owned tally_states = Make(DType::kI64, {kNumAssignmentStates, num_experts_});
    const Owned lost = Make(DType::kF64, {num_experts_});
    const Owned sequence_states = Make(DType::kI64, {s, kNumAssignmentStates});
    const Owned sequence_lost = Make(DType::kF64, {s});
    const LimitedRows limited = {ids.view, weights.view, states.view, outputs.view};
    const CapacityTally tally = {tally_states.view, lost.view, sequence_states.view, sequence_lost.view};
    device_.ops().LimitCapacity(limited, taken_.view, tally, {sequences.view, row_sequence.view, positions.view},
                                logits.view, probabilities.view, bias_view, options_);
    CADRE_RETURN_IF_ERROR(device_.Synchronize());
    CADRE_RETURN_IF_ERROR(CompareRows(rows, expected, limited));
    return CompareTally(rows, expected, tally);
  }

  std::vector<ReferenceRow> MakeRows(View ids, View weights, View probabilities, View logits) const {
    std::vector<ReferenceRow> rows(row_sequence_.size());
    for (size_t t = 0; t < rows.size(); ++t) {
      const auto choice = static_cast<int64_t>(t) * options_.top_k;
      const auto expert = static_cast<int64_t>(t) * num_experts_;
      ReferenceRow& row = rows[t];
      row.sequence = row_sequence_[t];
      row.position = positions_[t];
      for (int64_t a = choice; a < choice + options_.top_k && ids.data<int32_t>()[a] != kPadding; ++a) {
        row.ids.push_back(ids.data<int32_t>()[a]);
        row.weights.push_back(weights.data<float>()[a]);
      }
      row.logits.assign(logits.data<float>() + expert, logits.data<float>() + expert + num_experts_);
      row.scores.assign(probabilities.data<float>() + expert, probabilities.data<float>() + expert + num_experts_);
      if (options_.score != RouterScore::kSigmoid) continue;
      for (size_t e = 0; e < row.scores.size(); ++e) row.scores[e] = 1.0f / (1.0f + std::exp(-row.logits[e]));
    }
    return rows;
  }

  absl::Status CompareRows(const std::vector<ReferenceRow>& rows,
                           const std::vector<std::vector<ReferenceAssignment>>& expected,
                           const LimitedRows& limited) const {
    const int64_t d = limited.expert_outputs.dim(1);
    for (size_t t = 0; t < rows.size(); ++t) {
      for (int64_t j = 0; j < options_.top_k; ++j) {
        const int64_t a = static_cast<int64_t>(t) * options_.top_k + j;
        const int32_t state = limited.states.data<int32_t>()[a];
        const int32_t id = limited.expert_ids.data<int32_t>()[a];
        const auto weight = static_cast<double>(limited.weights.data<float>()[a]);
        const std::string where = absl::StrCat("row ", t, " choice ", j, " of ", Describe(), ": ");
        if (static_cast<size_t>(j) >= expected[t].size()) {  // nothing was chosen
          if (state != kPadding || id != kPadding) return absl::InternalError(where + "padding was touched");
          continue;
        }
        const ReferenceAssignment& want = expected[t][static_cast<size_t>(j)];
        const bool is_lost = want.state == AssignmentState::kDropped || want.state == AssignmentState::kReweighted;
        const int32_t want_id = is_lost ? kPadding : want.expert;
        if (state != static_cast<int32_t>(want.state) || id != want_id) {
          return absl::InternalError(absl::StrCat(where, "state ", state, " expert ", id, ", want ",
                                                  static_cast<int32_t>(want.state), " ", want_id));
        }
        if (!(std::abs(weight - want.weight) <= 1e-5 * std::abs(want.weight))) {
          return absl::InternalError(absl::StrCat(where, "weight ", weight, ", want ", want.weight));
        }
        // Zeros where it is lost, and untouched where it is not.
        for (int64_t i = a * d; i < (a + 1) * d; ++i) {
          const float y = limited.expert_outputs.data<float>()[i];
          if (is_lost ? y != 0.0f : !std::isnan(y)) return absl::InternalError(absl::StrCat(where, "output ", y));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status CompareTally(const std::vector<ReferenceRow>& rows,
                            const std::vector<std::vector<ReferenceAssignment>>& expected, const CapacityTally& tally) {
    const auto num_sequences = static_cast<int64_t>(sequences_.size());
    std::vector<int64_t> states(static_cast<size_t>(kNumAssignmentStates * num_experts_));
    std::vector<int64_t> sequence_states(static_cast<size_t>(num_sequences * kNumAssignmentStates));
    std::vector<double> lost(static_cast<size_t>(num_experts_));
    std::vector<double> sequence_lost(static_cast<size_t>(num_sequences));
    for (size_t t = 0; t < rows.size(); ++t) {
      for (size_t j = 0; j < expected[t].size(); ++j) {
        const ReferenceAssignment& one = expected[t][j];
        const auto state = static_cast<int64_t>(one.state);
        const bool is_lost = one.state == AssignmentState::kDropped || one.state == AssignmentState::kReweighted;
        ++states[static_cast<size_t>(state * num_experts_ + (is_lost ? one.origin : one.expert))];
        ++sequence_states[static_cast<size_t>(rows[t].sequence * kNumAssignmentStates + state)];
        const auto weight = static_cast<double>(rows[t].weights[j]);
        if (!is_lost) continue;
        lost[static_cast<size_t>(one.origin)] += weight;
        sequence_lost[static_cast<size_t>(rows[t].sequence)] += weight;
      }
    }
    int64_t sum = 0;
    for (int64_t i = 0; i < kNumAssignmentStates * num_experts_; ++i) {
      const int64_t count = tally.states.data<int64_t>()[i];
      sum += count;
      counts_[static_cast<size_t>(i / num_experts_)] += count;
    }
    if (sum != num_routed_) return absl::InternalError(absl::StrCat("sum of states ", sum, " of ", num_routed_));
    CADRE_RETURN_IF_ERROR(CompareCounts("states", tally.states, states));
    CADRE_RETURN_IF_ERROR(CompareCounts("states of sequences", tally.sequence_states, sequence_states));
    CADRE_RETURN_IF_ERROR(CompareSums("lost weight", tally.lost_gate_weight, lost));
    return CompareSums("lost weight of sequences", tally.sequence_lost_gate_weight, sequence_lost);
  }

  absl::Status CompareCounts(const char* what, View got, const std::vector<int64_t>& want) const {
    if (std::equal(want.begin(), want.end(), got.data<int64_t>())) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(what, " differ in ", Describe()));
  }
  absl::Status CompareSums(const char* what, View got, const std::vector<double>& want) const {
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::abs(got.data<double>()[i] - want[i]) <= 1e-9 * (1.0 + std::abs(want[i]))) continue;
      return absl::InternalError(absl::StrCat(what, " of ", i, " is ", got.data<double>()[i], ", want ", want[i]));
    }
    return absl::OkStatus();
  }

  std::string Describe() const {
    std::string text = absl::StrCat("E ", num_experts_, " K ", options_.top_k, " groups ", options_.num_groups,
                                    " top_p ", options_.top_p, " spill_over ", options_.spill_over);
    for (const SequenceCapacity& one : sequences_) {
      absl::StrAppend(&text, ", scope ", static_cast<int32_t>(one.scope), " overflow ",
                      static_cast<int32_t>(one.overflow), " places ", one.places, " group ", one.group);
    }
    return text;
  }

  Device& device_;
  const CapacityWalkLimits limits_;
  const Draw& draw_;
  int64_t num_experts_ = 0;
  int64_t num_slots_ = 0;
  RouterOptions options_;
  std::vector<float> bias_;
  std::vector<Running> runs_;  // by slot
  std::unique_ptr<ReferenceCapacity> reference_;
  Owned taken_;
  CapacityCounts counts_ = {};
  // Of the call.
  std::vector<SequenceCapacity> sequences_;
  std::vector<uint32_t> hot_;  // [S]
  std::vector<int32_t> row_sequence_;
  std::vector<int32_t> positions_;
  int64_t num_routed_ = 0;
};

}  // namespace

absl::StatusOr<CapacityCounts> WalkCapacity(Device& device, const CapacityWalkLimits& limits, const Draw& draw) {
  return World(device, limits, draw).Run();
}

}  // namespace cadre
