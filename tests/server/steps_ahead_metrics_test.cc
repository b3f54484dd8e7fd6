// Counts of steps that are ordered ahead: there where an engine may order some, and nowhere else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/metrics.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(StepsAheadMetricsTest, TheyAreThereWhereThereMayBeSome) {
  Metrics metrics({});
  EngineSnapshot engine;
  engine.steps_ahead = 7;
  engine.discarded_tokens = 2;
  engine.discarded_assignments = 12;
  MetricsSources sources;
  sources.engine = [&] { return engine; };
  metrics.SetModel(ServedModel(), sources);
  EXPECT_THAT(metrics.RenderDefaultPage(), Not(HasSubstr("cadre_steps_ahead")));
  engine.orders_ahead = true;
  const std::string page = metrics.RenderDefaultPage();
  EXPECT_THAT(page, HasSubstr("\ncadre_steps_ahead_total 7\n"));
  EXPECT_THAT(page, HasSubstr("\ncadre_discarded_tokens_total 2\n"));
  EXPECT_THAT(page, HasSubstr("\ncadre_discarded_assignments_total 12\n"));
}

}  // namespace
}  // namespace cadre
