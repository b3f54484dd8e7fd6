#ifndef CADRE_ENGINE_TEXT_JINJA_LIMITS_H_
#define CADRE_ENGINE_TEXT_JINJA_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace cadre::jinja {

// The longest template, in bytes. The largest published ones have about 50 KiB.
inline constexpr std::size_t kMaxTemplateBytes = 1 << 20;
// The longest name of a variable, attribute or filter, in bytes: looking one up, or saying that it is undefined, is a
// single step.
inline constexpr std::size_t kMaxNameBytes = 256;
// Statements inside statements, and operands inside operands, while parsing. A chain such as a + b + c counts one level
// for each operator.
inline constexpr int kMaxParseDepth = 200;
// Lists inside lists of a value.
inline constexpr int kMaxValueDepth = 100;
// Bytes of what raise_exception says that reach the error.
inline constexpr std::size_t kMaxExceptionBytes = 512;

// What one rendering may use.
struct RenderLimits {
  // One for each expression and statement, for each element a filter or loop takes, and for each 64 bytes of text that
  // are made or searched: bounds time, and with it memory.
  std::int64_t steps = 5'000'000;
  // The rendered text, and every string on the way to it.
  std::size_t output_bytes = 4 << 20;
  // Expressions and statements that are being evaluated at one time, macro calls included.
  int depth = 400;
  // Elements of range(), as in Jinja's own sandbox.
  std::int64_t range_size = 100'000;
};

}  // namespace cadre::jinja

#endif  // CADRE_ENGINE_TEXT_JINJA_LIMITS_H_
