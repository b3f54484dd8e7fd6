#!/usr/bin/env python3
"""Makes golden data: what Hugging Face transformers computes, for golden_test to compare with.

Needs Python 3.11 with torch, transformers and safetensors; the tests do not. README.md describes the files.

    python make_checkpoints.py                           all random checkpoints, into checkpoints/
    python make_checkpoints.py --only qwen3_yarn         one of them
    python make_checkpoints.py --model DIR               golden data for an existing checkpoint, into DIR
    python make_checkpoints.py --model DIR --out NEW     the same into NEW, with links to the files of DIR
"""

import argparse
import pathlib
import shutil

import reference
import specs
import weights


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="folder to write to")
    parser.add_argument("--only", help="name of the one random checkpoint to make")
    parser.add_argument("--model", type=pathlib.Path, help="folder of an existing checkpoint")
    parser.add_argument("--lengths", default="1,6,19,43", help="tokens of each prompt of --model (default 1,6,19,43)")
    parser.add_argument("--prompt", action="append", default=[], metavar="IDS",
                        help="token ids of a prompt of --model, separated by commas; repeatable (default: random ones)")
    parser.add_argument("--last", type=int, default=0, metavar="N",
                        help="keep the logits of the last N positions of each prompt (default: of all)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random prompts of --model (default 1)")
    return parser.parse_args()


def make_random_checkpoint(spec, out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    weights.write_checkpoint(spec, out)
    golden = reference.find_clear_golden(out, spec)
    golden.write(out)
    print(f"{out.name}: smallest router margin {golden.smallest_margin:.3g}, "
          f"{golden.num_positions} positions, {weights.folder_bytes(out)} bytes", flush=True)


def make_golden_of(arguments):
    model = reference.load(arguments.model, "float32")
    prompts = [[int(token) for token in prompt.split(",")] for prompt in arguments.prompt]
    if not prompts:
        lengths = [int(length) for length in arguments.lengths.split(",")]
        prompts = reference.random_prompts(lengths, model.config.get_text_config().vocab_size, arguments.seed)
    golden = reference.compute(model, prompts, arguments.last)
    out = arguments.model
    if arguments.out:
        out = arguments.out
        out.mkdir(parents=True)
        for file in arguments.model.iterdir():
            if file.name in reference.GOLDEN_FILES:
                continue
            (out / file.name).symlink_to(file.resolve())
    golden.write(out)
    print(f"{out}: smallest router margin {golden.smallest_margin:.3g}, {golden.num_positions} positions")


def main():
    arguments = parse_arguments()
    if arguments.model:
        make_golden_of(arguments)
        return
    out = arguments.out or pathlib.Path(__file__).parent / "checkpoints"
    for spec in specs.SPECS:
        if arguments.only in (None, spec.name):
            make_random_checkpoint(spec, out / spec.name)


if __name__ == "__main__":
    main()
