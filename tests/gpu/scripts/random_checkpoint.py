"""Writes a checkpoint with random bfloat16 weights of a model's shape: config.json, model.safetensors, and the
tokenizer of another model, whose vocabulary has to be no larger. Python's standard library alone.

    random_checkpoint.py SHAPE_FOLDER TARGET_FOLDER [--layers N] [--tokenizer FOLDER]
"""

import argparse
import array
import json
import math
import pathlib
import random
import shutil
import struct
import sys

# Odd: rows whose width is a power of two do not begin at the same value again for as many rows.
RUN_LENGTH = (1 << 20) + 7
ROUTER_GAIN = 2.0
SMALL_DEVIATION = 0.1  # of norms
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def tensors(config):
    """(name, shape, mean, deviation) of every tensor, named as transformers saves them. The model types with neither
    shared experts, biases nor dense layers: olmoe, qwen3_moe and mixtral."""
    kind, hidden = config["model_type"], config["hidden_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q_width, kv_width = heads * head_dim, config["num_key_value_heads"] * head_dim
    is_mixtral = kind == "mixtral"
    experts = config["num_local_experts" if is_mixtral else "num_experts"]
    ffn = config["moe_intermediate_size" if kind == "qwen3_moe" else "intermediate_size"]
    if kind not in ("olmoe", "qwen3_moe", "mixtral"):
        raise ValueError(f"model_type {kind!r} is not one that this script knows")

    def matrix(name, outputs, inputs, gain=1.0):
        return name, [outputs, inputs], 0.0, gain / math.sqrt(inputs)

    def norm(name, width):
        return name, [width], 1.0, SMALL_DEVIATION

    yield matrix("model.embed_tokens.weight", config["vocab_size"], hidden, math.sqrt(hidden))
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}."
        yield norm(base + "input_layernorm.weight", hidden)
        yield matrix(base + "self_attn.q_proj.weight", q_width, hidden)
        yield matrix(base + "self_attn.k_proj.weight", kv_width, hidden)
        yield matrix(base + "self_attn.v_proj.weight", kv_width, hidden)
        yield matrix(base + "self_attn.o_proj.weight", hidden, q_width)
        if not is_mixtral:
            yield norm(base + "self_attn.q_norm.weight", head_dim if kind == "qwen3_moe" else q_width)
            yield norm(base + "self_attn.k_norm.weight", head_dim if kind == "qwen3_moe" else kv_width)
        yield norm(base + "post_attention_layernorm.weight", hidden)
        module = base + ("block_sparse_moe" if is_mixtral else "mlp")
        yield matrix(module + ".gate.weight", experts, hidden, ROUTER_GAIN)
        gate, up, down = ("w1", "w3", "w2") if is_mixtral else ("gate_proj", "up_proj", "down_proj")
        for expert in range(experts):
            yield matrix(f"{module}.experts.{expert}.{gate}.weight", ffn, hidden)
            yield matrix(f"{module}.experts.{expert}.{up}.weight", ffn, hidden)
            yield matrix(f"{module}.experts.{expert}.{down}.weight", hidden, ffn)
    yield norm("model.norm.weight", hidden)
    if not config.get("tie_word_embeddings"):
        yield matrix("lm_head.weight", config["vocab_size"], hidden)


class Run:
    """One run of normal values, scaled as tensors need it, as the bytes of bfloat16."""

    def __init__(self, seed):
        gauss = random.Random(seed).gauss
        self.values = [gauss(0.0, 1.0) for _ in range(RUN_LENGTH)]
        self.scaled = {}
        self.next = 0

    def bytes_of(self, mean, deviation):
        key = (mean, deviation)
        if key not in self.scaled:
            floats = array.array("f", (mean + deviation * value for value in self.values))
            if sys.byteorder == "big":
                floats.byteswap()
            raw = floats.tobytes()
            cut = bytearray(2 * RUN_LENGTH)  # the upper half of each float32: rounded towards zero
            cut[0::2], cut[1::2] = raw[2::4], raw[3::4]
            self.scaled[key] = memoryview(bytes(cut))
        return self.scaled[key]

    def write(self, file, count, mean, deviation):
        """The next `count` values."""
        data = self.bytes_of(mean, deviation)
        while count > 0:
            now = min(count, RUN_LENGTH - self.next)
            file.write(data[2 * self.next:2 * (self.next + now)])
            self.next = (self.next + now) % RUN_LENGTH
            count -= now
        self.next = (self.next + 1) % RUN_LENGTH


def header_of(entries):
    header, end = {}, 0
    for name, shape, _, _ in entries:
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return text + b" " * (-len(text) % 8), end


def write(shape: pathlib.Path, target: pathlib.Path, layers=None, tokenizer=None, seed=1):
    """Writes the checkpoint; returns its bytes of weights. A checkpoint that is there and whole is left."""
    config = json.loads((shape / "config.json").read_text(encoding="utf-8"))
    if layers is not None:
        config["num_hidden_layers"] = min(layers, config["num_hidden_layers"])
    entries = list(tensors(config))
    header, size = header_of(entries)
    target.mkdir(parents=True, exist_ok=True)
    weights, text = target / "model.safetensors", json.dumps(config, indent=1) + "\n"
    if not is_whole(target, text, 8 + len(header) + size):
        run = Run(seed)
        partial = weights.with_suffix(".partial")
        with open(partial, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for _, dims, mean, deviation in entries:
                run.write(file, math.prod(dims), mean, deviation)
        (target / "config.json").write_text(text, encoding="utf-8")
        partial.rename(weights)
    for name in TOKENIZER_FILES if tokenizer else ():
        if (pathlib.Path(tokenizer) / name).is_file():
            shutil.copy(pathlib.Path(tokenizer) / name, target)
    return size


def is_whole(target, config_text, size):
    weights, config = target / "model.safetensors", target / "config.json"
    return (weights.is_file() and weights.stat().st_size == size and config.is_file() and
            config.read_text(encoding="utf-8") == config_text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=pathlib.Path, help="a folder with config.json")
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--layers", type=int, help="so many of the model's layers, from the first")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="a folder with tokenizer.json")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    size = write(arguments.shape, arguments.target, arguments.layers, arguments.tokenizer, arguments.seed)
    print(f"{arguments.target}: {size / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
