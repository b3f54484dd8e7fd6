// Models on a device that runs beside the host: an engine that is one step behind it tells what one tells that waits
// for each step, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/support/random_model.h"
#include "tests/support/transformer_engine.h"

namespace cadre {
namespace {

struct Served {
  std::vector<Ticket> tickets;
  EngineSnapshot snapshot;
};

class EngineOverlapTest : public ::testing::TestWithParam<TestTarget> {
 protected:
  void SetUp() override {
    if (!GetParam().make_for_model(1)->can_mark()) GTEST_SKIP() << "the device runs nothing beside the host";
  }

  // Requests that arrive, end by length or by a stop token, and give up, by `seed`.
  static Served Serve(bool overlaps, uint32_t seed, int32_t num_blocks, int32_t num_turns) {
    EngineOptions options;
    options.overlap_steps = overlaps;
    options.max_num_batched_tokens = 32;
    TransformerEngine served(CapacityPolicy(), options, num_blocks);
    std::mt19937 random(seed);
    const auto up_to = [&](int32_t n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); };
    Served result;
    for (int32_t turn = 0; turn < num_turns; ++turn) {
      if (turn % 8 < 3) {
        const int32_t length = 1 + up_to(10);
        const int32_t max_tokens = 3 + up_to(20);
        std::vector<int32_t> stops;
        for (int32_t i = up_to(3) * 4; i > 0; --i) stops.push_back(up_to(kSmallVocabSize));
        const bool needs_host = turn == 9;
        result.tickets.push_back(
            served.Submit(MakePrompt(length, turn), max_tokens, std::nullopt, [&](Request& request) {
              request.sampling.seed = static_cast<uint64_t>(turn);
              request.sampling.stop_token_ids = stops;
              if (needs_host) request.sampling.presence_penalty = 0.5f;
            }));
      }
      served.engine->Step();
      EXPECT_TRUE(served.engine->Audit().ok()) << served.engine->Audit();
    }
    served.Run();
    result.snapshot = served.engine->Snapshot();
    EXPECT_EQ(result.snapshot.kv_blocks_in_use, 0);
    return result;
  }
};

TEST_P(EngineOverlapTest, TellsWhatAnEngineTellsThatWaits) {
  int64_t discarded = 0;
  for (const uint32_t seed : {1u, 2u}) {
    // 8 sequences of up to 8 blocks: the few are not enough for all.
    const int32_t num_blocks = seed == 2 ? 8 : 100;
    const Served waits = Serve(/*overlaps=*/false, seed, num_blocks, /*num_turns=*/30);
    const Served overlaps = Serve(/*overlaps=*/true, seed, num_blocks, /*num_turns=*/30);
    ASSERT_EQ(waits.tickets.size(), overlaps.tickets.size());
    for (size_t i = 0; i < waits.tickets.size(); ++i) {
      SCOPED_TRACE(i);
      ExpectSameAnswer(overlaps.tickets[i], waits.tickets[i]);
      EXPECT_EQ(overlaps.tickets[i].sink->summary().reason, waits.tickets[i].sink->summary().reason);
      EXPECT_EQ(overlaps.tickets[i].sink->summary().usage.generated_tokens,
                waits.tickets[i].sink->summary().usage.generated_tokens);
    }
    EXPECT_EQ(waits.snapshot.steps_ahead, 0);
    EXPECT_EQ(waits.snapshot.discarded_tokens, 0);
    EXPECT_GT(overlaps.snapshot.steps_ahead, seed == 2 ? 3 : 10);
    EXPECT_EQ(overlaps.snapshot.generated_tokens, waits.snapshot.generated_tokens);
    discarded += overlaps.snapshot.discarded_tokens;
    if (seed == 2) {
      EXPECT_GT(overlaps.snapshot.preemptions, 0);
    }
  }
  EXPECT_GT(discarded, 0);
}

INSTANTIATE_TEST_SUITE_P(All, EngineOverlapTest, testing::ValuesIn(TestTargets()),
                         [](const testing::TestParamInfo<TestTarget>& target) { return target.param.name; });

}  // namespace
}  // namespace cadre
