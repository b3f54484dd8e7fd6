// Who may share cached prompt prefixes with whom.
#ifndef CADRE_ENGINE_CACHE_DOMAIN_H_
#define CADRE_ENGINE_CACHE_DOMAIN_H_

#include <string>

#include "engine/request/request.h"
#include "engine/request/sequence.h"

namespace cadre {

enum class PrefixCacheScope {
  kOff,     // only the sequences of one request share their prompt
  kTenant,  // requests of one tenant share, unless their salts differ
  kShared,  // all requests share, unless their salts differ: how fast an answer comes tells what others asked
};

// The name of the set of sequences that `request` shares with; empty when it shares with nobody. `leader` is its first
// sequence.
std::string CacheDomain(PrefixCacheScope scope, const Request& request, SequenceId leader);

}  // namespace cadre

#endif  // CADRE_ENGINE_CACHE_DOMAIN_H_
