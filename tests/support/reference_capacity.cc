#include "tests/support/reference_capacity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

namespace cadre {
namespace {

bool IsLost(const ReferenceAssignment& assignment) {
  return assignment.state == AssignmentState::kDropped || assignment.state == AssignmentState::kReweighted;
}

// Ends a row of kReweight.
void Reweight(const ReferenceRow& row, std::vector<ReferenceAssignment>* assignments) {
  double sum = 0.0;
  double left = 0.0;
  for (size_t j = 0; j < assignments->size(); ++j) {
    sum += static_cast<double>(row.weights[j]);
    if (!IsLost((*assignments)[j])) left += static_cast<double>(row.weights[j]);
  }
  if (left <= 0.0 || sum <= 0.0) return;
  for (ReferenceAssignment& assignment : *assignments) {
    if (IsLost(assignment)) {
      assignment.state = AssignmentState::kReweighted;
    } else {
      assignment.weight *= sum / left;
    }
  }
}

}  // namespace

std::vector<int32_t> ReferenceCapacity::Ranking(const ReferenceRow& row) const {
  std::vector<float> values = row.scores;
  for (size_t e = 0; e < bias_.size(); ++e) values[e] += bias_[e];
  const auto num_experts = static_cast<int32_t>(values.size());
  const auto at = [&](int32_t e) { return values[static_cast<size_t>(e)]; };
  std::vector<int32_t> experts;
  const auto group_size = static_cast<int32_t>(num_experts / options_.num_groups);
  std::vector<std::pair<float, int32_t>> groups;  // falling score, then rising number
  for (int32_t g = 0; g < options_.num_groups; ++g) {
    std::vector<float> members(values.begin() + g * group_size, values.begin() + (g + 1) * group_size);
    std::sort(members.rbegin(), members.rend());
    const bool sums = options_.group_score == GroupScore::kTop2Sum && group_size > 1;
    groups.emplace_back(-(sums ? members[0] + members[1] : members[0]), g);
  }
  std::sort(groups.begin(), groups.end());
  groups.resize(static_cast<size_t>(options_.num_kept_groups));
  for (const auto& [score, g] : groups) {
    for (int32_t e = g * group_size; e < (g + 1) * group_size; ++e) experts.push_back(e);
  }
  std::sort(experts.begin(), experts.end());
  std::stable_sort(experts.begin(), experts.end(), [&](int32_t a, int32_t b) { return at(a) > at(b); });
  return experts;
}

double ReferenceCapacity::WeightBeside(const ReferenceRow& row, int32_t expert) const {
  std::vector<double> scores(row.scores.begin(), row.scores.end());
  if (options_.norm == WeightNorm::kSoftmax) {
    for (size_t e = 0; e < scores.size(); ++e) scores[e] = std::exp(static_cast<double>(row.logits[e]));
  }
  if (options_.norm == WeightNorm::kUniform) {
    return static_cast<double>(options_.scaling_factor) / static_cast<double>(row.ids.size());
  }
  double sum = 1.0;
  if (options_.norm != WeightNorm::kNone) {
    sum = options_.norm == WeightNorm::kSum ? static_cast<double>(options_.norm_epsilon) : 0.0;
    for (const int32_t id : row.ids) sum += scores[static_cast<size_t>(id)];
  }
  return scores[static_cast<size_t>(expert)] / sum * static_cast<double>(options_.scaling_factor);
}

void ReferenceCapacity::Reroute(const ReferenceRow& row, std::vector<ReferenceAssignment>* assignments, size_t j,
                                int32_t limit, Places* places) const {
  std::set<int32_t> had(row.ids.begin(), row.ids.end());
  for (const ReferenceAssignment& other : *assignments) had.insert(other.expert);
  int64_t rank = 0;  // among those that the router did not choose
  for (const int32_t expert : Ranking(row)) {
    if (std::find(row.ids.begin(), row.ids.end(), expert) != row.ids.end()) continue;
    if (options_.spill_over > 0 && rank++ >= options_.spill_over) return;
    if (had.contains(expert) || (*places)[expert] >= limit) continue;
    ++(*places)[expert];
    (*assignments)[j] = {.state = AssignmentState::kRerouted,
                         .origin = row.ids[j],
                         .expert = expert,
                         .weight = WeightBeside(row, expert)};
    return;
  }
}

std::vector<std::vector<ReferenceAssignment>> ReferenceCapacity::Place(std::span<const ReferenceRow> rows,
                                                                       std::span<const SequenceCapacity> sequences) {
  std::vector<std::vector<ReferenceAssignment>> result(rows.size());
  Places batch_places;
  std::vector<std::tuple<float, size_t, size_t>> batch;  // falling weight, row, j
  const auto take = [&](size_t t, size_t j, int32_t limit, Places* places) {
    ReferenceAssignment& assignment = result[t][j];
    int64_t& count = (*places)[assignment.expert];
    if (count >= limit) {
      assignment.state = AssignmentState::kDropped;
      assignment.weight = 0.0;
    } else {
      ++count;
    }
  };
  for (size_t t = 0; t < rows.size(); ++t) {
    const ReferenceRow& row = rows[t];
    if (row.sequence == kPadding) continue;
    for (size_t j = 0; j < row.ids.size(); ++j) {
      result[t].push_back({.origin = row.ids[j], .expert = row.ids[j], .weight = static_cast<double>(row.weights[j])});
    }
    const SequenceCapacity& capacity = sequences[static_cast<size_t>(row.sequence)];
    if (capacity.scope == CapacityScope::kBatch) {
      for (size_t j = 0; j < row.ids.size(); ++j) batch.emplace_back(-row.weights[j], t, j);
    }
    if (capacity.scope != CapacityScope::kRequest) continue;
    Places* const places = &groups_[{capacity.slot, row.position / capacity.group}];
    if (row.position % capacity.group == 0) places->clear();
    for (size_t j = 0; j < row.ids.size(); ++j) take(t, j, capacity.places, places);
    for (size_t j = 0; j < row.ids.size() && capacity.overflow == Overflow::kReroute; ++j) {
      if (IsLost(result[t][j])) Reroute(row, &result[t], j, capacity.places, places);
    }
  }
  std::sort(batch.begin(), batch.end());
  const auto capacity_of = [&](size_t t) { return sequences[static_cast<size_t>(rows[t].sequence)]; };
  for (const auto& [weight, t, j] : batch) take(t, j, capacity_of(t).places, &batch_places);
  for (const auto& [weight, t, j] : batch) {
    if (capacity_of(t).overflow != Overflow::kReroute || !IsLost(result[t][j])) continue;
    Reroute(rows[t], &result[t], j, capacity_of(t).places, &batch_places);
  }
  for (size_t t = 0; t < rows.size(); ++t) {
    if (!result[t].empty() && capacity_of(t).overflow == Overflow::kReweight) Reweight(rows[t], &result[t]);
  }
  return result;
}

}  // namespace cadre
