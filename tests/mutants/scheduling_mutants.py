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
    # ---- steps that are ordered ahead ----
    Mutant(
        "a discarded row is charged to nobody and counted nowhere",
        "engine/loop_steps.cc",
        "      report.discarded_tokens += chunk.count;\n",
        "",
        "engine_ahead_test", "EngineAheadTest.WhoEndsUnforeseen*"),
    Mutant(
        "a row that needs the token before it is ordered ahead",
        "engine/sample/token_chooser.h",
        "return constraint_ != nullptr || history_.penalties().any();",
        "return constraint_ != nullptr && history_.penalties().any();",
        "engine_ahead_test", "EngineAheadTest.ARowThatNeeds*"),
    Mutant(
        "a row is ordered behind the last token of its request",
        "engine/loop_steps.cc",
        "active.sequence.num_generated_tokens() + 1 >= active.sequence.traits().max_tokens",
        "active.sequence.num_generated_tokens() >= active.sequence.traits().max_tokens",
        "engine_ahead_test", "EngineAheadTest.OrdersAStep*"),
    Mutant(
        "blocks are given away under a step that writes there",
        "engine/engine_loop.cc",
        "is_in_flight ? scheduler_.Retire(sequence) : scheduler_.Finish(sequence);",
        "is_in_flight ? scheduler_.Finish(sequence) : scheduler_.Finish(sequence);",
        "engine_ahead_test", "EngineAheadTest.WhoEndsUnforeseen*"),
    Mutant(
        "what is nobody's may stay no number",
        "engine/loop_steps.cc",
        "step.result.sampled.tokens[i] != kSampledNan;",
        "step.result.sampled.tokens[i] >= kSampledNan - 1;",
        "engine_ahead_test", "EngineAheadTest.NotANumberInARowThatIsNobodys*"),
    Mutant(
        "blocks are cleared under a step that writes there",
        "engine/loop_steps.cc",
        "  for (const std::unique_ptr<OrderedStep>& step : in_flight_) Await(step.get());\n",
        "",
        "engine_ahead_test", "EngineAheadTest.NotANumber*"),
    Mutant(
        "a prompt waits as long as steps are ordered ahead",
        "engine/schedule/scheduler_plan.cc",
        "if (std::ssize(plan.chunks) != plan.num_decodes || plan.empty()) return std::nullopt;",
        "plan.chunks.resize(static_cast<size_t>(plan.num_decodes));\n  plan.started.clear();\n"
        "  if (plan.empty()) return std::nullopt;",
        "engine_ahead_test", "EngineAheadTest.APromptThatCouldEnter*"),
    Mutant(
        "stopping leaves the step under way",
        "engine/engine_loop.cc",
        "  while (!in_flight_.empty()) FinishStep();\n",
        "",
        "engine_ahead_test", "EngineAheadTest.Stopping*"),
    Mutant(
        "the step behind one that failed is forgotten",
        "engine/loop_steps.cc",
        "    Await(behind.get());\n",
        "",
        "engine_ahead_test", "EngineAheadTest.AStepThatFails*"),
    Mutant(
        "two steps have one image in staging memory",
        "engine/model/step_arena.h",
        "return static_cast<size_t>(step) % mirrors_.size();",
        "return static_cast<size_t>(step) % mirrors_.size() / mirrors_.size();",
        "emulated_cuda_model_test", "*StepsAheadTest.Compute*"),
    Mutant(
        "the tokens of the step in front are not filled in",
        "engine/model/transformer_runner.cc",
        "    FillTokens();\n    const Activations act",
        "    const Activations act",
        "emulated_cuda_model_test", "*StepsAheadTest.Compute*"),
    Mutant(
        "a mark waits for what is behind it",
        "kernels/cuda/cuda_device.cc",
        "return AfterWaiting(cudaEventSynchronize(cuda_mark.event()));",
        "return AfterWaiting(cudaStreamSynchronize(stream_));",
        "emulated_cuda_test", "CudaOpsErrorTest.AMarkWaits*"),
    Mutant(
        "a probe begins reads for ever",
        "engine/experts/read_probe.cc",
        "clock_->Now() - begin_ > options_.begin_limit",
        "clock_->Now() < begin_",
        "read_probe_test", "ReadProbeTest.NoReadIsBegunLate"),
]
