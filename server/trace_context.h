// Where a call stands in a trace that spans services: the header `traceparent` of W3C Trace Context, level 1.
#ifndef CADRE_SERVER_TRACE_CONTEXT_H_
#define CADRE_SERVER_TRACE_CONTEXT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cadre {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

// Never all zeros, as the standard has it.
TraceId RandomTraceId();
SpanId RandomSpanId();

// Lower-case digits, two for each byte.
std::string Hex(const TraceId& id);
std::string Hex(const SpanId& id);

struct TraceContext {
  TraceId trace_id = {};
  SpanId span_id = {};      // of the caller
  bool is_sampled = false;  // whether the caller records the trace
};

// "00-<32 digits>-<16 digits>-<2 digits>", all lower-case hexadecimal. A later version may say more behind another '-',
// which is left out. Nothing of anything else, ids of zeros and version ff included: the trace begins anew then.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace cadre

#endif  // CADRE_SERVER_TRACE_CONTEXT_H_
