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
        "what is sent for each sequence is charged once",
        "server/vllm_service.cc",
        "AnswerKind::kStreamedBySequence",
        "AnswerKind::kStreamed",
        "vllm_engine_test", "VllmServiceTest.DetailsOfThePromptHaveALimitForAllSequences"),
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
        "an abort ends the requests of other callers",
        "server/running_requests.cc",
        "stream != nullptr && stream->caller() == caller",
        "stream != nullptr && (stream->caller() == caller || stream->caller() != \"\")",
        "vllm_engine_test", "RunningRequestsTest.*:VllmAbortTest.NobodyEndsWhatAnotherCallerAskedFor"),
    Mutant(
        "an abort may be as long as a prompt",
        "server/vllm_service.cc",
        "    if (bytes > kMaxAbortBytes) {\n",
        "    if (bytes > 100 * kMaxAbortBytes) {\n",
        "vllm_engine_test", "VllmAbortTest.LongListsAreRefused"),
    Mutant(
        "an abort is refused for want of the memory that it would give back",
        "server/vllm_service.cc",
        "    if (bytes <= kMaxUnchargedAbortBytes) return nullptr;\n",
        "",
        "vllm_engine_test", "VllmAbortTest.ShortOfMemoryAFewIdsAreReadAndManyAreNot"),
    Mutant(
        "a request that waits to be read cannot be aborted",
        "server/vllm_service.cc",
        "    if (!metadata_id.empty()) exchange_->known_by_id = running_->Add(metadata_id, stream());\n",
        "    if (metadata_id.empty()) exchange_->known_by_id = running_->Add(metadata_id, stream());\n",
        "vllm_engine_test", "VllmAbortTest.*BeforeItIsRead"),
    Mutant(
        "as many as like take the tokenizer at a time",
        "server/tokenizer_stream.cc",
        "place_.emplace(shelf_->places(), kMaxTokenizerCalls)",
        "place_.emplace(shelf_->places(), 100 * kMaxTokenizerCalls)",
        "vllm_engine_test", "TokenizerStreamTest.OnlySoManyTakeItAtATime"),
    Mutant(
        "who does not read the tokenizer keeps its place",
        "server/reading_watch.cc",
        "if (is_late_ || when_late_ == WhenLate::kCutOff) return Cancel();",
        "if (when_late_ == WhenLate::kCutOff) return Cancel();",
        "vllm_engine_test", "TokenizerStreamTest.WhoNeverReadsIsCutOff"),
    Mutant(
        "who reads the tokenizer too late gets it all the same",
        "server/reading_watch.cc",
        "return is_late_ ? SlowReader(patience_)",
        "return is_late_ && context_ == nullptr ? SlowReader(patience_)",
        "vllm_engine_test", "TokenizerStreamTest.WhoReadsTooLateIsToldWhy"),
    Mutant(
        "who has read a message must read the next one in time",
        "server/reading_watch.cc",
        "  ++generation_;\n  due_ = absl::InfinitePast();\n  alarm_.Cancel();\n",
        "",
        "services_test", "UnreadAnswerTest.AWatcherThatReadsMayBeToldSeldom"),
    Mutant(
        "who takes an event bit by bit reads nothing",
        "server/streamed_call.cc",
        "    stream()->OnPartTaken();\n",
        "",
        "server_units_test", "StreamedCallTest.EachMessageOfAnEventThatIsTakenIsProgress"),
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
