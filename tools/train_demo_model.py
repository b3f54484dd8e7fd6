#!/usr/bin/env python3
"""Makes models/demo: generates its text, trains tokenizer and weights on one CPU thread, and measures the result.

Needs Python 3.11 with torch, transformers, tokenizers and safetensors; nothing else in this repository does.

    python tools/train_demo_model.py --out models/demo --minutes 38
    python tools/train_demo_model.py --out models/demo --check
"""

import argparse
import pathlib
import time

import torch

from demo_model.evaluation import evaluate
from demo_model.model import CONFIG, load_model, new_model, save_model
from demo_model.tokenizer import train_tokenizer
from demo_model.training import PEAK_LEARNING_RATE, RESUME_LEARNING_RATE, train


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/demo"),
                        help="folder of the checkpoint (default models/demo)")
    parser.add_argument("--minutes", type=float, default=38.0, help="wall clock to spend on training (default 38)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the text and of the weights (default 7)")
    parser.add_argument("--resume", action="store_true", help="train the folder that is there further, more gently")
    parser.add_argument("--check", action="store_true", help="only evaluate the folder that is there")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    if not arguments.check:
        torch.manual_seed(arguments.seed)
        if arguments.resume:
            model, tokenizer = load_model(arguments.out)
            peak = RESUME_LEARNING_RATE
        else:
            model, tokenizer = new_model(), train_tokenizer(CONFIG["vocab_size"], arguments.seed)
            peak = PEAK_LEARNING_RATE
        print(f"{model.num_parameters()} parameters", flush=True)
        start = time.monotonic()
        num_tokens = train(model, tokenizer, arguments.minutes, arguments.seed, peak)
        print(f"trained on {num_tokens} tokens in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
        save_model(model, tokenizer, arguments.out)
    evaluate(arguments.out)


if __name__ == "__main__":
    main()
