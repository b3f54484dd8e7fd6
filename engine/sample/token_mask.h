// Sets of token ids as bits, and what they do to a row of logits.
#ifndef CADRE_ENGINE_SAMPLE_TOKEN_MASK_H_
#define CADRE_ENGINE_SAMPLE_TOKEN_MASK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cadre {

// Token `id` is bit id % 64 of word id / 64; [ceil(V / 64)] words.
using TokenMask = std::span<const uint64_t>;

constexpr size_t TokenMaskWords(size_t vocab_size) { return (vocab_size + 63) / 64; }

// The mask of `ids`, each in [0, vocab_size).
std::vector<uint64_t> MakeTokenMask(std::span<const int32_t> ids, size_t vocab_size);

inline bool HasToken(TokenMask mask, int32_t id) {
  return ((mask[static_cast<size_t>(id) / 64] >> (static_cast<size_t>(id) % 64)) & 1) != 0;
}

// Whether `mask` has a token that is not among `ids`, which are distinct.
bool HasOtherThan(TokenMask mask, std::span<const int32_t> ids);

// The logits, [V], of tokens that `mask` does not have become -inf. NaN stays NaN, so that a broken row is found out.
void KeepOnly(TokenMask mask, std::span<float> logits);
// The same to the logits of `ids`.
void Forbid(std::span<const int32_t> ids, std::span<float> logits);

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_TOKEN_MASK_H_
