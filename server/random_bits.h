#ifndef CADRE_SERVER_RANDOM_BITS_H_
#define CADRE_SERVER_RANDOM_BITS_H_

#include <cstdint>

namespace cadre {

// Bits that nobody can guess, for seeds and ids. Each thread has a generator of its own, seeded from the system: asking
// the processor each time costs some 40 us where a hypervisor answers. Any thread.
std::uint64_t RandomBits();

}  // namespace cadre

#endif  // CADRE_SERVER_RANDOM_BITS_H_
