"""Seeded bugs of weights with 8 and 4 bits."""

from mutant import Mutant

QUANTIZATION_MUTANTS = [
    Mutant(
        "an infinite weight is given a scale",
        "kernels/quantized.cc",
        "    if (bits >= kInfinity) return false;\n    const float scale",
        "    if (bits > kInfinity) return false;\n    const float scale",
        "kernels_test", "QuantizedRowTest.RefusesWhatIsNotFinite"),
    Mutant(
        "half of a block is multiplied as if codes had no zero",
        "kernels/cpu/matmul_quantized_avx512.cc",
        "  sums = _mm512_dpbusd_epi32(sums, ones, _mm512_load_si512(block->codes + 64));\n",
        "",
        "kernels_test", "*QuantizedOpsTest.LinearMatchesDoublePrecision*"),
    Mutant(
        "a group of 4 bits has its neighbor's scale",
        "kernels/cpu/matmul_quantized_avx512.cc",
        "kFirst + 2 * kNext, kFirst + 3 * kNext, kFirst + 3 * kNext);",
        "kFirst + 2 * kNext, kFirst + 2 * kNext, kFirst + 3 * kNext);",
        "kernels_test", "*QuantizedOpsTest.LinearMatchesDoublePrecision*"),
    Mutant(
        "one thread takes all that is left",
        "kernels/cpu/compute_pool.cc",
        "left / (2 * num_threads())",
        "left / (num_threads() > 0 ? 1 : 2)",
        "kernels_test", "ComputePoolTest.LongRunsLeaveWorkForOthers"),
    Mutant(
        "the code in the other half of a byte is the next one",
        "kernels/cpu/matmul_quantized_portable.cc",
        "      block->codes[at + kQ4Group / 2] =",
        "      block->codes[at + 1] =",
        "kernels_test", "*QuantizedOpsTest.LinearMatchesDoublePrecision*"),
    Mutant(
        "hidden columns share a scale with those of the task before",
        "kernels/cpu/matmul_quantized_avx512.cc",
        "reinterpret_cast<ActivationBlock*>(row) + first_column / kQuantizedBlock;",
        "reinterpret_cast<ActivationBlock*>(row) + first_column / (2 * kQuantizedBlock);",
        "kernels_test", "*QuantizedOpsTest.GatedMlpMatchesDoublePrecision*"),
    Mutant(
        "an activation that is not a number becomes one",
        "kernels/cpu/matmul_quantized_portable.cc",
        "  return largest < kSmallestQuantized ? 0.0f : largest / 127.0f;\n",
        "  return is_coded ? largest / 127.0f : 0.0f;\n",
        "kernels_test", "*QuantizedOpsTest.WhatIsNotFiniteStaysSo*"),
    Mutant(
        "the embedding is quantized",
        "engine/model/weights.cc",
        "          placement.dtype = summary.dtype;\n",
        "          placement.dtype = summary.matrix_dtype;\n",
        "quantized_weights_test", "QuantizedWeightsTest.AreThoseOfTheExpertsOrOfAllMatrices"),
    Mutant(
        "attention is rounded to 4 bits unasked",
        "engine/model/weights.cc",
        "options.quantized_parts == QuantizedParts::kAllAlike ? *options.quantized : DType::kQ8;",
        "options.quantized_parts != QuantizedParts::kExperts ? *options.quantized : DType::kQ8;",
        "quantized_weights_test", "QuantizedWeightsTest.AreThoseOfTheExpertsOrOfAllMatrices"),
    Mutant(
        "the head is rounded to 4 bits",
        "engine/model/weights.cc",
        "config.tie_word_embeddings ? summary.dtype : DType::kQ8;",
        "config.tie_word_embeddings ? summary.dtype : summary.matrix_dtype;",
        "quantized_weights_test", "QuantizedWeightsTest.TheHeadKeepsEightBits"),
    Mutant(
        "a device is given weights that it does not compute with",
        "engine/model/memory_plan.cc",
        "    if (ops.can_multiply(dtype)) continue;\n",
        "    if (ops.can_multiply(dtype) || IsQuantized(dtype)) continue;\n",
        "emulated_cuda_model_test", "*QuantizedPlanTest*"),
    Mutant(
        "experts of float32 that will be quantized widen the KV cache",
        "engine/model/weights.cc",
        "    if (placement.role == WeightRole::kSmall || WillBeQuantized(placement, options)) continue;\n",
        "    if (placement.role == WeightRole::kSmall || (WillBeQuantized(placement, options) && false)) continue;\n",
        "quantized_weights_test", "QuantizedWeightsTest.WhatIsQuantizedDoesNotWidenTheRest"),
    Mutant(
        "what is read at a time ends within a row",
        "engine/model/weight_reader.cc",
        "std::max<int64_t>(kChunkBytes / stored_bytes / unit, 1) * unit",
        "std::max<int64_t>(kChunkBytes / stored_bytes, unit)",
        "quantized_weights_test", "QuantizedWeightsTest.LargeMatricesAreReadInPieces"),
]
