"""The seeded bugs of routing: schemes, biases, recorded choices and their replay."""

from mutant import Mutant

ROUTING_MUTANTS = [
    Mutant(
        "a replayed prompt is cached for everybody",
        "engine/cache_domain.cc",
        "request.replay != nullptr ? PrefixCacheScope::kOff : scope",
        "scope",
        "engine_replay_test", "*CachedPromptsAreItsOwn*"),
    Mutant(
        "each chunk replays the begin of the record",
        "engine/batch_builder.cc",
        "((position - replay.first_position) * limits.num_moe_layers",
        "((position - range.begin) * limits.num_moe_layers",
        "engine_replay_test", "*ChoicesOfAnother*"),
    Mutant(
        "records of requests that have ended are charged for ever",
        "engine/request/routing_replay.cc",
        "    ~Charged() { account->GiveBack(replay->size_bytes(), tenant); }\n",
        "    ~Charged() = default;\n",
        "engine_replay_test", "*RecordsInFlight*:ReplayMemoryTest*"),
    Mutant(
        "a tenant may take all memory for records",
        "engine/request/routing_replay.cc",
        "own > 0 && bytes > share - own",
        "own > max_bytes",
        "engine_replay_test", "ReplayMemoryTest.ATenant*"),
    Mutant(
        "the probability of the last expert is not counted towards top_p",
        "kernels/cpu/router_row.cc",
        "    sum += p[best];\n",
        "    sum += count > 0 ? 0.0f : p[best];\n",
        "routing_scheme_test", "*TopP*:*ByHand*"),
    Mutant(
        "the bias of a router weighs as well",
        "kernels/cpu/router_row.cc",
        "options.norm == WeightNorm::kSoftmax ? row.z[ids[j]] : row.s[ids[j]];",
        "options.norm == WeightNorm::kSoftmax ? row.z[ids[j]] : row.c[ids[j]];",
        "routing_scheme_test", "*SigmoidBias*"),
    Mutant(
        "overflow spills over to any expert",
        "kernels/cpu/capacity.cc",
        "    if (call_.options.spill_over > 0) KeepNextBest();\n",
        "    if (call_.options.spill_over > 1) KeepNextBest();\n",
        "capacity_test", "*RandomWorldsAreAsTheReferenceSays*:*WhoSpillsOver*"),
    Mutant(
        "an expert takes a row of a prompt's group too many",
        "kernels/cpu/expert_choice.cc",
        "  return rank < places;\n",
        "  return rank <= places;\n",
        "routing_scheme_test", "*ExpertChoice*"),
    Mutant(
        "a chunk ends in the middle of a group",
        "engine/request/sequence.cc",
        "  if (traits_.prompt_group == 0 || end >= num_prompt_tokens_) return count;\n",
        "  if (traits_.prompt_group >= 0 || end >= num_prompt_tokens_) return count;\n",
        "scheduler_test", "*WholeGroups*"),
    Mutant(
        "a block of a group that goes on otherwise is taken for the own",
        "engine/schedule/prefix_cache.cc",
        "static_cast<size_t>(sequence->tokens_computed_together(options_.block_size)) / block_size;\n",
        "size_t{1};\n",
        "scheduler_simulation_test", "*groups*"),
    Mutant(
        "the noise of a router is shared by all requests in the prefix cache",
        "engine/cache_domain.cc",
        "  if (!domain.empty() && depends_on_seed) ",
        "  if (domain.empty() && depends_on_seed) ",
        "engine_prefix_test", "CacheDomainTest.OtherNoiseOtherKeys"),
    Mutant(
        "experts with more than the mean load are preferred",
        "engine/experts/bias_balancer.cc",
        "times_experts < sum ? 1.0 : times_experts > sum ? -1.0 : 0.0",
        "times_experts < sum ? -1.0 : times_experts > sum ? 1.0 : 0.0",
        "bias_balancer_test", "*"),
    Mutant(
        "a probability of exactly tau is not enough",
        "kernels/cpu/router_row.cc",
        "p[best] < options.threshold",
        "p[best] <= options.threshold",
        "routing_scheme_test", "*ExactlyTheThreshold*"),
    Mutant(
        "a sum of exactly p is not enough",
        "kernels/cpu/router_row.cc",
        "sum >= options.top_p",
        "sum > options.top_p",
        "routing_scheme_test", "*ExactlyTopP*"),
    Mutant(
        "a large bias chooses an expert that is excluded",
        "kernels/cpu/router_row.cc",
        "row.z[e] == kLowestScore ? kLowestScore : Defined(",
        "Defined(",
        "routing_scheme_test", "*NoBiasChooses*"),
    Mutant(
        "all layers have the selection bias of the first",
        "engine/model/routing_scheme.cc",
        "value.at(static_cast<size_t>(layer))",
        "value.at(0)",
        "routing_scheme_test", "*EachLayerMayHave*"),
    Mutant(
        "all layers have the same noise",
        "engine/model/layer_routing.cc",
        "routing.positions, routing.moe_layer,\n",
        "routing.positions, 0,\n",
        "engine_routing_test", "*EachLayerHasItsOwn*"),
    Mutant(
        "any scheme takes a stored selection bias",
        "engine/model/weights.cc",
        "if (TakesSelectionBias(config)) continue;",
        "if (config.num_layers > 0) continue;",
        "checkpoint_test", "StoredSelectionBiasTest.OtherSchemes*"),
    Mutant(
        "what a tenant did long ago counts for ever",
        "engine/tenant_ledger.cc",
        "standing.recent /= 2;",
        "standing.recent /= 1;",
        "engine_capacity_test", "TenantLedgerTest.OldMeritsFade"),
    Mutant(
        "the only idle account gives way however much it did",
        "engine/tenant_ledger.cc",
        "const int64_t most = sum / int64_t{kMaxTenants};",
        "const int64_t most = sum;",
        "engine_capacity_test", "TenantLedgerTest.WhoHadMore*"),
]
