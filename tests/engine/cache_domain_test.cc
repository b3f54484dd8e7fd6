#include "engine/cache_domain.h"

#include <gtest/gtest.h>

namespace cadre {
namespace {

std::string DomainOf(PrefixCacheScope scope, const std::string& tenant, const std::string& salt, int32_t n = 1) {
  Request request;
  request.tenant = tenant;
  request.cache_salt = salt;
  request.num_sequences = n;
  return CacheDomain(scope, request, 5);
}

TEST(CacheDomainTest, TenantsShareWithThemselvesOnly) {
  const auto domain = [](const char* tenant, const char* salt) {
    return DomainOf(PrefixCacheScope::kTenant, tenant, salt);
  };
  EXPECT_EQ(domain("a", ""), domain("a", ""));
  EXPECT_NE(domain("a", ""), domain("b", ""));
  EXPECT_NE(domain("a", "x"), domain("a", "y"));
  EXPECT_NE(domain("a", "bc"), domain("ab", "c"));
  EXPECT_NE(domain("", "a"), domain("a", ""));
  EXPECT_NE(domain("1 a", ""), domain("", "1 a"));
  EXPECT_FALSE(domain("", "").empty());
}

TEST(CacheDomainTest, SharedScopeKeepsSaltsApart) {
  EXPECT_EQ(DomainOf(PrefixCacheScope::kShared, "a", ""), DomainOf(PrefixCacheScope::kShared, "b", ""));
  EXPECT_NE(DomainOf(PrefixCacheScope::kShared, "a", "x"), DomainOf(PrefixCacheScope::kShared, "a", "y"));
}

TEST(CacheDomainTest, OtherLimitsOtherKeys) {
  const auto domain = [](const CapacityPolicy& policy) {
    Request request;
    request.tenant = "a";
    request.num_sequences = 2;
    request.capacity = policy;
    return CacheDomain(PrefixCacheScope::kTenant, request, 5);
  };
  CapacityPolicy policy = {.scope = CapacityScope::kRequest};
  const std::string limited = domain(policy);
  EXPECT_EQ(domain({}), DomainOf(PrefixCacheScope::kTenant, "a", ""));
  EXPECT_NE(limited, domain({}));
  EXPECT_EQ(limited, domain(policy));
  policy.factor = 1.25;
  EXPECT_NE(limited, domain(policy));
  policy.scope = CapacityScope::kBatch;
  EXPECT_EQ(domain(policy), "") << "what depends on neighbors is nobody else's";
}

TEST(CacheDomainTest, OtherNoiseOtherKeys) {
  const auto domain = [](uint64_t seed, bool depends_on_seed) {
    Request request;
    request.tenant = "a";
    request.sampling.seed = seed;
    return CacheDomain(PrefixCacheScope::kTenant, request, 5, depends_on_seed);
  };
  EXPECT_EQ(domain(1, true), domain(1, true));
  EXPECT_NE(domain(1, true), domain(2, true));
  EXPECT_EQ(domain(1, false), domain(2, false));
}

TEST(CacheDomainTest, OtherBiasOtherKeys) {
  const auto domain = [](int64_t bias_epoch) {
    Request request;
    request.tenant = "a";
    return CacheDomain(PrefixCacheScope::kTenant, request, 5, /*depends_on_seed=*/false, bias_epoch);
  };
  EXPECT_EQ(domain(0), DomainOf(PrefixCacheScope::kTenant, "a", ""));
  EXPECT_EQ(domain(1), domain(1));
  EXPECT_NE(domain(0), domain(1));
  EXPECT_NE(domain(1), domain(2));
}

TEST(CacheDomainTest, OffStillSharesWithinARequest) {
  EXPECT_EQ(DomainOf(PrefixCacheScope::kOff, "a", ""), "");
  EXPECT_EQ(DomainOf(PrefixCacheScope::kOff, "a", "", 2), "request 5");
}

}  // namespace
}  // namespace cadre
