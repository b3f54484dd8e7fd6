#include "engine/sample/token_mask.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "engine/base/check.h"

namespace cadre {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kWordBits = 64;

}  // namespace

std::vector<uint64_t> MakeTokenMask(std::span<const int32_t> ids, size_t vocab_size) {
  std::vector<uint64_t> mask(TokenMaskWords(vocab_size), 0);
  for (const int32_t id : ids) {
    CADRE_CHECK_GE(id, 0);
    CADRE_CHECK_LT(static_cast<size_t>(id), vocab_size);
    mask[static_cast<size_t>(id) / kWordBits] |= uint64_t{1} << (static_cast<size_t>(id) % kWordBits);
  }
  return mask;
}

bool HasOtherThan(TokenMask mask, std::span<const int32_t> ids) {
  const auto num_hidden = std::count_if(ids.begin(), ids.end(), [mask](int32_t id) { return HasToken(mask, id); });
  int64_t num_tokens = 0;
  for (const uint64_t word : mask) {
    num_tokens += std::popcount(word);
    if (num_tokens > num_hidden) return true;
  }
  return false;
}

void KeepOnly(TokenMask mask, std::span<float> logits) {
  CADRE_CHECK_EQ(mask.size(), TokenMaskWords(logits.size()));
  for (size_t i = 0; i < mask.size(); ++i) {
    const uint64_t word = mask[i];
    if (word == ~uint64_t{0}) continue;
    const std::span<float> part = logits.subspan(i * kWordBits, std::min(kWordBits, logits.size() - i * kWordBits));
    for (size_t bit = 0; bit < part.size(); ++bit) {
      const bool keeps = ((word >> bit) & 1) != 0 || part[bit] != part[bit];
      part[bit] = keeps ? part[bit] : kNever;
    }
  }
}

void Forbid(std::span<const int32_t> ids, std::span<float> logits) {
  for (const int32_t id : ids) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit == logit ? kNever : logit;
  }
}

}  // namespace cadre
