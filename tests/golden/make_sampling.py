#!/usr/bin/env python3
"""Writes sampling.jsonl: rows of logits, options and the tokens that they lead to, computed with NumPy.

Written from the definitions that users know from vLLM (masks, bias, penalties, temperature, min_p, top_k, top_p) and
from the Philox paper, not from cadre's code. Needs numpy:

    python3 tests/golden/make_sampling.py > tests/golden/sampling.jsonl
"""
import json
import sys

import numpy as np

NUM_CASES = 300
NUM_SEEDS = 6
# How near a number may be to where rounding decides, relative.
MARGIN = 1e-7


def philox_4x32(counter, key):
    """Ten rounds of Philox4x32: Salmon et al. 2011."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return c


# Known answers of the authors' Random123.
assert philox_4x32([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox_4x32([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def uniform(seed, sequence, index):
    words = philox_4x32([index % (1 << 32), index >> 32, sequence, 0], [seed % (1 << 32), seed >> 32])
    return ((words[1] << 32 | words[0]) >> 11) * 2.0**-53


def edited(case):
    """The row behind masks, bias and penalties, in float32."""
    p, row = case["params"], np.array(case["logits"], dtype=np.float32)
    ending = set(p["stop_token_ids"]) | (set() if p["ignore_eos"] else set(case["eos"]))
    masked = np.zeros(len(row), dtype=bool)
    if p["allowed_token_ids"]:
        masked[:] = True
        masked[p["allowed_token_ids"]] = False
    if len(case["output"]) < p["min_tokens"]:
        masked[list(ending)] = True
    row[masked] = -np.inf
    for token, bias in p["logit_bias"]:
        row[token] += np.float32(bias)
    counts = np.bincount(case["output"], minlength=len(row))
    seen = counts > 0
    seen[case["prompt"]] = True
    repetition = np.float32(p["repetition_penalty"])
    row[seen] = np.where(row[seen] > 0, row[seen] / repetition, row[seen] * repetition)
    out = counts > 0
    row[out] -= counts[out].astype(np.float32) * np.float32(p["frequency_penalty"])
    row[out] -= np.float32(p["presence_penalty"])
    return row


def distribution(row, p):
    """Probabilities of the tokens that the filters leave; None where rounding could decide."""
    if p["temperature"] == 0:
        return np.eye(len(row))[int(np.argmax(row))]
    logits = row.astype(np.float64)
    weights = np.exp((logits - logits.max()) / np.float64(np.float32(p["temperature"])))
    min_p = np.float64(np.float32(p["min_p"]))
    if np.any(np.abs(weights - min_p) < MARGIN * min_p):
        return None
    weights[weights < min_p] = 0
    order = np.lexsort((np.arange(len(row)), -logits))
    if p["top_k"] > 0:
        weights[order[p["top_k"]:]] = 0
    weights /= weights.sum()
    if p["top_p"] < 1:
        before = np.concatenate(([0.0], np.cumsum(weights[order])[:-1]))
        top_p = np.float64(np.float32(p["top_p"]))
        if np.any(np.abs(before - top_p) < MARGIN):
            return None
        weights[order[before >= top_p]] = 0
    return weights / weights.sum()


def draw(probabilities, u):
    bounds = np.cumsum(probabilities)
    if np.any(np.abs(bounds[:-1] - u) < MARGIN):
        return None
    return int(np.argmax(bounds > u))


def described(logits, token, count):
    """Log probability and rank of `token`, and the most likely tokens, of the row as the model computed it."""
    z = np.array(logits, dtype=np.float32).astype(np.float64)
    logprobs = z - z.max() - np.log(np.exp(z - z.max()).sum())
    order = np.lexsort((np.arange(len(z)), -z))
    return {"logprob": round(logprobs[token], 6), "rank": int(np.nonzero(order == token)[0][0]) + 1,
            "top": [[int(i), round(logprobs[i], 6)] for i in order[:count]]}


def pick(random, *values):
    return values[random.integers(len(values))]


def some_ids(random, size, most):
    return sorted({int(i) for i in random.integers(size, size=random.integers(most + 1))})


def make_case(random):
    size = int(pick(random, 1, 2, 9, 40, 90))
    logits = random.normal(scale=pick(random, 0.5, 2.0, 8.0), size=size)
    if random.integers(3) == 0:  # ties, as in bfloat16
        logits = np.round(logits * 2) / 2
    off = random.integers(2, size=12) == 0  # each option is unset half of the time
    params = {
        "temperature": pick(random, 0.0, 0.2, 0.7, 1.0, 1.0, 2.5),
        "top_k": 0 if off[0] else int(pick(random, 1, 2, 5, 30, 1000)),
        "top_p": 1.0 if off[1] else pick(random, 0.99, 0.9, 0.5, 0.01),
        "min_p": 0.0 if off[2] else pick(random, 0.01, 0.1, 0.5, 0.999),
        "repetition_penalty": 1.0 if off[3] else pick(random, 0.5, 1.1, 1.8),
        "frequency_penalty": 0.0 if off[4] else pick(random, -0.7, 0.3, 2.0),
        "presence_penalty": 0.0 if off[5] else pick(random, -1.3, 0.4, 2.0),
        "logit_bias": [] if off[6] else [[i, pick(random, -100.0, -6.5, -1.5, 0.75, 4.0, 100.0)]
                                         for i in some_ids(random, size, 5)],
        "allowed_token_ids": [] if off[7] else some_ids(random, size, 20),
        "stop_token_ids": [] if off[8] else some_ids(random, size, 3),
        "min_tokens": 0 if off[9] else int(random.integers(6)),
        "ignore_eos": bool(random.integers(2)),
    }
    return {"logits": [round(float(z), 3) for z in logits], "params": params,
            "prompt": [int(i) for i in random.integers(size, size=random.integers(1, 8))],
            "output": [int(i) for i in random.integers(size, size=random.integers(8))],
            "eos": some_ids(random, size, 2), "sequence": int(random.integers(128))}


def solve(case, random):
    """Adds what is expected; False when nothing is left to choose, or rounding could decide."""
    row = edited(case)
    if np.all(np.isneginf(row)):
        return False
    probabilities = distribution(row, case["params"])
    if probabilities is None:
        return False
    draws = []
    for _ in range(NUM_SEEDS):
        seed = int(random.integers(1 << 63)) * 2 + int(random.integers(2))
        token = draw(probabilities, uniform(seed, case["sequence"], len(case["output"])))
        if token is None:
            return False
        draws.append([seed, token])
    case["draws"] = draws
    touched = sorted({i for i, _ in case["params"]["logit_bias"]} | set(case["prompt"]) | set(case["output"]))
    # JSON has no infinity.
    case["edited"] = [[i, None if np.isneginf(row[i]) else float(row[i])] for i in touched]
    case["described"] = described(case["logits"], draws[0][1], 5)
    return True


def main():
    random = np.random.default_rng(20)
    num_written = 0
    while num_written < NUM_CASES:
        case = make_case(random)
        if not solve(case, random):
            continue
        sys.stdout.write(json.dumps(case, separators=(",", ":")) + "\n")
        num_written += 1


if __name__ == "__main__":
    main()
