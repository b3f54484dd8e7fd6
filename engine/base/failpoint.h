// Named places where a test makes something go wrong: an error, a delay, a crash. Built with CADRE_FAILPOINTS alone,
// which no release has; without it the macros are nothing.
//
//   CADRE_FAILPOINT("engine.admit");               sleeps, yields, prints or ends the process, as configured
//   CADRE_FAILPOINT_RETURN("engine.forward");      returns an error from the function around it as well
//
// What a point does is a list of terms, each tried in order until one applies (the grammar of the fail-rs library):
//
//   [P%][N*]ACTION[(ARGUMENT)]  ->  ...
//   P%  applies with this probability     N*  applies so many times, then the next term is tried
//   off | return(message) | sleep(ms) | delay(ms, busy) | yield | print(text) | panic(text) | pause (until
//   reconfigured)
#ifndef CADRE_ENGINE_BASE_FAILPOINT_H_
#define CADRE_ENGINE_BASE_FAILPOINT_H_

#ifdef CADRE_FAILPOINTS

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace cadre::failpoint {

// Replaces what point `name` does; an empty spec removes it. INVALID_ARGUMENT names the term that is wrong. Any thread.
absl::Status Configure(std::string_view name, std::string_view spec);
// "name=spec;name=spec", as in the environment variable CADRE_FAILPOINTS, which is read at the first hit.
absl::Status ConfigureAll(std::string_view specs);
// Removes all, and forgets the counts.
void Reset();

// Carries out what is configured. OK unless it is an error: INTERNAL with the term's message. Any thread.
absl::Status Hit(std::string_view name);

// How often each point was passed since Reset, configured or not.
std::map<std::string, int64_t> Hits();

}  // namespace cadre::failpoint

#define CADRE_FAILPOINT(name) ::cadre::failpoint::Hit(name).IgnoreError()
#define CADRE_FAILPOINT_RETURN(name)                                                             \
  do {                                                                                           \
    if (absl::Status failpoint_status = ::cadre::failpoint::Hit(name); !failpoint_status.ok()) { \
      return failpoint_status;                                                                   \
    }                                                                                            \
  } while (false)

#else

#define CADRE_FAILPOINT(name) static_cast<void>(0)
#define CADRE_FAILPOINT_RETURN(name) static_cast<void>(0)

#endif  // CADRE_FAILPOINTS

#endif  // CADRE_ENGINE_BASE_FAILPOINT_H_
