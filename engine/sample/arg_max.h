// The largest logit of a row, and whether the row has one.
#ifndef CADRE_ENGINE_SAMPLE_ARG_MAX_H_
#define CADRE_ENGINE_SAMPLE_ARG_MAX_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cadre {

// The lowest id among the largest of `logits`, [V]. INTERNAL with reason "nan" when any logit is NaN, or when all are
// -inf.
absl::StatusOr<int32_t> ArgMax(std::span<const float> logits);

// Those two errors.
absl::Status NotANumberError();
absl::Status NoTokenError(size_t vocab_size);

}  // namespace cadre

#endif  // CADRE_ENGINE_SAMPLE_ARG_MAX_H_
