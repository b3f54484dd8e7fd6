"""Random Mixture-of-Experts models (Qwen3-MoE layout) as files: a Hugging Face folder for cadre, GGUF for llama.cpp.

Both hold the same bfloat16 numbers. All matrices are N(0, 1 / inputs) and norms are 1, so router logits are about
N(0, 1), and random tokens use all experts about equally: the worst case for a batch. Needs numpy and gguf.
"""

import json
import math
import struct

import gguf
import numpy as np

PRESETS = {
    "tiny": dict(layers=8, hidden=512, heads=8, kv_heads=4, head_dim=64, experts=16, top_k=4, ffn=512, vocab=8192),
    "tiny-k1": dict(layers=8, hidden=512, heads=8, kv_heads=4, head_dim=64, experts=16, top_k=1, ffn=512, vocab=8192),
    "odd": dict(layers=3, hidden=1024, heads=12, kv_heads=3, head_dim=96, experts=60, top_k=4, ffn=1408, vocab=10007),
    "olmoe-4": dict(layers=4, hidden=2048, heads=16, kv_heads=16, head_dim=128, experts=64, top_k=8, ffn=1024,
                    vocab=50304),
    "olmoe-like": dict(layers=16, hidden=2048, heads=16, kv_heads=16, head_dim=128, experts=64, top_k=8, ffn=1024,
                       vocab=50304),
}
MAX_POSITIONS = 4096
RMS_EPSILON = 1e-6
ROPE_THETA = 10000.0
DRAWN_AT_ONCE = 1 << 24  # numbers; bounds the float32 copies of a large tensor


def row_lengths(p):
    """Inputs of a row of every matrix that gets quantized, by name."""
    return {"hidden": p["hidden"], "heads * head_dim": p["heads"] * p["head_dim"], "ffn": p["ffn"]}


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


def to_bf16_bits(x):
    """float32 -> bfloat16 bits, to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def draw_bits(shape, deviation, index):
    """The bfloat16 bits of tensor `index`."""
    count = math.prod(shape)
    if deviation is None:
        return to_bf16_bits(np.ones(count, np.float32)).reshape(shape)
    generator = np.random.default_rng(index)
    bits = np.empty(count, np.uint16)
    for begin in range(0, count, DRAWN_AT_ONCE):
        drawn = generator.standard_normal(min(DRAWN_AT_ONCE, count - begin), np.float32) * np.float32(deviation)
        bits[begin:begin + drawn.size] = to_bf16_bits(drawn)
    return bits.reshape(shape)


def config_text(p):
    return json.dumps(dict(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=p["hidden"],
        num_hidden_layers=p["layers"], num_attention_heads=p["heads"], num_key_value_heads=p["kv_heads"],
        head_dim=p["head_dim"], num_experts=p["experts"], num_experts_per_tok=p["top_k"],
        moe_intermediate_size=p["ffn"], intermediate_size=p["ffn"], norm_topk_prob=True, vocab_size=p["vocab"],
        rms_norm_eps=RMS_EPSILON, rope_theta=ROPE_THETA, max_position_embeddings=MAX_POSITIONS, hidden_act="silu",
        tie_word_embeddings=False, attention_bias=False, decoder_sparse_step=1, mlp_only_layers=[],
        torch_dtype="bfloat16", eos_token_id=2), indent=1)


def safetensors_header(p):
    entries, offset = {}, 0
    for name, _, shape, _ in tensors(p):
        count, part = (shape[0], shape[1:]) if "{e}" in name else (1, shape)
        for e in range(count):
            end = offset + math.prod(part) * 2
            entries[name.replace("{e}", str(e))] = dict(dtype="BF16", shape=list(part), data_offsets=[offset, end])
            offset = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def is_float32_in_gguf(name, shape):
    """llama.cpp wants vectors, and multiplies by the router, in float32; the numbers stay those of bfloat16."""
    return len(shape) == 1 or "ffn_gate_inp" in name


def open_gguf(path, p):
    """A writer that stands before the data of the first tensor."""
    writer = gguf.GGUFWriter(str(path), "qwen3moe")
    writer.add_context_length(MAX_POSITIONS)
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
    for _, name, shape, _ in tensors(p):
        if is_float32_in_gguf(name, shape):
            writer.add_tensor_info(name, shape, np.dtype(np.float32), math.prod(shape) * 4)
        else:
            writer.add_tensor_info(name, (*shape[:-1], shape[-1] * 2), np.dtype(np.uint8), math.prod(shape) * 2,
                                   raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def write_model(folder, p):
    """Makes `folder` a model of shape `p` for both engines, and returns the path of the GGUF file. A folder that has
    this model already is kept as it is; SystemExit if it has another."""
    gguf_path, config_path = folder / "model.gguf", folder / "config.json"
    if config_path.exists():
        if config_path.read_text() != config_text(p) or not gguf_path.exists():
            raise SystemExit(f"{folder} holds another model than the one asked for: name another --folder")
        return gguf_path
    writer = open_gguf(gguf_path, p)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(safetensors_header(p))
        for index, (_, name, shape, deviation) in enumerate(tensors(p)):
            bits = draw_bits(shape, deviation, index)
            file.write(bits)
            if is_float32_in_gguf(name, shape):
                writer.write_tensor_data((bits.astype(np.uint32) << 16).view(np.float32))
            else:
                writer.write_tensor_data(bits)
    writer.close()
    config_path.write_text(config_text(p))  # the last file, so that half a model is never taken for a whole one
    return gguf_path
