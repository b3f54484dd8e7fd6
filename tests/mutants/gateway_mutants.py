"""The seeded bugs of the protocol that gateways speak."""

from mutant import Mutant

GATEWAY_MUTANTS = [
    Mutant(
        "a field that the gateway's protocol has and we do not know is ignored",
        "server/translate_vllm.cc",
        "  CollectUnknown(params, \"sampling_params.\", &found);\n",
        "",
        "vllm_engine_test", "TranslateVllm/RefusedField.*"),
    Mutant(
        "an error names as many unknown fields as there are",
        "server/translate_vllm.cc",
        "has_more = names.size() == kMaxUnsupportedNames;",
        "has_more = names.size() == 1000 * kMaxUnsupportedNames;",
        "vllm_engine_test", "TranslateVllm.ManyUnknownFieldsAreNamedUpToALimit"),
    Mutant(
        "a request is held twice",
        "server/translate_vllm.cc",
        "request->set_text(std::move(*wire.mutable_text()));",
        "request->set_text(wire.text());",
        "vllm_engine_test", "TranslateVllm.TextsAndListsAreMovedNotCopied"),
    Mutant(
        "a gateway that leaves top_p out asks for none of the tokens",
        "server/translate_vllm.cc",
        "wire.top_p() == 0.0f ? 1.0f : wire.top_p()",
        "wire.top_p()",
        "vllm_engine_test", "TranslateVllm.ZerosAreThatProtocolsDefaults"),
    Mutant(
        "an abort ends everybody's requests",
        "server/running_requests.cc",
        "    const auto [begin, end] = streams_.equal_range(id);\n",
        "    const auto begin = id.empty() ? streams_.end() : streams_.begin(), end = streams_.end();\n",
        "vllm_engine_test", "VllmServiceTest.AbortEndsTheRequestsOfAnId"),
    Mutant(
        "a chunk counts the tokens of the prompt, too",
        "server/vllm_answer.cc",
        "  chunk->set_completion_tokens(static_cast<uint32_t>(event.token_ids_size()));\n",
        "  chunk->set_completion_tokens(prompt_tokens_ + static_cast<uint32_t>(event.token_ids_size()));\n",
        "vllm_engine_test", "VllmAnswer.StreamsChunksAndTheEnd"),
    Mutant(
        "who does not stream gets sequences in the order of their ends",
        "server/vllm_answer.cc",
        "  if (is_streamed_) next_index_ = ended;\n",
        "  next_index_ = ended;\n",
        "vllm_engine_test", "VllmAnswer.CollectsWhatIsNotStreamed"),
]
