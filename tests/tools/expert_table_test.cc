#include "tools/expert_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace cadre {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// One layer of the total with these loads.
v1::ExpertStats MakeStats(const std::vector<int64_t>& loads) {
  v1::ExpertStats stats;
  stats.set_model("toy");
  stats.set_num_experts(static_cast<int32_t>(loads.size()));
  stats.set_top_k(2);
  v1::LayerStats& layer = *stats.add_total();
  layer.set_layer(7);
  for (int64_t load : loads) {
    layer.add_processed(load);
    layer.add_rerouted(0);
    layer.add_reweighted(0);
    layer.add_dropped(0);
    layer.add_gate_weight(static_cast<double>(load) / 2);
  }
  layer.set_tokens(std::accumulate(loads.begin(), loads.end(), int64_t{0}) / stats.top_k());
  return stats;
}

TEST(ExpertTableTest, BarsAreHalfACellHighAtTheMean) {
  // The mean is 8: nothing, hardly anything, half, the mean, more, twice, four times.
  const v1::ExpertStats stats = MakeStats({0, 1, 4, 8, 10, 16, 17});
  const std::vector<std::string> lines = Lines(FormatExpertTable(stats, /*total=*/true, 120));
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_EQ(lines[0], "toy: 7 experts a layer, 2 per token; all 28 tokens");
  EXPECT_THAT(lines[2], HasSubstr("    7  "));
  EXPECT_THAT(lines[2], EndsWith("·▁▂▄▅██"));
}

TEST(ExpertTableTest, LostAssignmentsAreCounted) {
  v1::ExpertStats stats = MakeStats({8, 8});
  stats.mutable_total(0)->set_reweighted(0, 3);
  stats.mutable_total(0)->set_dropped(1, 39);
  EXPECT_THAT(Lines(FormatExpertTable(stats, true, 120))[2], HasSubstr("     42  ▄▄"));
}

TEST(ExpertTableTest, NarrowTerminalsGetMoreLines) {
  const std::vector<std::string> lines = Lines(FormatExpertTable(MakeStats(std::vector<int64_t>(40, 6)), true, 20));
  ASSERT_THAT(lines, SizeIs(2 + 3));  // 16 + 16 + 8 experts
  EXPECT_EQ(lines[4], std::string(51, ' ') + "▄▄▄▄▄▄▄▄");
}

TEST(ExpertTableTest, ASilentLayerHasDots) {
  EXPECT_THAT(FormatExpertTable(MakeStats({0, 0, 0}), true, 80), EndsWith("  ···\n"));
}

TEST(ExpertTableTest, OneLayerShowsEveryExpert) {
  const v1::ExpertStats stats = MakeStats({30, 10});
  const std::vector<std::string> lines = Lines(FormatLayerTable(stats, stats.total(0), true, 80));
  ASSERT_THAT(lines, SizeIs(5));
  EXPECT_EQ(lines[3], "     0          30         0           0         0         15.0   75.0% ████████");
  EXPECT_EQ(lines[4], "     1          10         0           0         0          5.0   25.0% ██▋");
}

}  // namespace
}  // namespace cadre
