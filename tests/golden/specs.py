"""The random checkpoints: every family, and the odd shapes that break tiles, defaults and name tables.

`config` is the config.json as it is written; what it leaves out is the default of the family's class.
"""

import dataclasses


@dataclasses.dataclass
class Spec:
    name: str
    config: dict
    stored_dtype: str = "float32"
    reference_dtype: str = "float32"
    fused: bool = False           # experts as [E, 2F, D] and [E, D, F], as transformers 5 holds them in memory
    max_shard_bytes: int = 0      # > 0: several files and an index
    lengths: tuple = (1, 5, 17, 38)
    # Between the K-th and the (K+1)-th router logit of any token: a near-tie may fall either way in another order of
    # summation, and would say nothing.
    smallest_margin: float = 2e-3
    # The same for the two largest logits, as a share of the largest magnitude: other positions are left out.
    smallest_lead: float = 1e-3
    # A bfloat16 reference is off its own float32 logits by several percent at some positions of a random model, which
    # amplifies rounding more than a trained one does. Positions that are off by more than this are left out.
    largest_reference_error: float = 0.01
    # Scales what attention and experts add to the residual stream, and that amplification with it.
    branch_gain: float = 1.0


def olmoe(**changes):
    return {
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "torch_dtype": "float32", "hidden_act": "silu",
        "vocab_size": 101, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2,
        "norm_topk_prob": False, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "clip_qkv": None, "tie_word_embeddings": False, "attention_bias": False, "pad_token_id": 1, "eos_token_id": 2,
    } | changes


def qwen2_moe(**changes):
    return {
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "torch_dtype": "float32",
        "hidden_act": "silu", "vocab_size": 101, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 12, "shared_expert_intermediate_size": 24, "norm_topk_prob": False,
        "decoder_sparse_step": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "sliding_window": 32, "use_sliding_window": False, "max_window_layers": 1, "tie_word_embeddings": False,
        "eos_token_id": 2,
    } | changes


def qwen3_moe(**changes):
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "float32",
        "hidden_act": "silu", "vocab_size": 101, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 12, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "rope_scaling": None, "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": False,
        "attention_bias": False, "eos_token_id": [2, 3],
    } | changes


def mixtral(**changes):
    return {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "float32",
        "hidden_act": "silu", "vocab_size": 101, "hidden_size": 32, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None,
        "tie_word_embeddings": False, "router_jitter_noise": 0.0, "eos_token_id": 2,
    } | changes


LONG = (1, 9, 70)

