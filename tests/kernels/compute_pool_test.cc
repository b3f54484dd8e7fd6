#include "kernels/cpu/compute_pool.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace cadre {
namespace {

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ComputePoolTest, CallsEveryIndexOnce) {
  for (const int num_threads : {1, 2, 3, 7}) {
    ComputePool pool(num_threads);
    EXPECT_EQ(pool.num_threads(), num_threads);
    for (const int64_t n : {0, 1, 2, 3, 100, 5000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
      pool.ParallelFor(n, [&](int64_t i, int thread) {
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, num_threads);
        ++calls[static_cast<size_t>(i)];
      });
      for (const std::atomic<int>& count : calls) ASSERT_EQ(count, 1);
    }
  }
}

// A run is computed in order by one thread, and long ones do not leave other threads without work.
TEST(ComputePoolTest, TakesRunsOfIndices) {
  for (const int num_threads : {2, 3, 7}) {
    ComputePool pool(num_threads);
    for (const int64_t n : {2, 15, 100, 5000}) {
      for (const int64_t max_run : {1, 2, 16, 100000}) {
        std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
        std::vector<std::vector<int64_t>> indices(static_cast<size_t>(num_threads));
        pool.ParallelFor(
            n,
            [&](int64_t i, int thread) {
              ++calls[static_cast<size_t>(i)];
              indices[static_cast<size_t>(thread)].push_back(i);
            },
            max_run);
        for (const std::atomic<int>& count : calls) ASSERT_EQ(count, 1);
        const int64_t longest = std::clamp(n / (2 * num_threads), int64_t{1}, max_run);
        for (const std::vector<int64_t>& own : indices) {
          ASSERT_TRUE(std::is_sorted(own.begin(), own.end()));
          if (own.empty() || own.front() != 0) continue;
          ASSERT_GE(std::ssize(own), longest);
          ASSERT_EQ(own[static_cast<size_t>(longest) - 1], longest - 1);
        }
      }
    }
  }
}

// However long a run may be, it is half of a fair share: nobody waits for one thread that took all.
TEST(ComputePoolTest, LongRunsLeaveWorkForOthers) {
  ComputePool pool(2);
  std::atomic<bool> has_come[2] = {false, false};
  pool.ParallelFor(
      8,
      [&](int64_t, int thread) {
        has_come[thread] = true;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!has_come[1 - thread] && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        EXPECT_TRUE(has_come[1 - thread]) << "the other thread found no work in 10 s";
      },
      /*max_run=*/1000);
}

// Plain memory written by one job and read by the next: the end of a job must order them (a race detector's test too).
TEST(ComputePoolTest, JobsAreOrdered) {
  ComputePool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int64_t job = 0; job < 20000; ++job) {
    pool.ParallelFor(64, [&](int64_t i, int) { values[static_cast<size_t>(63 - i)] += i; });
    pool.ParallelFor(2, [&](int64_t half, int) {
      for (int64_t i = half * 32; i < half * 32 + 32; ++i) values[static_cast<size_t>(i)] -= 63 - i;
    });
  }
  for (const int64_t value : values) EXPECT_EQ(value, 0);
}

TEST(ComputePoolTest, WakesAfterSleep) {
  ComputePool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> arrived = 0;
    // Ends only if both threads take an index.
    pool.ParallelFor(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, 2);
  }
}

TEST(ComputePoolTest, IdleThreadsUseNoCpu) {
  ComputePool pool(4);
  pool.ParallelFor(100, [](int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(CpuSeconds() - before, 0.05);
}

}  // namespace
}  // namespace cadre
