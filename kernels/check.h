// Checks for our own mistakes: a failed one prints both values and ends the process, in release builds too.
// What the outside can cause is an absl::Status instead, never a check.
#ifndef CADRE_KERNELS_CHECK_H_
#define CADRE_KERNELS_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace cadre::internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "%s:%d: check failed: %s%s\n", file, line, condition, values.c_str());
  std::fflush(stderr);
  std::abort();
}

template <typename A, typename B>
[[noreturn]] void CheckOpFailed(const char* file, int line, const char* condition, const A& a, const B& b) {
  std::ostringstream values;
  values << " (" << a << " vs. " << b << ")";
  CheckFailed(file, line, condition, values.str());
}

}  // namespace cadre::internal

#define CADRE_CHECK(condition)                                            \
  do {                                                                    \
    if (!(condition)) [[unlikely]] {                                      \
      ::cadre::internal::CheckFailed(__FILE__, __LINE__, #condition, ""); \
    }                                                                     \
  } while (false)

#define CADRE_CHECK_OP_(a, op, b)                                                                  \
  do {                                                                                             \
    const auto cadre_a_ = (a);                                                                     \
    const auto cadre_b_ = (b);                                                                     \
    if (!(cadre_a_ op cadre_b_)) [[unlikely]] {                                                    \
      ::cadre::internal::CheckOpFailed(__FILE__, __LINE__, #a " " #op " " #b, cadre_a_, cadre_b_); \
    }                                                                                              \
  } while (false)

#define CADRE_CHECK_EQ(a, b) CADRE_CHECK_OP_(a, ==, b)
#define CADRE_CHECK_NE(a, b) CADRE_CHECK_OP_(a, !=, b)
#define CADRE_CHECK_LT(a, b) CADRE_CHECK_OP_(a, <, b)
#define CADRE_CHECK_LE(a, b) CADRE_CHECK_OP_(a, <=, b)
#define CADRE_CHECK_GT(a, b) CADRE_CHECK_OP_(a, >, b)
#define CADRE_CHECK_GE(a, b) CADRE_CHECK_OP_(a, >=, b)

#endif  // CADRE_KERNELS_CHECK_H_
