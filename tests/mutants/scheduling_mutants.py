"""The seeded bugs of who goes first by what is in memory."""

from mutant import Mutant

SCHEDULING_MUTANTS = [
    Mutant(
        "who was passed over often enough is passed over again",
        "engine/schedule/fair_queue.cc",
        "each.waiting.num_passed_over >= queue_->options_.max_passed_over;",
        "each.waiting.num_passed_over < 0;",
        "preference_test", "PreferenceTest.NobodyIsPassedOver*:PreferenceSimulationTest.NobodyIs*"),
    Mutant(
        "a cursor forgets whom it has passed over",
        "engine/schedule/fair_queue.cc",
        "  for (size_t i = 0; i < chosen_; ++i) ++draft.candidates[i].waiting.num_passed_over;\n",
        "",
        "preference_test", "PreferenceTest.ACursorCounts*"),
    Mutant(
        "a share counts for more than a priority",
        "engine/schedule/fair_queue.cc",
        "    if (each.waiting.sequence->traits().priority != priority) break;\n",
        "    if (each.waiting.sequence->traits().priority < priority - 1000) break;\n",
        "preference_test", "PreferenceTest.OfAnotherPriority*:PreferenceSimulationTest.NobodyIs*"),
    Mutant(
        "who would miss its deadline is passed over",
        "engine/engine_loop.cc",
        "CheckDeadline(meter_.state(), ahead, place.cost, request.deadline - now).ok()) &&",
        "request.deadline > now) &&",
        "expert_aware_test", "EngineExpertAwareTest.ADeadline*"),
    Mutant(
        "one token is taken for another that shares its row",
        "engine/experts/token_experts.cc",
        "    if (owners_[row] != token) continue;\n",
        "    if (owners_[row] < 0) continue;\n",
        "preference_test", "TokenExpertsTest.WhoSharesARow*"),
    Mutant(
        "a probe begins reads for ever",
        "engine/experts/read_probe.cc",
        "clock_->Now() - begin_ > options_.begin_limit",
        "clock_->Now() < begin_",
        "read_probe_test", "ReadProbeTest.NoReadIsBegunLate"),
]
