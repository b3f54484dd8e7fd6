#include "engine/text/decode_steps.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/byte_alphabet.h"
#include "engine/text/pattern.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// A flow that wants each token in one piece.
class WholeTokenFlow : public DecodeFlow {
 public:
  explicit WholeTokenFlow(DecodeFlow* next) : next_(next) {}

  void Append(std::string_view fragment, bool ends_token) override {
    if (!ends_token) {
      token_ += fragment;
    } else if (token_.empty()) {
      AppendToken(fragment);
    } else {
      token_ += fragment;
      AppendToken(std::exchange(token_, {}));
    }
  }

 protected:
  virtual void AppendToken(std::string_view token) = 0;
  DecodeFlow* next() { return next_; }

 private:
  DecodeFlow* const next_;
  std::string token_;
};

class ByteLevelFlow : public WholeTokenFlow {
 public:
  using WholeTokenFlow::WholeTokenFlow;

  void Finish() override {
    std::string text;
    AppendValidUtf8(bytes_, &text);
    next()->Append(text, /*ends_token=*/true);
    next()->Finish();
  }

 protected:
  void AppendToken(std::string_view token) override {
    AppendBytesOfAlphabet(token, &bytes_);
    const std::size_t decided = bytes_.size() - IncompleteSuffixSize(bytes_);
    std::string text;
    AppendValidUtf8(std::string_view(bytes_).substr(0, decided), &text);
    bytes_.erase(0, decided);
    if (!text.empty()) next()->Append(text, /*ends_token=*/false);
  }

 private:
  std::string bytes_;  // the beginning of a character, at most three bytes between tokens
};

// The byte that a token like "<0x0A>" stands for. The two digits are read as the reference reads them, which takes
// "+A".
std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  std::string_view digits = token.substr(3, 2);
  if (digits[0] == '+') digits.remove_prefix(1);
  std::uint8_t byte = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return static_cast<char>(byte);
}

class ByteFallbackFlow : public WholeTokenFlow {
 public:
  using WholeTokenFlow::WholeTokenFlow;

  void Finish() override {
    EndRun();
    next()->Finish();
  }

 protected:
  void AppendToken(std::string_view token) override {
    if (const std::optional<char> byte = FallbackByte(token); byte.has_value()) {
      run_ += *byte;
      return;
    }
    EndRun();
    next()->Append(token, /*ends_token=*/true);
  }

 private:
  void EndRun() {
    if (run_.empty()) return;
    if (IsValidUtf8(run_)) {
      next()->Append(run_, /*ends_token=*/true);
    } else {
      for (std::size_t i = 0; i < run_.size(); ++i) next()->Append(kReplacementCharacter, /*ends_token=*/true);
    }
    run_.clear();
  }

  std::string run_;
};

class FuseFlow : public DecodeFlow {
 public:
  explicit FuseFlow(DecodeFlow* next) : next_(next) {}
  void Append(std::string_view fragment, bool /*ends_token*/) override {
    next_->Append(fragment, /*ends_token=*/false);
  }
  void Finish() override {
    next_->Append("", /*ends_token=*/true);
    next_->Finish();
  }

 private:
  DecodeFlow* const next_;
};

class ReplaceFlow : public WholeTokenFlow {
 public:
  ReplaceFlow(const Regex* pattern, std::string_view content, DecodeFlow* next)
      : WholeTokenFlow(next), pattern_(pattern), content_(content) {}
  void Finish() override { next()->Finish(); }

 protected:
  void AppendToken(std::string_view token) override {
    const absl::StatusOr<std::vector<TextSpan>> matches =
        token.empty() ? std::vector<TextSpan>() : pattern_->FindAll(token);
    if (!matches.ok() || matches->empty()) {
      next()->Append(token, /*ends_token=*/true);
    } else {
      next()->Append(ReplaceMatches(token, *matches, content_), /*ends_token=*/true);
    }
  }

 private:
  const Regex* const pattern_;
  const std::string_view content_;
};

class StripFlow : public DecodeFlow {
 public:
  StripFlow(std::string_view content, std::size_t start, std::size_t stop, DecodeFlow* next)
      : next_(next), content_(content), start_(start), stop_(stop), num_to_strip_(start) {}

