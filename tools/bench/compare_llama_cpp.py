"""cadre beside llama.cpp on the same random Mixture-of-Experts model, in one run.

Writes one model twice, as a Hugging Face folder and as GGUF with the same bfloat16 numbers (Qwen3-MoE layout), then
alternates the two engines and prints medians and ratios. Greedy tokens of both are compared first, so that a speed is
never quoted for a wrong answer. Development only: needs numpy, gguf and llama-cpp-python.

  python3 tools/bench/compare_llama_cpp.py --preset tiny --engine-bench build/release/bin/engine_bench
"""

import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import tempfile
import time

import gguf
import numpy as np

PRESETS = {
    "tiny": dict(layers=8, hidden=512, heads=8, kv_heads=4, head_dim=64, experts=16, top_k=4, ffn=512, vocab=8192),
    "olmoe-like": dict(layers=16, hidden=2048, heads=16, kv_heads=16, head_dim=128, experts=64, top_k=8, ffn=1024,
                       vocab=50304),
}
RMS_EPSILON = 1e-6
ROPE_THETA = 10000.0


def to_bf16_bits(x):
    """float32 -> bfloat16 bits, to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def tensors(p):
    """(Hugging Face name, GGUF name, shape, standard deviation or None for ones); experts stand stacked."""
    d, q, kv = p["hidden"], p["heads"] * p["head_dim"], p["kv_heads"] * p["head_dim"]
    e, f = p["experts"], p["ffn"]
    yield "model.embed_tokens.weight", "token_embd.weight", (p["vocab"], d), 1.0
    for i in range(p["layers"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        yield hf + "input_layernorm.weight", gg + "attn_norm.weight", (d,), None
        yield hf + "self_attn.q_proj.weight", gg + "attn_q.weight", (q, d), d**-0.5
        yield hf + "self_attn.k_proj.weight", gg + "attn_k.weight", (kv, d), d**-0.5
        yield hf + "self_attn.v_proj.weight", gg + "attn_v.weight", (kv, d), d**-0.5
        yield hf + "self_attn.o_proj.weight", gg + "attn_output.weight", (d, q), q**-0.5
        yield hf + "self_attn.q_norm.weight", gg + "attn_q_norm.weight", (p["head_dim"],), None
        yield hf + "self_attn.k_norm.weight", gg + "attn_k_norm.weight", (p["head_dim"],), None
        yield hf + "post_attention_layernorm.weight", gg + "ffn_norm.weight", (d,), None
        yield hf + "mlp.gate.weight", gg + "ffn_gate_inp.weight", (e, d), d**-0.5
        yield hf + "mlp.experts.{e}.gate_proj.weight", gg + "ffn_gate_exps.weight", (e, f, d), d**-0.5
        yield hf + "mlp.experts.{e}.up_proj.weight", gg + "ffn_up_exps.weight", (e, f, d), d**-0.5
        yield hf + "mlp.experts.{e}.down_proj.weight", gg + "ffn_down_exps.weight", (e, d, f), f**-0.5
    yield "model.norm.weight", "output_norm.weight", (d,), None
    yield "lm_head.weight", "output.weight", (p["vocab"], d), d**-0.5


def values(shape, deviation, index):
    if deviation is None:
        return np.ones(shape, np.float32)
    generator = np.random.default_rng(index)
    return generator.standard_normal(shape, np.float32) * np.float32(deviation)


def write_hugging_face(folder, p):
    config = dict(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=p["hidden"],
        num_hidden_layers=p["layers"], num_attention_heads=p["heads"], num_key_value_heads=p["kv_heads"],
        head_dim=p["head_dim"], num_experts=p["experts"], num_experts_per_tok=p["top_k"],
        moe_intermediate_size=p["ffn"], intermediate_size=p["ffn"], norm_topk_prob=True, vocab_size=p["vocab"],
        rms_norm_eps=RMS_EPSILON, rope_theta=ROPE_THETA, max_position_embeddings=4096, hidden_act="silu",
        tie_word_embeddings=False, attention_bias=False, decoder_sparse_step=1, mlp_only_layers=[],
        torch_dtype="bfloat16", eos_token_id=2)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    entries, plan, offset = {}, [], 0
    for index, (name, _, shape, deviation) in enumerate(tensors(p)):
        count = shape[0] if "{e}" in name else 1
        part_shape = shape[1:] if "{e}" in name else shape
        for e in range(count):
            size = int(np.prod(part_shape)) * 2
            entries[name.replace("{e}", str(e))] = dict(
                dtype="BF16", shape=list(part_shape), data_offsets=[offset, offset + size])
            offset += size
        plan.append((index, shape, deviation))
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for index, shape, deviation in plan:
            file.write(to_bf16_bits(values(shape, deviation, index)).tobytes())


def write_gguf(path, p):
    writer = gguf.GGUFWriter(str(path), "qwen3moe")
    writer.add_context_length(4096)
    writer.add_embedding_length(p["hidden"])
    writer.add_block_count(p["layers"])
    writer.add_feed_forward_length(p["ffn"])
    writer.add_expert_feed_forward_length(p["ffn"])
    writer.add_head_count(p["heads"])
    writer.add_head_count_kv(p["kv_heads"])
    writer.add_key_length(p["head_dim"])
    writer.add_value_length(p["head_dim"])
    writer.add_rope_dimension_count(p["head_dim"])
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_expert_count(p["experts"])
    writer.add_expert_used_count(p["top_k"])
    writer.add_vocab_size(p["vocab"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    # A made-up vocabulary: the comparison speaks token ids only.
    words = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)]
    words += [b"\xe2\x96\x81w%d" % i for i in range(p["vocab"] - len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(words) - 259))
    plan = []
    for index, (_, name, shape, deviation) in enumerate(tensors(p)):
        # llama.cpp wants vectors, and multiplies by the router, in float32; the numbers stay those of bfloat16.
        is_float = len(shape) == 1 or "ffn_gate_inp" in name
        count = int(np.prod(shape))
        if is_float:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), count * 4)
        else:
            writer.add_tensor_info(name, (*shape[:-1], shape[-1] * 2), np.dtype(np.uint8), count * 2,
                                   raw_dtype=gguf.GGMLQuantizationType.BF16)
        plan.append((index, shape, deviation, is_float))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for index, shape, deviation, is_float in plan:
        bits = to_bf16_bits(values(shape, deviation, index))
        if is_float:
            writer.write_tensor_data((bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.write_tensor_data(bits)
    writer.close()


class LlamaCpp:
    def __init__(self, path, threads, vocab):
        import llama_cpp  # only here: the writers above are useful without it

        self.vocab = vocab
        self.llama = llama_cpp.Llama(model_path=str(path), n_ctx=1024, n_batch=1024, n_ubatch=512, n_threads=threads,
                                     n_threads_batch=threads, logits_all=False, verbose=False)

    def tokens(self, count, seed):
        return np.random.default_rng(seed).integers(3, self.vocab, count).tolist()

    def prefill_rate(self, count, seed):
        self.llama.reset()
        prompt = self.tokens(count, seed)
        start = time.perf_counter()
        self.llama.eval(prompt)
        return count / (time.perf_counter() - start)

    def decode_rate(self, steps, seed):
        self.llama.reset()
        self.llama.eval(self.tokens(64, seed))
        following = self.tokens(steps, seed + 1)
        start = time.perf_counter()
        for token in following:
            self.llama.eval([token])
        return steps / (time.perf_counter() - start)


    def greedy(self, prompt, steps):
        self.llama.reset()
        self.llama.eval(prompt)
        found = []
        for _ in range(steps):
            logits = np.ctypeslib.as_array(self.llama._ctx.get_logits(), shape=(self.vocab,))
            found.append(int(np.argmax(logits)))
            self.llama.eval(found[-1:])
        return found


def cadre_greedy(engine_bench, folder, prompt, steps):
    command = [engine_bench, "--model", str(folder), "--greedy", ",".join(map(str, prompt)), "--steps", str(steps)]
    return [int(t) for t in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def cadre_rates(engine_bench, folder, threads, extra):
    command = [engine_bench, "--model", str(folder), "--threads", str(threads), "--json", "--batches", "1",
               "--repeats", "3", *extra]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {row["phase"]: row["tokens_per_second"] for row in map(json.loads, lines)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--layers", type=int, help="fewer layers than the preset, to fit memory")
    parser.add_argument("--engine-bench", default="build/release/bin/engine_bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write the models (kept); default: a temporary folder")
    parser.add_argument("extra", nargs="*", help="more flags for engine_bench, after --")
    args = parser.parse_args()
    p = dict(PRESETS[args.preset])
    p["layers"] = args.layers or p["layers"]

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model.gguf").exists():
            write_hugging_face(folder, p)
            write_gguf(folder / "model.gguf", p)
        peer = LlamaCpp(folder / "model.gguf", args.threads, p["vocab"])
        for seed in range(3):
            prompt = peer.tokens(16, seed)
            a, b = cadre_greedy(args.engine_bench, folder, prompt, 16), peer.greedy(prompt, 16)
            equal = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), 16)
            print(f"{args.preset:12} greedy   {equal} of 16 tokens equal before the first difference (near-ties flip)")
        peer.prefill_rate(512, 0)
        ours, theirs = [], []
        for i in range(args.rounds):
            ours.append(cadre_rates(args.engine_bench, folder, args.threads, args.extra))
            theirs.append({"prefill": peer.prefill_rate(512, i + 1), "decode": peer.decode_rate(32, i + 1)})
        for phase in ("prefill", "decode"):
            a, b = [row[phase] for row in ours], [row[phase] for row in theirs]
            print(f"{args.preset:12} {phase:8} cadre {statistics.median(a):8.1f} [{min(a):.1f}-{max(a):.1f}]  "
                  f"llama.cpp {statistics.median(b):8.1f} [{min(b):.1f}-{max(b):.1f}]  "
                  f"ratio {statistics.median(a) / statistics.median(b):.2f}")


if __name__ == "__main__":
    main()
