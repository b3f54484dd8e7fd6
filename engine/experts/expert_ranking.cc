#include "engine/experts/expert_ranking.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <tuple>

#include "engine/base/check.h"

namespace cadre {
namespace {

int64_t CountOf(std::span<const int64_t> assignments, ExpertId expert) {
  CADRE_CHECK_GE(expert, 0);
  CADRE_CHECK_LT(static_cast<size_t>(expert), assignments.size());
  return assignments[static_cast<size_t>(expert)];
}

// Sorts the ids [first, last) by count, falling.
void SortByCount(std::span<ExpertId> experts, std::span<const int64_t> assignments) {
  std::ranges::sort(experts, {}, [&](ExpertId expert) { return std::tuple(-CountOf(assignments, expert), expert); });
}

}  // namespace

std::vector<ExpertId> RankExperts(std::span<const int64_t> assignments, int64_t num_experts, LayerShare share) {
  CADRE_CHECK_GE(num_experts, 1);
  CADRE_CHECK_EQ(std::ssize(assignments) % num_experts, 0);
  CADRE_CHECK(std::ranges::all_of(assignments, [](int64_t count) { return count >= 0; }));
  std::vector<ExpertId> ids(assignments.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (share == LayerShare::kGlobal) {
    SortByCount(ids, assignments);
    return ids;
  }
  const auto width = static_cast<size_t>(num_experts);
  const size_t num_layers = ids.size() / width;
  for (size_t layer = 0; layer < num_layers; ++layer) {
    SortByCount(std::span(ids).subspan(layer * width, width), assignments);
  }
  std::vector<ExpertId> ranked;
  ranked.reserve(ids.size());
  for (size_t place = 0; place < width; ++place) {
    for (size_t layer = 0; layer < num_layers; ++layer) ranked.push_back(ids[layer * width + place]);
    SortByCount(std::span(ranked).last(num_layers), assignments);
  }
  return ranked;
}

std::vector<ExpertId> ChooseKept(std::span<const int64_t> assignments, int64_t num_experts, int64_t max_kept,
                                 LayerShare share) {
  CADRE_CHECK_GE(max_kept, 0);
  std::vector<ExpertId> ranked = RankExperts(assignments, num_experts, share);
  std::erase_if(ranked, [&](ExpertId expert) { return CountOf(assignments, expert) == 0; });
  if (std::ssize(ranked) > max_kept) ranked.resize(static_cast<size_t>(max_kept));
  return ranked;
}

std::vector<ExpertId> OrderWarmStart(std::span<const int64_t> assignments, int64_t num_experts, int64_t num_slots,
                                     std::span<const ExpertId> kept, LayerShare share) {
  CADRE_CHECK_GE(num_slots, 0);
  std::vector<bool> is_kept(assignments.size(), false);
  for (const ExpertId expert : kept) {
    CADRE_CHECK_GE(CountOf(assignments, expert), 0);
    CADRE_CHECK(!is_kept[static_cast<size_t>(expert)]);
    is_kept[static_cast<size_t>(expert)] = true;
  }
  std::vector<ExpertId> order = RankExperts(assignments, num_experts, share);
  std::stable_partition(order.begin(), order.end(),
                        [&](ExpertId expert) { return is_kept[static_cast<size_t>(expert)]; });
  // An expert that was never used is no better in one layer than in another; what was used goes before it.
  std::stable_partition(order.begin(), order.end(), [&](ExpertId expert) {
    return is_kept[static_cast<size_t>(expert)] || CountOf(assignments, expert) > 0;
  });
  if (std::ssize(order) > num_slots) order.resize(static_cast<size_t>(num_slots));
  return order;
}

double CountedShare(std::span<const int64_t> assignments, std::span<const ExpertId> experts) {
  const int64_t all = std::accumulate(assignments.begin(), assignments.end(), int64_t{0});
  int64_t counted = 0;
  for (const ExpertId expert : experts) counted += CountOf(assignments, expert);
  return all == 0 ? 0.0 : static_cast<double>(counted) / static_cast<double>(all);
}

}  // namespace cadre
