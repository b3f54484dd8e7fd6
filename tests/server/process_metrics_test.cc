// What the page says of the process itself.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/metrics.h"

namespace cadre {
namespace {

TEST(ProcessMetricsTest, TheProcessIsDescribed) {
  const std::string page = Metrics({}).RenderDefaultPage();
  const auto value_of = [&page](const std::string& name) {
    const size_t line = page.find("\n" + name + " ");
    EXPECT_NE(line, std::string::npos) << name;
    return line == std::string::npos ? 0.0 : std::strtod(page.c_str() + line + name.size() + 2, nullptr);
  };
  EXPECT_GT(value_of("process_cpu_seconds_total"), 0.0);
  EXPECT_GT(value_of("process_resident_memory_bytes"), 1e6);
  EXPECT_LT(value_of("process_resident_memory_bytes"), 1e12);
  EXPECT_GE(value_of("process_open_fds"), 3.0);
  EXPECT_LT(value_of("process_open_fds"), value_of("process_max_fds"));
  const double age = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()) - value_of("process_start_time_seconds");
  EXPECT_GT(age, -2.0);
  EXPECT_LT(age, 600.0);
}

}  // namespace
}  // namespace cadre
