#include "engine/cache_domain.h"

#include "absl/strings/str_cat.h"

namespace cadre {

std::string CacheDomain(PrefixCacheScope scope, const Request& request, SequenceId leader) {
  switch (scope) {
    case PrefixCacheScope::kOff:
      return request.num_sequences > 1 ? absl::StrCat("request ", leader) : "";
    case PrefixCacheScope::kTenant:
      // With the length, two pairs of tenant and salt cannot make one name.
      return absl::StrCat("tenant ", request.tenant.size(), " ", request.tenant, request.cache_salt);
    case PrefixCacheScope::kShared:
      return absl::StrCat("all ", request.cache_salt);
  }
  return "";
}

}  // namespace cadre
