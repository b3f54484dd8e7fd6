// Who may share cached prompt prefixes with whom.
#ifndef CADRE_ENGINE_CACHE_DOMAIN_H_
#define CADRE_ENGINE_CACHE_DOMAIN_H_

#include <cstdint>
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
// sequence. Where what a row computes depends on the seed, requests of different seeds share nothing. Requests whose
// experts are limited differently share nothing, and those limited by batch share with nobody, nor do those that want
// to know all choices of the router; only the sequences of one request share where recorded choices are replayed.
// Requests of different `bias_epoch` share nothing: what was computed before the routers were put back is not found
// afterwards.
std::string CacheDomain(PrefixCacheScope scope, const Request& request, SequenceId leader, bool depends_on_seed = false,
                        int64_t bias_epoch = 0);

}  // namespace cadre

#endif  // CADRE_ENGINE_CACHE_DOMAIN_H_
