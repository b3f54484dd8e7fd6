#include "engine/cache_domain.h"

#include "absl/strings/str_cat.h"

namespace cadre {

namespace {

std::string DomainOf(PrefixCacheScope scope, const Request& request, SequenceId leader) {
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

}  // namespace

std::string CacheDomain(PrefixCacheScope scope, const Request& request, SequenceId leader, bool depends_on_seed,
                        int64_t bias_epoch) {
  // A row that is found computed has no choices to tell.
  if (request.wants_routed_experts) return "";
  // What is routed by a record of its own is of use to the sequences of this request alone.
  std::string domain = DomainOf(request.replay != nullptr ? PrefixCacheScope::kOff : scope, request, leader);
  if (!domain.empty() && depends_on_seed) domain = absl::StrCat("seed ", request.sampling.seed, " ", domain);
  if (!domain.empty() && bias_epoch > 0) domain = absl::StrCat("bias ", bias_epoch, " ", domain);
  const CapacityPolicy policy = request.capacity.value_or(CapacityPolicy());
  if (domain.empty() || !policy.is_on()) return domain;
  // What a row computes depends on its neighbors then: nobody would compute the same again.
  if (policy.scope == CapacityScope::kBatch) return "";
  // Other places, other keys and values. In front, where no salt can stand.
  return absl::StrCat("capacity ", DescribeCapacityPolicy(policy), " ", domain);
}

}  // namespace cadre
