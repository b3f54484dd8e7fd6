"""Random weights under the names of each family, written as safetensors."""

import json
import math
import zlib

import torch
from safetensors.torch import save_file

MIXTRAL_MLP = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


class TensorMaker:
    """Normal values, scaled so that the residual stream stays near 1, logits too, and router choices are clear."""

    def __init__(self, spec):
        self.generator = torch.Generator().manual_seed(zlib.crc32(spec.name.encode()))
        self.dtype = getattr(torch, spec.stored_dtype)
        self.branch_gain = spec.branch_gain
        self.tensors = {}

    def add(self, name, shape, mean=0.0, deviation=1.0):
        values = torch.randn(shape, generator=self.generator) * deviation + mean
        self.tensors[name] = values.to(self.dtype)

    def matrix(self, name, outputs, inputs, gain=1.0):
        self.add(name, (outputs, inputs), deviation=gain / math.sqrt(inputs))

    def norm(self, name, width):
        self.add(name, (width,), mean=1.0, deviation=0.2)

    def mlp(self, prefix, hidden, ffn, names=None):
        names = names or {}
        self.matrix(f"{prefix}.{names.get('gate_proj', 'gate_proj')}.weight", ffn, hidden, gain=1.5)
        self.matrix(f"{prefix}.{names.get('up_proj', 'up_proj')}.weight", ffn, hidden, gain=1.5)
        self.matrix(f"{prefix}.{names.get('down_proj', 'down_proj')}.weight", hidden, ffn, gain=1.5 * self.branch_gain)


def is_moe_layer(config, layer):
    if layer in (config.get("mlp_only_layers") or []):
        return False
    return (layer + 1) % config.get("decoder_sparse_step", 1) == 0


def add_attention(maker, config, layer):
    family, hidden = config["model_type"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    widths = {"q": config["num_attention_heads"] * head_dim, "k": config["num_key_value_heads"] * head_dim,
              "v": config["num_key_value_heads"] * head_dim}
    prefix = f"model.layers.{layer}.self_attn"
    for name, width in widths.items():
        maker.matrix(f"{prefix}.{name}_proj.weight", width, hidden, gain=1.5)
        if config.get("attention_bias") or family == "qwen2_moe" and config.get("qkv_bias", True):
            maker.add(f"{prefix}.{name}_proj.bias", (width,), deviation=0.5)
    maker.matrix(f"{prefix}.o_proj.weight", hidden, widths["q"], gain=maker.branch_gain)
    if config.get("attention_bias"):
        maker.add(f"{prefix}.o_proj.bias", (hidden,), deviation=0.5)
    if family == "olmoe":
        maker.norm(f"{prefix}.q_norm.weight", widths["q"])
        maker.norm(f"{prefix}.k_norm.weight", widths["k"])
    if family == "qwen3_moe":
        maker.norm(f"{prefix}.q_norm.weight", head_dim)
        maker.norm(f"{prefix}.k_norm.weight", head_dim)


def add_experts(maker, config, layer, fused):
    family, hidden = config["model_type"], config["hidden_size"]
    num_experts = config.get("num_experts") or config["num_local_experts"]
    ffn = config.get("moe_intermediate_size") or config["intermediate_size"]
    prefix = f"model.layers.{layer}.mlp"
    if family == "mixtral" and not fused:
        prefix = f"model.layers.{layer}.block_sparse_moe"
    maker.matrix(f"{prefix}.gate.weight", num_experts, hidden, gain=3.0)
    if fused:
        maker.add(f"{prefix}.experts.gate_up_proj", (num_experts, 2 * ffn, hidden), deviation=1.5 / math.sqrt(hidden))
        maker.add(f"{prefix}.experts.down_proj", (num_experts, hidden, ffn),
                  deviation=1.5 * maker.branch_gain / math.sqrt(ffn))
    else:
        for expert in range(num_experts):
            maker.mlp(f"{prefix}.experts.{expert}", hidden, ffn, MIXTRAL_MLP if family == "mixtral" else None)
    if family == "qwen2_moe":
        maker.mlp(f"{prefix}.shared_expert", hidden, config["shared_expert_intermediate_size"])
        maker.matrix(f"{prefix}.shared_expert_gate.weight", 1, hidden, gain=2.0)


def random_tensors(spec):
    config, hidden = spec.config, spec.config["hidden_size"]
    maker = TensorMaker(spec)
    maker.add("model.embed_tokens.weight", (config["vocab_size"], hidden))
    for layer in range(config["num_hidden_layers"]):
        maker.norm(f"model.layers.{layer}.input_layernorm.weight", hidden)
        add_attention(maker, config, layer)
        maker.norm(f"model.layers.{layer}.post_attention_layernorm.weight", hidden)
        if is_moe_layer(config, layer):
            add_experts(maker, config, layer, spec.fused)
        else:
            maker.mlp(f"model.layers.{layer}.mlp", hidden, config["intermediate_size"])
    maker.norm("model.norm.weight", hidden)
    if not config["tie_word_embeddings"]:
        maker.matrix("lm_head.weight", config["vocab_size"], hidden)
    return maker.tensors


def split_into_shards(tensors, max_bytes):
    shards = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def write_checkpoint(spec, out):
    (out / "config.json").write_text(json.dumps(spec.config, indent=2) + "\n")
    tensors = random_tensors(spec)
    if not spec.max_shard_bytes:
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return
    shards = split_into_shards(tensors, spec.max_shard_bytes)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, out / file_name, metadata={"format": "pt"})
        weight_map |= {name: file_name for name in shard}
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def folder_bytes(folder):
    return sum(file.stat().st_size for file in folder.iterdir())
