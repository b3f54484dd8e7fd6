#include "tools/load_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_split.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::ModelLoad LoadAt(int64_t seconds, int64_t scale) {
  v1::ModelLoad load;
  load.mutable_time()->set_seconds(seconds);
  load.set_state(v1::MODEL_STATE_READY);
  load.set_max_running_requests(8);
  load.set_running_requests(4);
  load.set_admitted_requests(10 * scale);
  load.set_finished_requests(6 * scale);
  load.set_cancelled_requests(2 * scale);
  load.set_failed_requests(1 * scale);
  load.set_prefill_tokens(100 * scale);
  load.set_decode_tokens(50 * scale);
  load.set_generated_tokens(60 * scale);
  load.set_steps(20 * scale);
  load.set_prefix_cache_query_tokens(100 * scale);
  load.set_prefix_cache_hit_tokens(25 * scale);
  return load;
}

v1::ExpertStats Stats(int layers, int experts) {
  v1::ExpertStats stats;
  stats.set_num_experts(experts);
  for (int i = 0; i < layers; ++i) {
    v1::LayerStats* layer = stats.add_window();
    layer->set_layer(i + 3);
    for (int k = 0; k < experts; ++k) {
      layer->add_processed(k == i % experts ? 0 : 10 * k);
      layer->add_rerouted(0);
    }
    layer->mutable_health()->set_load_imbalance(i == 5 ? 7.5 : 1.0 + 0.01 * i);
  }
  return stats;
}

TEST(LoadViewTest, RatesAreDifferencesByTheServersClock) {
  const LoadRates rates = RatesBetween(LoadAt(100, 1), LoadAt(104, 3));
  EXPECT_DOUBLE_EQ(rates.seconds, 4.0);
  EXPECT_DOUBLE_EQ(rates.admitted, 5.0);
  EXPECT_DOUBLE_EQ(rates.finished, 4.5);
  EXPECT_DOUBLE_EQ(rates.failed, 1.5);
  EXPECT_DOUBLE_EQ(rates.prefill_tokens, 50.0);
  EXPECT_DOUBLE_EQ(rates.decode_tokens, 25.0);
  EXPECT_DOUBLE_EQ(rates.generated_tokens, 30.0);
  EXPECT_DOUBLE_EQ(rates.steps, 10.0);
  EXPECT_TRUE(rates.has_cache_queries);
  EXPECT_DOUBLE_EQ(rates.cache_hit_share, 0.25);
}

TEST(LoadViewTest, AServerThatStartedAnewHasNoRates) {
  EXPECT_EQ(RatesBetween(LoadAt(100, 3), LoadAt(104, 1)).admitted, 0.0);
  EXPECT_EQ(RatesBetween(v1::ModelLoad(), LoadAt(104, 1)).admitted, 0.0);
  EXPECT_EQ(RatesBetween(LoadAt(100, 1), LoadAt(100, 1)).admitted, 0.0);
}

int Columns(absl::string_view line) {
  int columns = 0;
  for (char c : line) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
  return columns;
}

TEST(LoadViewTest, FitsIntoAnySize) {
  LoadSample sample{.model = {}, .load = LoadAt(1, 1), .experts = Stats(60, 128)};
  sample.model.set_name("a model with \x1b[2J in its name");
  for (int rows : {1, 2, 9, 12, 24, 200}) {
    for (int columns : {1, 10, 79, 300}) {
      const std::string view = FormatLoadView(sample, LoadRates(), {.columns = columns, .rows = rows});
      EXPECT_THAT(view, Not(HasSubstr("\x1b")));
      int lines = 0;
      for (absl::string_view line : absl::StrSplit(view, '\n')) {
        EXPECT_LE(Columns(line), columns);
        ++lines;
      }
      EXPECT_LE(lines - 1, rows);
      EXPECT_TRUE(view.ends_with("\n"));
    }
  }
}

TEST(LoadViewTest, WhereLayersDoNotFitTheMostUnevenAreShown) {
  const LoadSample sample{.model = {}, .load = LoadAt(1, 1), .experts = Stats(60, 4)};
  const std::string all = FormatLoadView(sample, LoadRates(), {.columns = 120, .rows = 100});
  EXPECT_THAT(all, Not(HasSubstr("more layers")));
  const std::string some = FormatLoadView(sample, LoadRates(), {.columns = 120, .rows = 16});
  EXPECT_THAT(some, HasSubstr("\n    8   7.50 "));  // the one with the largest imbalance
  EXPECT_THAT(some, HasSubstr("57 more layers"));
}

