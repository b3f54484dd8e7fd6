"""cadre beside llama.cpp on the same random Mixture-of-Experts model, in one run.

Writes one model twice, as a Hugging Face folder and as GGUF with the same bfloat16 numbers (Qwen3-MoE layout), then
alternates the two engines, which of them is first too, and prints medians, ranges and ratios: of the prefill of one
prompt, and of decode steps of N sequences with distinct random tokens, one token and one row of logits for each.
Both run as many steps after as many known tokens with as many threads, and take the median step. Greedy tokens are
compared first, so that a speed is never quoted for a wrong answer; llama.cpp's are of one batch of all prompts. Random
weights have near-ties, between tokens and between experts, which the order of a sum decides: where the tokens differ,
the logits of both choices tell whether that was one.

  python3 tools/bench/compare_llama_cpp.py --preset tiny --batches 1,8,32 --engine-bench build/release/bin/engine_bench
  python3 tools/bench/compare_llama_cpp.py --preset olmoe-4 --quantize int8 --rounds 5

With --quantize, each engine makes its own weights from the same bfloat16 numbers, and each is compared with its own
bfloat16 run: how many of the first greedy tokens are the same. What differs:

  cadre      int8: one float32 scale for 128 inputs of a row (8.25 bits a weight); int4: one bfloat16 scale for 32
             (4.5 bits); made when the checkpoint is loaded. Activations are rounded to 8 bits, with a scale for 128
             inputs, before products with either.
  llama.cpp  int8 is Q8_0 (8.5 bits) and int4 is Q4_0 (4.5 bits), both with one float16 scale for 32 inputs; made by
             llama.cpp's own quantizer. Activations are rounded to 8 bits, with a scale for 32 inputs (256 for Q6_K).

  --quantize-parts   experts          attention                       head
  experts: cadre     int8, int4       bfloat16                        bfloat16
  llama.cpp          Q8_0, Q4_0       bfloat16                        bfloat16
  all: cadre         int8, int4       int8                            int8
  all-alike: cadre   int8, int4       int8, int4                      int8
  both: llama.cpp    Q8_0, Q4_0       Q8_0; with int4 Q4_0            Q8_0; with int4 Q6_K (Q8_0 where the hidden size
                                                                      is no multiple of 256), as its quantizer has it

Routers and norms are float32 in llama.cpp's file, and the embedding stays bfloat16 (its quantizer would take Q8_0 or
Q4_0; a step only looks up a row for each token).

In both modes llama.cpp keeps keys and values in float16 and decides itself on flash attention (its defaults), with a
part of the KV cache for each sequence. Development only: needs numpy, gguf and llama-cpp-python, the last one built
from source for this machine (CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python).
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import tempfile

import llama_cpp
import numpy as np

from cadre_engine import Cadre
from llama_cpp_engine import FILE_TYPES, LlamaCpp, quantize, tensor_types
from model_files import PRESETS, row_lengths, write_model

GREEDY_PROMPTS, GREEDY_TOKENS = 3, 16
QUANTIZED_ROW_MULTIPLE = 32  # a block of Q8_0 and of Q4_0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--layers", type=int, help="fewer layers than the preset, to fit memory")
    parser.add_argument("--quantize", choices=["none", *FILE_TYPES], default="none")
    parser.add_argument("--quantize-parts", choices=["experts", "all", "all-alike"], default="all")
    parser.add_argument("--batches", default="1", help="sequences that decode side by side, e.g. 1,8,32")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prompt; 0: none")
    parser.add_argument("--context", type=int, default=64, help="known tokens before decode, a multiple of 16")
    parser.add_argument("--steps", type=int, default=16, help="decode steps of a repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of a round, each with other tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine-bench", default="build/release/bin/engine_bench")
    parser.add_argument("--folder", help="where to write the models (kept); default: a temporary folder")
    parser.add_argument("extra", nargs="*", help="more flags for engine_bench, after --")
    args = parser.parse_args()
    args.batches = [int(n) for n in args.batches.split(",")]
    args.shape = dict(PRESETS[args.preset])
    args.shape["layers"] = args.layers or args.shape["layers"]
    for name, length in row_lengths(args.shape).items():
        if args.quantize != "none" and length % QUANTIZED_ROW_MULTIPLE != 0:
            parser.error(f"--quantize needs rows of a multiple of {QUANTIZED_ROW_MULTIPLE}; {name} is {length}")
    return args


def cadre_engine(args, folder, kind):
    return Cadre(args.engine_bench, folder, args.threads, kind, args.quantize_parts, args.extra)


def equal_tokens(a, b):
    """For each prompt: tokens before the first difference."""
    return [next((i for i, (x, y) in enumerate(zip(p, q)) if x != y), len(p)) for p, q in zip(a, b)]


def compare_greedy(args, folder, gguf_path):
    """Both engines in bfloat16. Returns the prompts, and the tokens of each engine."""
    vocab = args.shape["vocab"]
    prompts = [np.random.default_rng(seed).integers(3, vocab, 16).tolist() for seed in range(GREEDY_PROMPTS)]
    ours = cadre_engine(args, folder, "none").greedy(prompts, GREEDY_TOKENS)
    with contextlib.closing(LlamaCpp(gguf_path, args.threads, vocab)) as peer:
        theirs, logits = peer.greedy(prompts, GREEDY_TOKENS)
    equal = equal_tokens(ours, theirs)
    print(f"{args.preset:10} bf16 greedy, cadre and llama.cpp: {equal} of {GREEDY_TOKENS} tokens equal before the "
          "first difference")
    for p, i in enumerate(equal):
        if i < GREEDY_TOKENS:
            found = logits[p, i]
            print(f"{'':10} prompt {p}, token {i}: llama.cpp's logit of its own choice is {found[theirs[p][i]]:.3f}, "
                  f"that of cadre's is {found[ours[p][i]]:.3f}, the median of all is {np.median(found):.3f}")
    return prompts, ours, theirs


def compare_rounds(args, cadre, peer):
    """Each phase's rates, one a round, of cadre and of llama.cpp."""
    rates = {}
    for i in range(args.rounds):
        def run_cadre():
            return cadre.rates(args.prefill, args.batches, args.context, args.steps, args.repeats)

        def run_peer():
            found = {}
            if args.prefill > 0:
                found["prefill", 1] = peer.prefill_rate(args.prefill, args.repeats, i)
            for n in args.batches:
                found["decode", n] = peer.decode_rate(n, args.context, args.steps, args.repeats, i)
            return found

        if i % 2 == 0:
            ours, theirs = run_cadre(), run_peer()
        else:
            theirs, ours = run_peer(), run_cadre()
        for phase, rate in ours.items():
            rates.setdefault(phase, []).append((rate, theirs[phase]))
    return rates


