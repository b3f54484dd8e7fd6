#include "engine/base/failpoint.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/failpoint_spec.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"

namespace cadre::failpoint {
namespace {

class Registry {
 public:
  void Set(std::string_view name, std::vector<Term> terms) {
    const std::lock_guard lock(mutex_);
    terms_[std::string(name)] = std::move(terms);
    ++version_;
    changed_.notify_all();
  }

  void Clear() {
    const std::lock_guard lock(mutex_);
    terms_.clear();
    hits_.clear();
    random_.seed();
    ++version_;
    changed_.notify_all();
  }

  // The term that applies to this hit.
  Term Choose(std::string_view name) {
    const std::lock_guard lock(mutex_);
    ++hits_[std::string(name)];
    const auto found = terms_.find(name);
    if (found == terms_.end()) return {};
    for (Term& term : found->second) {
      if (term.count == 0) continue;
      if (std::uniform_real_distribution<double>()(random_) >= term.probability) continue;
      if (term.count.has_value()) --*term.count;
      return term;
    }
    return {};
  }

  void AwaitChange() {
    std::unique_lock lock(mutex_);
    const int64_t version = version_;
    changed_.wait(lock, [&] { return version_ != version; });
  }

  std::map<std::string, int64_t> hits() const {
    const std::lock_guard lock(mutex_);
    return hits_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<Term>, std::less<>> terms_;
  std::map<std::string, int64_t> hits_;
  std::mt19937_64 random_;
  int64_t version_ = 0;
};

absl::Status ApplyAll(Registry* registry, std::string_view specs) {
  for (const absl::string_view entry : absl::StrSplit(ToAbsl(specs), ';', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(entry, absl::MaxSplits('=', 1));
    CADRE_ASSIGN_OR_RETURN(std::vector<Term> terms, ParseSpec({parts.second.data(), parts.second.size()}));
    registry->Set({parts.first.data(), parts.first.size()}, std::move(terms));
  }
  return absl::OkStatus();
}

[[noreturn]] void Panic(std::string_view name, const std::string& text) {
  std::fprintf(stderr, "failpoint %.*s: %s\n", static_cast<int>(name.size()), name.data(), text.c_str());
  std::abort();
}

// Never destroyed: other threads may pass points while the process ends.
Registry& TheRegistry() {
  static Registry* const registry = [] {
    auto* made = new Registry;
    if (const char* specs = std::getenv("CADRE_FAILPOINTS"); specs != nullptr) {
      if (absl::Status status = ApplyAll(made, specs); !status.ok()) Panic("CADRE_FAILPOINTS", status.ToString());
    }
    return made;
  }();
  return *registry;
}

}  // namespace

absl::Status Configure(std::string_view name, std::string_view spec) {
  std::vector<Term> terms;
  if (!spec.empty()) {
    CADRE_ASSIGN_OR_RETURN(terms, ParseSpec(spec));
  }
  TheRegistry().Set(name, std::move(terms));
  return absl::OkStatus();
}

absl::Status ConfigureAll(std::string_view specs) { return ApplyAll(&TheRegistry(), specs); }

void Reset() { TheRegistry().Clear(); }

absl::Status Hit(std::string_view name) {
  const Term term = TheRegistry().Choose(name);
  const std::chrono::milliseconds duration(term.milliseconds);
  switch (term.action) {
    case Action::kOff:
      break;
    case Action::kReturn:
      return absl::InternalError(absl::StrCat("failpoint ", ToAbsl(name), ": ", term.text));
    case Action::kSleep:
      std::this_thread::sleep_for(duration);
      break;
    case Action::kDelay:
      for (const auto end = std::chrono::steady_clock::now() + duration; std::chrono::steady_clock::now() < end;) {
      }
      break;
    case Action::kYield:
      std::this_thread::yield();
      break;
    case Action::kPrint:
      std::fprintf(stderr, "failpoint %.*s: %s\n", static_cast<int>(name.size()), name.data(), term.text.c_str());
      break;
    case Action::kPanic:
      Panic(name, term.text);
    case Action::kPause:
      TheRegistry().AwaitChange();
      break;
  }
  return absl::OkStatus();
}

std::map<std::string, int64_t> Hits() { return TheRegistry().hits(); }

}  // namespace cadre::failpoint
