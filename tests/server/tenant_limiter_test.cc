#include "server/tenant_limiter.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace cadre {
namespace {

using Ticket = std::unique_ptr<TenantLimiter::Ticket>;

class TenantLimiterTest : public ::testing::Test {
 protected:
  std::shared_ptr<TenantLimiter> Make(const TenantLimits& limits) {
    return std::make_shared<TenantLimiter>(limits, nullptr);
  }
  // How many of ten requests of the tenant are admitted now.
  int Admitted(TenantLimiter& limiter, const std::string& tenant = "a") const {
    int count = 0;
    for (int i = 0; i < 10; ++i) count += limiter.Admit(tenant, now_).ok() ? 1 : 0;
    return count;
  }

  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(TenantLimiterTest, ABurstThenTheRate) {
  const auto limiter = Make({.requests_per_second = 2, .burst = 4});
  EXPECT_EQ(Admitted(*limiter), 4);
  EXPECT_EQ(Admitted(*limiter, "b"), 4);  // has a bucket of its own
  const absl::Status refused = limiter->Admit("a", now_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "TENANT_RATE_LIMIT");
  EXPECT_EQ(ErrorRetryDelay(refused), absl::Milliseconds(500));
  now_ += absl::Milliseconds(499);
  EXPECT_EQ(Admitted(*limiter), 0);
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(Admitted(*limiter), 1);
  now_ += absl::Seconds(1);
  EXPECT_EQ(Admitted(*limiter), 2);
  now_ += absl::Hours(1);  // no more than a burst is saved
  EXPECT_EQ(Admitted(*limiter), 4);
}

TEST_F(TenantLimiterTest, WhoIsAnsweredMakesRoom) {
  const auto limiter = Make({.max_concurrent = 2});
  Ticket first = *limiter->Admit("a", now_);
  const Ticket second = *limiter->Admit("a", now_);
  const absl::Status refused = limiter->Admit("a", now_).status();
  EXPECT_EQ(ErrorReason(refused), "TENANT_CONCURRENCY_LIMIT");
  EXPECT_TRUE(ErrorRetryDelay(refused).has_value());
  EXPECT_TRUE(limiter->Admit("b", now_).ok());
  first.reset();
  EXPECT_TRUE(limiter->Admit("a", now_).ok());
}

TEST_F(TenantLimiterTest, WhoIsRefusedForOneLimitIsNotChargedForTheOther) {
  const auto limiter = Make({.requests_per_second = 1, .burst = 2, .max_concurrent = 1});
  Ticket open = *limiter->Admit("a", now_);
  EXPECT_EQ(Admitted(*limiter), 0);
  open.reset();
  EXPECT_TRUE(limiter->Admit("a", now_).ok());
}

TEST_F(TenantLimiterTest, ManyTenantsTakeBoundedMemory) {
  const auto limiter = Make({.requests_per_second = 1, .burst = 1});
  for (size_t i = 0; i < 2 * kMaxLimitedTenants; ++i) {
    // Those beyond the limit share a bucket.
    EXPECT_EQ(limiter->Admit(absl::StrCat("t", i), now_).ok(), i <= kMaxLimitedTenants) << i;
  }
  EXPECT_EQ(limiter->num_tenants(), kMaxLimitedTenants + 1);
  now_ += absl::Seconds(2);  // all buckets are full again: nothing needs to be remembered
  EXPECT_TRUE(limiter->Admit("new", now_).ok());
  EXPECT_EQ(limiter->num_tenants(), 1);
}

TEST_F(TenantLimiterTest, WhoHasAnOpenRequestIsNotForgotten) {
  const auto limiter = Make({.max_concurrent = 1});
  const Ticket open = *limiter->Admit("a", now_);
  std::vector<Ticket> others;
  for (size_t i = 0; i < kMaxLimitedTenants; ++i) {
    auto ticket = limiter->Admit(absl::StrCat("t", i), now_);
    ASSERT_TRUE(ticket.ok());
    others.push_back(*std::move(ticket));
  }
  now_ += absl::Seconds(2);
  others.clear();
  EXPECT_TRUE(limiter->Admit("new", now_).ok());
  EXPECT_FALSE(limiter->Admit("a", now_).ok());
}

}  // namespace
}  // namespace cadre