  void Append(std::string_view fragment, bool ends_token) override {
    while (num_to_strip_ > 0 && fragment.starts_with(content_)) {
      fragment.remove_prefix(content_.size());
      --num_to_strip_;
    }
    if (!fragment.empty()) {
      num_to_strip_ = 0;
      PassOn(fragment);
    }
    if (ends_token) {
      next_->Append("", /*ends_token=*/true);
      num_to_strip_ = start_;
      num_held_ = 0;
    }
  }
  void Finish() override { next_->Finish(); }

 private:
  // Passes `fragment` on, but keeps back the last `stop_` of the contents that the token ends in so far.
  void PassOn(std::string_view fragment) {
    std::size_t num_trailing = 0;
    std::string_view body = fragment;
    while (num_trailing < stop_ && body.ends_with(content_)) {
      body.remove_suffix(content_.size());
      ++num_trailing;
    }
    std::size_t num_released = num_held_;
    if (body.empty()) num_released -= std::min(num_held_, stop_ - num_trailing);
    for (std::size_t i = 0; i < num_released; ++i) next_->Append(content_, /*ends_token=*/false);
    if (!body.empty()) next_->Append(body, /*ends_token=*/false);
    num_held_ += num_trailing - num_released;
  }

  DecodeFlow* const next_;
  const std::string_view content_;
  const std::size_t start_;
  const std::size_t stop_;
  std::size_t num_to_strip_;  // how many contents may still go at the start of this token
  std::size_t num_held_ = 0;  // how many are held at the end of this token
};

class MetaspaceFlow : public DecodeFlow {
 public:
  MetaspaceFlow(std::string_view replacement, bool strips_first, DecodeFlow* next)
      : next_(next), replacement_(replacement), strips_(strips_first) {}

  void Append(std::string_view fragment, bool ends_token) override {
    std::string text;
    while (!fragment.empty()) {
      const std::size_t found = std::min(fragment.find(replacement_), fragment.size());
      text += fragment.substr(0, found);
      fragment.remove_prefix(found);
      if (fragment.empty()) break;
      if (!strips_) text += ' ';
      fragment.remove_prefix(replacement_.size());
    }
    next_->Append(text, ends_token);
    if (ends_token) strips_ = false;
  }
  void Finish() override { next_->Finish(); }

 private:
  DecodeFlow* const next_;
  const std::string_view replacement_;
  bool strips_;  // in the first token only
};

class SpaceJoinFlow : public DecodeFlow {
 public:
  explicit SpaceJoinFlow(DecodeFlow* next) : next_(next) {}
  void Append(std::string_view fragment, bool ends_token) override {
    if (std::exchange(is_between_, false)) next_->Append(" ", /*ends_token=*/false);
    next_->Append(fragment, ends_token);
    is_between_ = ends_token;
  }
  void Finish() override { next_->Finish(); }

 private:
  DecodeFlow* const next_;
  bool is_between_ = false;  // a token has ended, and the next has not begun
};

// A step whose flow needs nothing but `next`.
template <typename Flow>
class PlainStep : public DecoderStep {
 public:
  std::unique_ptr<DecodeFlow> NewFlow(DecodeFlow* next) const override { return std::make_unique<Flow>(next); }
};

class ByteLevelStep : public PlainStep<ByteLevelFlow> {
 public:
  bool Spell(TokenSpelling* spelling) const override {
    if (spelling->is_fused || spelling->has_bytes) return false;
    for (std::string* text : {&spelling->first, &spelling->later}) {
      std::string bytes;
      AppendBytesOfAlphabet(*text, &bytes);
      *text = std::move(bytes);
    }
    spelling->is_fused = true;
    return true;
  }
};

class ByteFallbackStep : public PlainStep<ByteFallbackFlow> {
 public:
  bool Spell(TokenSpelling* spelling) const override {
    if (spelling->is_fused) return false;
    for (std::string* text : {&spelling->first, &spelling->later}) {
      if (const std::optional<char> byte = FallbackByte(*text); byte.has_value()) *text = std::string(1, *byte);
    }
    spelling->has_bytes = true;
    return true;
  }
};

