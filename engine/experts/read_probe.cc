#include "engine/experts/read_probe.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace cadre {
namespace {

constexpr size_t kPageBytes = 4096;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Free>;

// Every page of it is there, so that no read waits for one.
Memory TakeMemory(size_t bytes) {
  const size_t whole = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, whole)));
  if (memory != nullptr) std::memset(memory.get(), 1, whole);
  return memory;
}

// What the threads share.
class Probing {
 public:
  Probing(std::span<const ExpertId> experts, const ReadProbeOptions& options, const Clock* clock)
      : experts_(experts), clock_(clock), begin_(clock->Now()), options_(options) {}

  // The index of the next one to read, or their number. The first one is read however late it is.
  size_t Next() {
    const std::lock_guard lock(mutex_);
    const bool is_late = next_ > 0 && clock_->Now() - begin_ > options_.begin_limit;
    if (!error_.ok() || is_late) return experts_.size();
    return std::min(next_++, experts_.size());
  }
  absl::Status Pace() const {
    if (clock_->Now() - begin_ <= options_.give_up_limit) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat("not read in ", absl::FormatDuration(options_.give_up_limit)));
  }
  void End(size_t index, const absl::Status& status) {
    const absl::Duration time = clock_->Now() - begin_;
    const std::lock_guard lock(mutex_);
    if (status.ok()) {
      probe_.experts.push_back(experts_[index]);
      probe_.time = std::max(probe_.time, time);
    } else if (error_.ok() || absl::IsDeadlineExceeded(error_)) {
      error_ = status;
    }
  }
  absl::StatusOr<ReadProbe> Take() {
    const bool is_late = absl::IsDeadlineExceeded(error_) && !probe_.experts.empty();
    if (!error_.ok() && !is_late) return error_;
    std::ranges::sort(probe_.experts);
    return std::move(probe_);
  }

 private:
  const std::span<const ExpertId> experts_;
  const Clock* const clock_;
  const absl::Time begin_;
  const ReadProbeOptions options_;
  std::mutex mutex_;
  // Guarded by mutex_:
  size_t next_ = 0;
  ReadProbe probe_;
  absl::Status error_;
};

}  // namespace

std::vector<ExpertId> ChooseProbed(int64_t num_experts, int64_t count) {
  std::vector<ExpertId> chosen;
  const int64_t num_chosen = std::min(num_experts, count);
  for (int64_t i = 0; i < num_chosen; ++i) chosen.push_back(static_cast<ExpertId>(i * num_experts / num_chosen));
  return chosen;
}

absl::StatusOr<ReadProbe> ProbeReads(const ExpertSource& source, std::span<const ExpertId> experts,
                                     const ReadProbeOptions& options, const Clock& clock) {
  CADRE_CHECK(!experts.empty());
  CADRE_CHECK_GE(options.num_threads, 1);
  const auto bytes = static_cast<size_t>(source.expert_bytes());
  const size_t num_threads = std::min(experts.size(), static_cast<size_t>(options.num_threads));
  std::vector<Memory> memories;
  memories.reserve(num_threads);
  for (size_t i = 0; i < num_threads; ++i) {
    memories.push_back(TakeMemory(bytes));
    if (memories.back() == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", num_threads, " experts of ", bytes, " bytes"));
    }
  }
  Probing probing(experts, options, &clock);
  const auto read = [&](std::byte* memory) {
    for (size_t i = probing.Next(); i < experts.size(); i = probing.Next()) {
      probing.End(i, source.Read(experts[i], {memory, bytes}, [&] { return probing.Pace(); }));
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(num_threads);
  for (const Memory& memory : memories) {
    try {
      threads.emplace_back(read, memory.get());
    } catch (const std::system_error&) {  // no more threads are allowed
      break;
    }
  }
  if (threads.empty()) read(memories.front().get());
  for (std::thread& thread : threads) thread.join();
  return probing.Take();
}

}  // namespace cadre