TEST(LoadViewTest, TellsWhatIsLostAndWhoIsNotWell) {
  LoadSample sample;
  sample.load = LoadAt(100, 1);
  sample.experts = Stats(2, 5);  // 100 and 90 assignments processed
  v1::LayerStats* layer = sample.experts->mutable_window(1);
  for (int i = 0; i < 5; ++i) {
    layer->add_dropped(i == 2 ? 20 : 0);
    layer->add_reweighted(i == 3 ? 10 : 0);
    layer->add_gate_weight(i == 2 ? 8.0 : 3.0);
    layer->add_lost_gate_weight(i == 2 ? 5.0 : 0.0);
  }
  layer->mutable_health()->set_collapsed(true);
  layer->mutable_health()->add_dead_experts(1);
  layer->mutable_health()->add_hot_experts(4);
  layer->mutable_health()->add_hot_experts(3);
  const std::string view = FormatLoadView(sample, LoadRates(), {.columns = 80, .rows = 50});
  EXPECT_THAT(view, HasSubstr("\nlost     13.64 % of assignments, 25.00 % of gate weight\n"));
  EXPECT_THAT(view, HasSubstr("\nrouters  collapsed layers 1, dead experts 1, hot experts 2\n"));
  EXPECT_THAT(view, HasSubstr("    3   1.00   0.000   0.0%"));
  EXPECT_THAT(view, HasSubstr("    4   1.01   0.000  25.0%"));
  EXPECT_THAT(FormatLoadView(sample, LoadRates(), {.columns = 140, .rows = 50, .color = true}),
              ::testing::AllOf(HasSubstr("\x1b[31mlost"), HasSubstr("\x1b[31mrouters")));
}

TEST(LoadViewTest, ExpertsAreRankedByLoad) {
  const LoadSample sample{.model = {}, .load = LoadAt(1, 1), .experts = Stats(1, 5)};
  // Loads 0, 10, 20, 30, 40.
  const std::string view = FormatLoadView(sample, LoadRates(), {.columns = 120, .rows = 50});
  EXPECT_THAT(view, HasSubstr("   4 40.0%   3 30.0%   2 20.0%"));
  EXPECT_THAT(view, HasSubstr("   0  0.0%   1 10.0%   2 20.0%"));
  EXPECT_THAT(view, HasSubstr("·▂▄▆█"));
}

TEST(LoadViewTest, ColorsOnlyWhenAskedFor) {
  const LoadSample sample{.model = {}, .load = LoadAt(1, 1), .experts = Stats(8, 4)};
  EXPECT_THAT(FormatLoadView(sample, LoadRates(), {.columns = 80, .rows = 50, .color = true}), HasSubstr("\x1b[32m"));
}

TEST(LoadViewTest, TheExpertCacheIsShownWhereThereIsOne) {
  LoadSample sample;
  sample.load = LoadAt(10, 1);
  sample.placement.emplace();
  v1::PlacementTotals& totals = *sample.placement->mutable_totals();
  totals.set_device(64);
  sample.placement->set_device_slots(64);
  EXPECT_THAT(FormatLoadView(sample, LoadRates(), {.columns = 80, .rows = 50}), Not(HasSubstr("residing")));
  totals.set_device(16);
  totals.set_host(8);
  totals.set_disk(40);
  totals.set_hits(300);
  totals.set_misses(100);
  totals.set_loading(1);
  totals.set_pinned(2);
  totals.set_quarantined(3);
  sample.placement->set_device_slots(16);
  const std::string view = FormatLoadView(sample, LoadRates(), {.columns = 80, .rows = 50});
  EXPECT_THAT(view, HasSubstr(" 25 %  16 of 64 experts\n"));
  EXPECT_THAT(view, HasSubstr("\ncache    75.0 % hits since the start, 1 on their way, 2 pinned, 3 cannot be read\n"));
  EXPECT_THAT(view, Not(HasSubstr("\nread ")));
  totals.set_loaded_bytes(int64_t{3} << 29);
  totals.mutable_wait()->set_seconds(2);
  totals.set_evictions(84);
  totals.set_prefetches_used(40);
  totals.set_prefetches_late(5);
  totals.set_prefetches_wasted(6);
  totals.set_load_errors(7);
  EXPECT_THAT(
      FormatLoadView(sample, LoadRates(), {.columns = 120, .rows = 50}),
      HasSubstr("\nread     1.5 GiB, waited 2.0 s, 84 gave way, ahead: 40 in time, 5 late, 6 in vain; 7 errors\n"));
}

}  // namespace
}  // namespace cadre
