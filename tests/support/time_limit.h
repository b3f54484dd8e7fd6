// How long hostile input may keep a parser busy: a bound on damage, far above what it takes, not a measurement.
#ifndef CADRE_TESTS_SUPPORT_TIME_LIMIT_H_
#define CADRE_TESTS_SUPPORT_TIME_LIMIT_H_

#include <ctime>

namespace cadre {

// Instrumented code is an order of magnitude slower.
#ifdef CADRE_SANITIZED
inline constexpr int kTimeFactor = 10;
#else
inline constexpr int kTimeFactor = 1;
#endif

inline constexpr int kRefusalSeconds = 2 * kTimeFactor;

// Processor time of this process: other programs, such as other tests, have no part in it.
class Stopwatch {
 public:
  double Seconds() const { return static_cast<double>(std::clock() - start_) / CLOCKS_PER_SEC; }

 private:
  const std::clock_t start_ = std::clock();
};

}  // namespace cadre

#endif  // CADRE_TESTS_SUPPORT_TIME_LIMIT_H_