class FuseStep : public PlainStep<FuseFlow> {
 public:
  bool Spell(TokenSpelling* spelling) const override {
    spelling->is_fused = true;
    return true;
  }
};

class SpaceJoinStep : public PlainStep<SpaceJoinFlow> {
 public:
  // Whether a space comes behind a token depends on the next.
  bool Spell(TokenSpelling* /*spelling*/) const override { return false; }
};

class ReplaceStep : public DecoderStep {
 public:
  ReplaceStep(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::unique_ptr<DecodeFlow> NewFlow(DecodeFlow* next) const override {
    return std::make_unique<ReplaceFlow>(&pattern_, content_, next);
  }
  bool Spell(TokenSpelling* spelling) const override {
    if (spelling->is_fused || spelling->has_bytes) return false;
    for (std::string* text : {&spelling->first, &spelling->later}) {
      const absl::StatusOr<std::vector<TextSpan>> matches =
          text->empty() ? std::vector<TextSpan>() : pattern_.FindAll(*text);
      if (matches.ok() && !matches->empty()) *text = ReplaceMatches(*text, *matches, content_);
    }
    return true;
  }

 private:
  const Regex pattern_;
  const std::string content_;
};

class StripStep : public DecoderStep {
 public:
  StripStep(std::string content, std::size_t start, std::size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  std::unique_ptr<DecodeFlow> NewFlow(DecodeFlow* next) const override {
    return std::make_unique<StripFlow>(content_, start_, stop_, next);
  }
  // Of the fused text only the first token can lose one byte; more, or anything at the end, depends on its neighbors.
  bool Spell(TokenSpelling* spelling) const override {
    if (!spelling->is_fused || start_ > 1 || stop_ > 0 || content_.size() != 1) return false;
    if (start_ == 1 && spelling->first.starts_with(content_)) spelling->first.erase(0, 1);
    return true;
  }

 private:
  const std::string content_;
  const std::size_t start_;
  const std::size_t stop_;
};

class MetaspaceStep : public DecoderStep {
 public:
  explicit MetaspaceStep(MetaspaceOptions options) : options_(std::move(options)) {}
  std::unique_ptr<DecodeFlow> NewFlow(DecodeFlow* next) const override {
    return std::make_unique<MetaspaceFlow>(options_.replacement, options_.prepend_scheme != PrependScheme::kNever,
                                           next);
  }
  bool Spell(TokenSpelling* spelling) const override {
    if (spelling->is_fused || spelling->has_bytes) return false;
    spelling->first = Replaced(spelling->first, options_.prepend_scheme != PrependScheme::kNever ? "" : " ");
    spelling->later = Replaced(spelling->later, " ");
    return true;
  }

 private:
  std::string Replaced(std::string_view token, std::string_view space) const {
    std::string text;
    while (!token.empty()) {
      const std::size_t found = std::min(token.find(options_.replacement), token.size());
      text += token.substr(0, found);
      token.remove_prefix(found);
      if (token.empty()) break;
      text += space;
      token.remove_prefix(options_.replacement.size());
    }
    return text;
  }

  const MetaspaceOptions options_;
};

}  // namespace

std::unique_ptr<const DecoderStep> NewByteLevelDecoder() { return std::make_unique<ByteLevelStep>(); }

std::unique_ptr<const DecoderStep> NewByteFallbackDecoder() { return std::make_unique<ByteFallbackStep>(); }

std::unique_ptr<const DecoderStep> NewFuseDecoder() { return std::make_unique<FuseStep>(); }

std::unique_ptr<const DecoderStep> NewReplaceDecoder(Regex pattern, std::string content) {
  return std::make_unique<ReplaceStep>(std::move(pattern), std::move(content));
}

std::unique_ptr<const DecoderStep> NewStripDecoder(std::string content, std::size_t start, std::size_t stop) {
  return std::make_unique<StripStep>(std::move(content), start, stop);
}

std::unique_ptr<const DecoderStep> NewMetaspaceDecoder(const MetaspaceOptions& options) {
  return std::make_unique<MetaspaceStep>(options);
}

std::unique_ptr<const DecoderStep> NewSpaceJoinDecoder() { return std::make_unique<SpaceJoinStep>(); }

}  // namespace cadre
