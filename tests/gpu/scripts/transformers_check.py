"""cadre beside Hugging Face transformers, on the same checkpoint with random weights of a model's shape: logits of a
greedy continuation, and tokens per second of one sequence.

    transformers_check.py SHAPE_FOLDER [--layers N] [--device cuda] [--scratch FOLDER]

The logits of both in bfloat16 are compared with those of transformers in float32 at the same tokens. The median error
of ours may be twice that of its own: in a deep model of random weights that is the noise of bfloat16. Where the most
likely token leads by more than this noise, ours has to be the same.
Prints lines of JSON. Exit codes: 0 all is so, 1 it is not, 77 there is no PyTorch, no transformers or no GPU for them.
"""

import argparse
import array
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import random_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXIT_SKIPPED = 77
PROMPT_TOKENS, ANSWER_TOKENS, TIMED_TOKENS = 128, 48, 64
LARGEST_RATIO = 2.0  # of our error to theirs
NOISE = 1e-3  # relative errors below it are not told apart


def skip(why):
    print(f"transformers are not compared: {why}")
    sys.exit(EXIT_SKIPPED)


def run_engine(options, checkpoint, *arguments):
    command = [options.programs / "engine_bench", "--model", checkpoint, "--device", options.device, *arguments]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, check=False)
    if result.returncode != 0:
        print(f"{result.stdout}{result.stderr}engine_bench ended with code {result.returncode}")
        sys.exit(1)
    return result.stdout


def our_continuation(options, checkpoint, prompt, vocab):
    """(tokens, logits): the greedy continuation, and the logits that each token was chosen from."""
    with tempfile.NamedTemporaryFile(dir=options.scratch) as file:
        said = run_engine(options, checkpoint, "--greedy", ",".join(map(str, prompt)), "--steps", ANSWER_TOKENS,
                          "--logits", file.name)
        logits = array.array("f")
        logits.frombytes(pathlib.Path(file.name).read_bytes())
    tokens = [int(word) for word in said.split()]
    assert len(tokens) == ANSWER_TOKENS and len(logits) == ANSWER_TOKENS * vocab, "engine_bench said something else"
    return tokens, logits


def our_speed(options, checkpoint):
    said = run_engine(options, checkpoint, "--batches", "1", "--prefill", "0", "--context", PROMPT_TOKENS, "--steps",
                      TIMED_TOKENS, "--repeats", "3", "--json")
    return json.loads(said.splitlines()[-1])["tokens_per_second"]


def load(torch, transformers, checkpoint, device):
    options = {"torch_dtype" if int(transformers.__version__.split(".")[0]) < 5 else "dtype": torch.bfloat16}
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint, **options).to(device).eval()


def their_logits(torch, model, prompt, tokens, device):
    """At the same tokens: [ANSWER_TOKENS, V] in float32."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + tokens[:-1]], device=device)
        return model(ids).logits[0, len(prompt) - 1:].float()


def their_speed(torch, model, prompt, device):
    ids = torch.tensor([prompt], device=device)

    def seconds(count):
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=count,
                                     max_new_tokens=count, do_sample=False, pad_token_id=0)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
            assert out.shape[1] == len(prompt) + count
        return best

    seconds(2)
    return TIMED_TOKENS / (seconds(TIMED_TOKENS + 1) - seconds(1))


def relative_errors(logits, reference):
    return ((logits - reference).abs().amax(1) / reference.abs().amax(1)).sort().values


def compare(torch, name, ours, theirs, reference):
    """Prints the errors of both; whether ours are small enough."""
    our_errors, their_errors = relative_errors(ours, reference), relative_errors(theirs, reference)
    middle = len(our_errors) // 2
    top = reference.topk(2, dim=1).values
    # Where the best token leads by more than bfloat16 moves theirs anywhere, ours has to be the same.
    clear = (top[:, 0] - top[:, 1]) > 2.0 * (theirs - reference).abs().max()
    agree = ours.argmax(1) == reference.argmax(1)
    print(json.dumps({"model": name, "positions": len(agree), "our_error_median": our_errors[middle].item(),
                      "our_error_max": our_errors[-1].item(), "their_error_median": their_errors[middle].item(),
                      "their_error_max": their_errors[-1].item(), "best_token_agrees": int(agree.sum()),
                      "of_clear_ones": f"{int((agree & clear).sum())} of {int(clear.sum())}"}), flush=True)
    if not bool(torch.isfinite(ours).all()):
        print("our logits are not finite")
        return False
    if our_errors[middle] > LARGEST_RATIO * their_errors[middle] + NOISE:
        print(f"our median error is more than {LARGEST_RATIO} times that of transformers in bfloat16")
        return False
    if bool((clear & ~agree).any()):
        print("the most likely token differs where it is clear")
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=pathlib.Path, help="a folder with config.json")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "bin")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint for the next check")
    options = parser.parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        skip(error)
    if options.device == "cuda" and not torch.cuda.is_available():
        skip("PyTorch sees no GPU")
    checkpoint = options.scratch / options.shape.name
    random_checkpoint.write(options.shape, checkpoint, options.layers)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    try:
        draw = random.Random(11)
        prompt = [draw.randrange(config["vocab_size"]) for _ in range(PROMPT_TOKENS)]
        # The engine first: its process gives the GPU's memory back.
        tokens, logits = our_continuation(options, checkpoint, prompt, config["vocab_size"])
        ours_per_second = our_speed(options, checkpoint)
        model = load(torch, transformers, checkpoint, options.device)
        ours = torch.tensor(logits, dtype=torch.float32).view(ANSWER_TOKENS, -1).to(options.device)
        theirs_per_second = their_speed(torch, model, prompt, options.device)
        how = model.config._experts_implementation if hasattr(model, "set_experts_implementation") else "its only one"
        if hasattr(model, "set_experts_implementation"):
            model.set_experts_implementation("eager")  # others copy weights for each row
        theirs = their_logits(torch, model, prompt, tokens, options.device)
        reference = their_logits(torch, model.float(), prompt, tokens, options.device)
    finally:
        if not options.keep:
            shutil.rmtree(checkpoint, ignore_errors=True)
    name = options.shape.name
    is_near = compare(torch, name, ours, theirs, reference)
    print(json.dumps({"model": name, "layers": config["num_hidden_layers"], "batch": 1, "context": PROMPT_TOKENS,
                      "our_tokens_per_second": round(ours_per_second, 1),
                      "their_tokens_per_second": round(theirs_per_second, 1),
                      "ratio": round(ours_per_second / theirs_per_second, 2), "their_experts": how,
                      "torch": torch.__version__, "transformers": transformers.__version__}), flush=True)
    return 0 if is_near else 1


if __name__ == "__main__":
    sys.exit(main())
