#include "server/metric_page.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>

namespace cadre {
namespace {

TEST(MetricPageTest, LabelValuesAreEscapedAndNumbersAreExact) {
  MetricPage page;
  page.Begin(metric::kModelInfo);
  page.Sample({{"model", "a\"b\\c\nd"}}, int64_t{9007199254740993});
  page.Sample({{"model", "x"}}, 0.1);
  page.Sample({{"model", "y"}}, std::numeric_limits<double>::infinity());
  page.Sample({{"model", "z"}}, std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(std::move(page).Take(), std::string("# HELP cadre_model_info ") + metric::kModelInfo.help +
                                        "\n# TYPE cadre_model_info gauge\n"
                                        "cadre_model_info{model=\"a\\\"b\\\\c\\nd\"} 9007199254740993\n"
                                        "cadre_model_info{model=\"x\"} 0.1\n"
                                        "cadre_model_info{model=\"y\"} +Inf\n"
                                        "cadre_model_info{model=\"z\"} NaN\n");
}

}  // namespace
}  // namespace cadre