def print_rates(args, rates):
    for (phase, batch), pairs in rates.items():
        ours, theirs = zip(*pairs)
        ratios = [a / b for a, b in pairs]
        print(f"{args.preset:10} {args.quantize:5} {phase:8} batch {batch:3}  "
              f"cadre {statistics.median(ours):8.1f} [{min(ours):.1f}-{max(ours):.1f}]  "
              f"llama.cpp {statistics.median(theirs):8.1f} [{min(theirs):.1f}-{max(theirs):.1f}]  "
              f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]")


def print_load(when):
    print(f"load average {when}: {' '.join(f'{x:.1f}' for x in os.getloadavg())}", flush=True)


def main():
    args = parse_arguments()
    llama_cpp.llama_log_set(silence, None)
    print(f"llama-cpp-python {llama_cpp.__version__}: {llama_cpp.llama_print_system_info().decode().strip(' |')}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        gguf_path = write_model(folder, args.shape)
        prompts, ours, theirs = compare_greedy(args, folder, gguf_path)
        cadre = cadre_engine(args, folder, args.quantize)
        if args.quantize != "none":
            parts = "experts" if args.quantize_parts == "experts" else "all"
            source, gguf_path = gguf_path, folder / f"model-{args.quantize}-{parts}.gguf"
            if not gguf_path.exists():
                quantize(source, gguf_path, args.quantize, parts, args.threads)
            print(f"{args.preset:10} {args.quantize} in llama.cpp's file: {tensor_types(gguf_path)}")
        with contextlib.closing(LlamaCpp(gguf_path, args.threads, args.shape["vocab"])) as peer:
            if args.quantize != "none":
                a = equal_tokens(ours, cadre.greedy(prompts, GREEDY_TOKENS))
                b = equal_tokens(theirs, peer.greedy(prompts, GREEDY_TOKENS)[0])
                print(f"{args.preset:10} {args.quantize} greedy, each beside its own bf16 run: cadre {a}, llama.cpp {b}"
                      f" of {GREEDY_TOKENS} tokens equal before the first difference")
            print_load("before")
            rates = compare_rounds(args, cadre, peer)
            print_load("after")
    print_rates(args, rates)


@llama_cpp.llama_log_callback
def silence(_level, _text, _user_data):
    """llama.cpp tells of every tensor; what fails raises."""


if __name__ == "__main__":
    main()
