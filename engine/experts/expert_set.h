// A set of experts, a bit each.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_SET_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_SET_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/experts/expert_id.h"

namespace cadre {

// REQUIRES of all calls: ids in [0, num_experts).
class ExpertSet {
 public:
  explicit ExpertSet(int64_t num_experts) : words_(static_cast<size_t>((num_experts + 63) / 64)) {}

  void Insert(ExpertId expert) { words_[Word(expert)] |= Bit(expert); }
  void Erase(ExpertId expert) { words_[Word(expert)] &= ~Bit(expert); }
  void Clear() { std::fill(words_.begin(), words_.end(), 0); }
  bool Contains(ExpertId expert) const { return (words_[Word(expert)] & Bit(expert)) != 0; }

  // Ids rise.
  void AppendTo(std::vector<ExpertId>* experts) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t word = words_[i]; word != 0; word &= word - 1) {
        experts->push_back(static_cast<ExpertId>(i * 64) + std::countr_zero(word));
      }
    }
  }

 private:
  static size_t Word(ExpertId expert) { return static_cast<size_t>(expert) / 64; }
  static uint64_t Bit(ExpertId expert) { return uint64_t{1} << (static_cast<size_t>(expert) % 64); }

  std::vector<uint64_t> words_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_SET_H_
