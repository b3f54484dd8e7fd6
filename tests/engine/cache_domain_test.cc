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

TEST(CacheDomainTest, OffStillSharesWithinARequest) {
  EXPECT_EQ(DomainOf(PrefixCacheScope::kOff, "a", ""), "");
  EXPECT_EQ(DomainOf(PrefixCacheScope::kOff, "a", "", 2), "request 5");
}

}  // namespace
}  // namespace cadre
