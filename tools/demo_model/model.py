"""The shape of the demo model, and how it is written to disk."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from demo_model.tokenizer import save_tokenizer

# Written to config.json as it stands: the layout of the published Qwen3-MoE checkpoints.
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 2048,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-06,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "sliding_window": None,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}
GENERATION_CONFIG = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.9,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def new_model():
    """An untrained model in float32."""
    settings = {name: value for name, value in CONFIG.items() if name not in ("torch_dtype", "architectures")}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings))


def load_model(folder):
    """(model in float32, tokenizer) of a saved folder, to be trained further."""
    model = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def checkpoint_tensors(model):
    """The weights under the names of published checkpoints: one gate, up and down matrix per expert, no tied head."""
    tensors = {}
    for name, weight in model.state_dict().items():
        weight = weight.detach().to(torch.bfloat16)
        if name == "lm_head.weight":
            continue
        if name.endswith("experts.gate_up_proj"):
            gates, ups = weight.chunk(2, dim=1)
            for expert in range(weight.shape[0]):
                prefix = f"{name.removesuffix('gate_up_proj')}{expert}"
                tensors[f"{prefix}.gate_proj.weight"] = gates[expert].clone()
                tensors[f"{prefix}.up_proj.weight"] = ups[expert].clone()
        elif name.endswith("experts.down_proj"):
            for expert in range(weight.shape[0]):
                prefix = f"{name.removesuffix('down_proj')}{expert}"
                tensors[f"{prefix}.down_proj.weight"] = weight[expert].clone()
        else:
            tensors[name] = weight.contiguous()
    return tensors


def save_model(model, tokenizer, folder):
    """Writes the five files of a Hugging Face checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(checkpoint_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it readable by its owner alone
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG, indent=2) + "\n")
    save_tokenizer(tokenizer, CONFIG["max_position_embeddings"], folder)