SPECS = [
    Spec("olmoe_mha", olmoe()),
    Spec("olmoe_clip_gqa_norm", olmoe(clip_qkv=0.6, num_key_value_heads=2, num_experts=10, num_experts_per_tok=3,
                                      norm_topk_prob=True)),
    Spec("olmoe_top1_one_layer", olmoe(num_hidden_layers=1, num_experts=6, num_experts_per_tok=1, vocab_size=67)),
    Spec("olmoe_all_experts_tied", olmoe(num_experts=5, num_experts_per_tok=5, tie_word_embeddings=True)),
    Spec("olmoe_many_experts", olmoe(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, num_experts=64,
                                     num_experts_per_tok=8, intermediate_size=8, num_hidden_layers=1),
         stored_dtype="bfloat16", smallest_margin=5e-4),
    Spec("olmoe_transformers5", {key: value for key, value in olmoe(
        dtype="float32", rope_parameters={"rope_type": "default", "rope_theta": 500.0}).items()
        if key not in ("torch_dtype", "rope_theta", "clip_qkv")}, fused=True),
    Spec("olmoe_attention_bias", olmoe(attention_bias=True, num_hidden_layers=1), stored_dtype="bfloat16"),

    Spec("qwen2_shared_expert", qwen2_moe()),
    Spec("qwen2_dense_every_second", qwen2_moe(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3],
                                               num_key_value_heads=2, num_experts=6), stored_dtype="float16"),
    Spec("qwen2_norm_f16_sharded", qwen2_moe(norm_topk_prob=True, num_key_value_heads=1, num_experts_per_tok=3,
                                             torch_dtype="float16"),
         stored_dtype="float16", max_shard_bytes=24_000),
    Spec("qwen2_no_bias_odd_sizes", qwen2_moe(qkv_bias=False, hidden_size=36, num_attention_heads=6,
                                              num_key_value_heads=3, moe_intermediate_size=10,
                                              shared_expert_intermediate_size=14, vocab_size=83)),
    Spec("qwen2_all_experts_fused", qwen2_moe(num_experts=4, num_experts_per_tok=4), fused=True),

    Spec("qwen3_gqa", qwen3_moe()),
    Spec("qwen3_mqa_tied", qwen3_moe(num_key_value_heads=1, head_dim=6, hidden_size=40, norm_topk_prob=False,
                                     tie_word_embeddings=True, vocab_size=97, num_experts=10)),
    Spec("qwen3_no_head_dim", {key: value for key, value in qwen3_moe().items()
                               if key not in ("head_dim", "rope_scaling", "mlp_only_layers", "rms_norm_eps")}),
    Spec("qwen3_yarn", qwen3_moe(rope_theta=10000.0, rope_scaling={
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, max_position_embeddings=128),
         stored_dtype="bfloat16", lengths=LONG),
    Spec("qwen3_yarn_transformers5", {key: value for key, value in qwen3_moe(
        dtype="float32", max_position_embeddings=128, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
            "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.2}).items()
        if key not in ("torch_dtype", "rope_theta", "rope_scaling")}, stored_dtype="bfloat16", lengths=LONG),
    Spec("qwen3_dense_layer", qwen3_moe(num_hidden_layers=3, mlp_only_layers=[1], num_experts=6),
         stored_dtype="bfloat16"),
    Spec("qwen3_attention_bias", qwen3_moe(attention_bias=True, num_hidden_layers=1), stored_dtype="bfloat16"),
    Spec("qwen3_window", qwen3_moe(use_sliding_window=True, sliding_window=16, num_hidden_layers=1),
         stored_dtype="bfloat16", lengths=(1, 16, 17, 40)),
    Spec("qwen3_bf16_sharded_fused", qwen3_moe(torch_dtype="bfloat16"), stored_dtype="bfloat16", fused=True,
         max_shard_bytes=20_000),

    Spec("mixtral_gqa", mixtral()),
    Spec("mixtral_window", mixtral(sliding_window=16), stored_dtype="bfloat16", lengths=(1, 16, 17, 70)),
    Spec("mixtral_mqa_linear_rope", mixtral(num_key_value_heads=1, num_local_experts=6,
                                            rope_scaling={"type": "linear", "factor": 2.5}),
         stored_dtype="bfloat16", lengths=LONG),
    Spec("mixtral_llama3_rope", mixtral(head_dim=12, rope_theta=5000.0, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}), stored_dtype="bfloat16", lengths=LONG),
    Spec("mixtral_top1_one_layer", mixtral(num_hidden_layers=1, num_local_experts=3, num_experts_per_tok=1,
                                           vocab_size=33)),
    Spec("mixtral_one_expert", mixtral(num_local_experts=1, num_experts_per_tok=1, num_hidden_layers=1),
         lengths=(1, 12)),
    Spec("mixtral_fused_f16", mixtral(torch_dtype="float16"), stored_dtype="float16", fused=True),
]

# Computed in bfloat16 by the reference too.
SPECS += [Spec(f"{config['model_type']}_bf16_reference", config, stored_dtype="bfloat16", reference_dtype="bfloat16",
               lengths=(1, 4, 12, 20), smallest_margin=0.1, smallest_lead=0.02, branch_gain=0.4)
          for config in (olmoe(torch_dtype="bfloat16", num_experts=6), qwen2_moe(torch_dtype="bfloat16", num_experts=6),
                         qwen3_moe(torch_dtype="bfloat16", num_experts=6),
                         mixtral(torch_dtype="bfloat16", num_local_experts=4))]
