// What became of the spans of traces, since the start.
#ifndef CADRE_SERVER_SPAN_COUNTS_H_
#define CADRE_SERVER_SPAN_COUNTS_H_

#include <cstdint>

namespace cadre {

struct SpanCounts {
  int64_t exported = 0;
  int64_t dropped = 0;  // there were too many
  int64_t failed = 0;   // the collector could not be reached in time, or did not want them
};

}  // namespace cadre

#endif  // CADRE_SERVER_SPAN_COUNTS_H_
