// A formal language with a rule instead of a compiler.
#ifndef CADRE_TESTS_SUPPORT_FAKE_CONSTRAINT_H_
#define CADRE_TESTS_SUPPORT_FAKE_CONSTRAINT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/check.h"
#include "engine/sample/token_mask.h"
#include "engine/structured/token_constraint.h"

namespace cadre {

// Which tokens may follow `output`; none: the output is complete.
using NextTokens = std::function<std::vector<int32_t>(const std::vector<int32_t>& output)>;

class FakeConstraint final : public TokenConstraint {
 public:
  FakeConstraint(int32_t vocab_size, NextTokens next) : vocab_size_(vocab_size), next_(std::move(next)) {}

  std::unique_ptr<ConstraintState> Start() const override { return std::make_unique<State>(vocab_size_, next_); }

 private:
  class State final : public ConstraintState {
   public:
    State(int32_t vocab_size, NextTokens next) : vocab_size_(vocab_size), next_(std::move(next)) { Update(); }

    absl::StatusOr<std::span<const uint64_t>> AllowedTokens() override { return std::span<const uint64_t>(mask_); }
    void Advance(int32_t token_id) override {
      CADRE_CHECK(HasToken(mask_, token_id));
      output_.push_back(token_id);
      Update();
    }
    bool done() const override { return is_done_; }

   private:
    void Update() {
      const std::vector<int32_t> ids = next_(output_);
      is_done_ = ids.empty();
      mask_ = MakeTokenMask(ids, static_cast<size_t>(vocab_size_));
    }

    int32_t vocab_size_;
    NextTokens next_;
    std::vector<int32_t> output_;
    std::vector<uint64_t> mask_;
    bool is_done_ = false;
  };

  int32_t vocab_size_;
  NextTokens next_;
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_FAKE_CONSTRAINT_H_
