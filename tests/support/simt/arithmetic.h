// Intrinsics of one thread: bits, roundings, and the overloads that CUDA puts into the global namespace. Functions of
// the C library (expf, fmaf, ...) are the host's: in the last bits they may differ from the device's.
#ifndef CADRE_TESTS_SUPPORT_SIMT_ARITHMETIC_H_
#define CADRE_TESTS_SUPPORT_SIMT_ARITHMETIC_H_

#include <math.h>  // NOLINT(modernize-deprecated-headers): CUDA has these functions in the global namespace

#include <bit>
#include <cmath>
#include <cstdint>

// NOLINTBEGIN(bugprone-reserved-identifier): the names are CUDA's

constexpr int __popc(unsigned x) { return std::popcount(x); }
constexpr int __popcll(unsigned long long x) { return std::popcount(x); }
constexpr int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
constexpr int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
constexpr int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
constexpr int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }

constexpr unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  const unsigned long long a_low = a & 0xFFFFFFFFu, a_high = a >> 32, b_low = b & 0xFFFFFFFFu, b_high = b >> 32;
  const unsigned long long middle = a_high * b_low + (a_low * b_low >> 32);
  return a_high * b_high + (middle >> 32) + ((a_low * b_high + (middle & 0xFFFFFFFFu)) >> 32);
}

constexpr unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
constexpr int __float_as_int(float x) { return std::bit_cast<int>(x); }
constexpr float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
constexpr float __int_as_float(int x) { return std::bit_cast<float>(x); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
constexpr float __fadd_rn(float a, float b) { return a + b; }
constexpr float __fsub_rn(float a, float b) { return a - b; }
constexpr float __fmul_rn(float a, float b) { return a * b; }
constexpr float __fdiv_rn(float a, float b) { return a / b; }
constexpr float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
constexpr float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return fminf(fmaxf(a, 0.0f), 1.0f); }

// Approximate on a device: expf and logf here, and __expf has an error of 2 ulp and more there.
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
constexpr int __float2int_rz(float x) { return static_cast<int>(x); }
constexpr float __int2float_rn(int x) { return static_cast<float>(x); }
constexpr float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

// A read through the cache for constant data: what it reads must not be written during the kernel, which is not
// checked.
template <typename T>
T __ldg(const T* address) {
  return *address;
}

// As in CUDA: of a number and a NaN the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

#define CADRE_SIMT_MIN_MAX(result, a_type, b_type)                                                            \
  constexpr result min(a_type a, b_type b) {                                                                  \
    return static_cast<result>(a) < static_cast<result>(b) ? static_cast<result>(a) : static_cast<result>(b); \
  }                                                                                                           \
  constexpr result max(a_type a, b_type b) {                                                                  \
    return static_cast<result>(a) < static_cast<result>(b) ? static_cast<result>(b) : static_cast<result>(a); \
  }
CADRE_SIMT_MIN_MAX(int, int, int)
CADRE_SIMT_MIN_MAX(unsigned, unsigned, unsigned)
CADRE_SIMT_MIN_MAX(unsigned, int, unsigned)
CADRE_SIMT_MIN_MAX(unsigned, unsigned, int)
CADRE_SIMT_MIN_MAX(long, long, long)
CADRE_SIMT_MIN_MAX(unsigned long, unsigned long, unsigned long)
CADRE_SIMT_MIN_MAX(long long, long long, long long)
CADRE_SIMT_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef CADRE_SIMT_MIN_MAX

// NOLINTEND(bugprone-reserved-identifier)

#endif  // CADRE_TESTS_SUPPORT_SIMT_ARITHMETIC_H_
