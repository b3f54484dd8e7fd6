#include "engine/request/request_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

namespace cadre {
namespace {

Request RequestOf(size_t num_tokens) {
  Request request;
  request.prompt.assign(num_tokens, 1);
  return request;
}

TEST(RequestQueueTest, KeepsTheOrderOfArrival) {
  RequestQueue queue({});
  for (size_t n = 1; n <= 5; ++n) ASSERT_TRUE(queue.Push(RequestOf(n)).ok());
  const std::vector<Request> taken = queue.TakeAll();
  ASSERT_EQ(taken.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(taken[i].prompt.size(), i + 1);
  EXPECT_TRUE(queue.TakeAll().empty());
}

TEST(RequestQueueTest, APlaceIsHeldUntilItIsReleased) {
  RequestQueue queue({.max_requests = 2, .max_prompt_tokens = 100});
  ASSERT_TRUE(queue.Push(RequestOf(60)).ok());
  ASSERT_TRUE(queue.Push(RequestOf(40)).ok());
  EXPECT_EQ(queue.Push(RequestOf(1)).code(), absl::StatusCode::kResourceExhausted);
  queue.TakeAll();
  EXPECT_EQ(queue.Push(RequestOf(1)).code(), absl::StatusCode::kResourceExhausted);
  queue.ReleasePlace(PlaceOf(RequestOf(40)));
  EXPECT_EQ(queue.Push(RequestOf(41)).message(),
            "requests with 60 prompt tokens are waiting, and 41 more exceed the limit of 100");
  EXPECT_TRUE(queue.Push(RequestOf(40)).ok());
  EXPECT_EQ(queue.totals().places.requests, 2);
  EXPECT_EQ(queue.totals().places.prompt_tokens, 100);
}

TEST(RequestQueueTest, ARefusedRequestIsLeftUntouched) {
  RequestQueue queue({.max_requests = 0});
  Request request = RequestOf(3);
  EXPECT_FALSE(queue.Push(std::move(request)).ok());
  EXPECT_EQ(request.prompt.size(), 3u);  // NOLINT(bugprone-use-after-move): the contract of Push
}

TEST(RequestQueueTest, CloseRefusesButKeepsWhatItHas) {
  RequestQueue queue({});
  ASSERT_TRUE(queue.Push(RequestOf(1)).ok());
  queue.Close();
  EXPECT_EQ(queue.Push(RequestOf(1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(queue.TakeAll().size(), 1u);
  EXPECT_EQ(queue.totals().pushed_requests, 1);
}

// The fair queue lets a level lead by so many tokens and no more.
TEST(RequestQueueTest, AHigherPriorityIsAheadByItsHeadStartOnly) {
  RequestQueue queue({.priority_tokens = 100});
  for (int i = 0; i < 50; ++i) {
    Request urgent = RequestOf(20);
    urgent.tenant = "urgent";
    urgent.priority = 2;
    ASSERT_TRUE(queue.Push(std::move(urgent)).ok());
  }
  Request plain = RequestOf(40);
  plain.tenant = "plain";
  EXPECT_EQ(queue.CostAhead(PlaceOf(plain)).prompt_tokens, 240);  // its own 40, and two levels
  plain.priority = 3;
  EXPECT_EQ(queue.CostAhead(PlaceOf(plain)).prompt_tokens, 0);
}

// What a tenant was served of its highest level is no lead for the next one down.
TEST(RequestQueueTest, TheLevelsOfATenantShareOneLead) {
  RequestQueue queue({.priority_tokens = 100});
  for (int i = 0; i < 150; ++i) {
    Request other = RequestOf(20);
    other.tenant = "other";
    other.priority = i % 3;
    ASSERT_TRUE(queue.Push(std::move(other)).ok());
  }
  Request plain = RequestOf(40);
  plain.tenant = "plain";
  EXPECT_EQ(queue.CostAhead(PlaceOf(plain)).prompt_tokens, 240);
}

// Nor does a lower priority wait for all of a higher one, if that is long.
TEST(RequestQueueTest, ALowerPriorityIsAheadOfWhatIsMoreThanALevelLong) {
  RequestQueue queue({.priority_tokens = 100});
  for (int i = 0; i < 50; ++i) {
    Request patient = RequestOf(20);
    patient.tenant = "patient";
    patient.priority = -1;
    ASSERT_TRUE(queue.Push(std::move(patient)).ok());
  }
  Request plain = RequestOf(260);
  plain.tenant = "plain";
  EXPECT_EQ(queue.CostAhead(PlaceOf(plain)).prompt_tokens, 160);
  EXPECT_EQ(queue.CostAhead(PlaceOf(RequestOf(100))).prompt_tokens, 0);
}

// Two tenants take turns by what they are charged.
TEST(RequestQueueTest, AGeneratedTokenTakesTwiceTheTurn) {
  RequestQueue queue({});
  for (int i = 0; i < 50; ++i) {
    Request other = RequestOf(20);
    other.tenant = "other";
    ASSERT_TRUE(queue.Push(std::move(other)).ok());
  }
  Request plain = RequestOf(40);
  plain.tenant = "plain";
  plain.expected_tokens = 30;
  EXPECT_EQ(queue.CostAhead(PlaceOf(plain)).prompt_tokens, 100);
}

TEST(RequestTest, WhoMustGenerateAllItMayDoesNotEndEarly) {
  Request request;
  request.sampling.max_tokens = 10;
  request.sampling.min_tokens = 9;
  EXPECT_TRUE(MayEndEarly(request, /*has_eos_tokens=*/true));
  EXPECT_FALSE(MayEndEarly(request, /*has_eos_tokens=*/false));
  request.sampling.min_tokens = 10;
  EXPECT_FALSE(MayEndEarly(request, /*has_eos_tokens=*/true));
  request.sampling.stop_strings = {"x"};
  EXPECT_TRUE(MayEndEarly(request, /*has_eos_tokens=*/true));
}

TEST(RequestQueueTest, AWakeBeforeTheWaitIsNotLost) {
  RequestQueue queue({});
  queue.Wake();
  queue.Wait();  // returns at once
  ASSERT_TRUE(queue.Push(RequestOf(1)).ok());
  queue.Wait();  // so does this
  queue.TakeAll();
  std::atomic<bool> returned = false;
  std::thread sleeper([&] {
    queue.Wait();
    returned = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(returned);
  queue.Wake();
  sleeper.join();
  EXPECT_TRUE(returned);
}

TEST(RequestQueueTest, ManyThreadsNeverExceedTheBound) {
  constexpr int kLimit = 7;
  RequestQueue queue({.max_requests = kLimit});
  std::atomic<int64_t> num_accepted = 0;
  std::vector<std::thread> pushers;
  for (int i = 0; i < 4; ++i) {
    pushers.emplace_back([&] {
      for (int n = 0; n < 2000; ++n) num_accepted += queue.Push(RequestOf(2)).ok();
    });
  }
  std::atomic<bool> done = false;
  int64_t num_taken = 0;
  int64_t most = 0;
  std::thread taker([&] {
    while (!done || queue.totals().places.requests > 0) {
      most = std::max(most, queue.totals().places.requests);
      for (const Request& request : queue.TakeAll()) {
        queue.ReleasePlace(PlaceOf(request));
        ++num_taken;
      }
    }
  });
  for (std::thread& pusher : pushers) pusher.join();
  done = true;
  taker.join();
  EXPECT_EQ(num_taken, num_accepted);
  EXPECT_EQ(queue.totals().pushed_requests, num_accepted);
  EXPECT_LE(most, kLimit);
  EXPECT_GT(num_taken, 0);
  EXPECT_EQ(queue.totals().places.prompt_tokens, 0);
}

}  // namespace
}  // namespace cadre
