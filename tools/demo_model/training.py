"""The training loop: rows of whole documents, AdamW, a warm-up and a cosine, two router losses."""

import math
import random
import re
import time

import torch
import torch.nn.functional as F

from demo_model.corpus import END_OF_TEXT, Corpus

ROWS = 8
ROW_TOKENS = 384
PEAK_LEARNING_RATE = 4e-3
RESUME_LEARNING_RATE = 1e-3
FINAL_LEARNING_RATE = 3e-5
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.1
# Large enough that no expert dies, small enough that the experts may divide the domains among themselves.
BALANCE_LOSS_WEIGHT = 0.01
Z_LOSS_WEIGHT = 0.001
LOG_EVERY_STEPS = 100
# A prompt may stop where the tokenizer would not: "def add(" ends inside the token "(a" of the text. So a few documents
# are cut after an opening mark and tokenized in pieces, as a prompt and its continuation are.
OPENING_MARK = re.compile(r'(?<=[(\["{«])')
CUT_PROBABILITY = 0.15


class RowSource:
    """Rows of ROW_TOKENS + 1 ids. Each begins at the start of a document, as a prompt does, and cuts its last one."""

    def __init__(self, tokenizer, seed):
        self._tokenizer = tokenizer
        self._corpus = Corpus(seed)
        self._rng = random.Random(seed)
        self._end_id = tokenizer.token_to_id(END_OF_TEXT)

    def _encode(self, text):
        ids, start = [], 0
        cuts = [match.start() for match in OPENING_MARK.finditer(text) if self._rng.random() < CUT_PROBABILITY]
        for cut in cuts + [len(text)]:
            ids += self._tokenizer.encode(text[start:cut]).ids
            start = cut
        return ids

    def _row(self):
        ids = []
        while len(ids) <= ROW_TOKENS:
            _, text = self._corpus.mixed()
            ids += self._encode(text) + [self._end_id]
        return ids[:ROW_TOKENS + 1]

    def batch(self):
        return torch.tensor([self._row() for _ in range(ROWS)])


def router_losses(router_logits, num_chosen):
    """(balance, z) averaged over layers. balance = E * sum_e f_e * p_e, which is 1 when all experts are used alike."""
    balance = z = 0.0
    for logits in router_logits:
        probabilities = logits.softmax(dim=-1)
        chosen = probabilities.topk(num_chosen, dim=-1).indices
        num_experts = logits.shape[-1]
        load = torch.bincount(chosen.flatten(), minlength=num_experts) / chosen.numel()
        balance = balance + num_experts * (load * probabilities.mean(dim=0)).sum()
        z = z + logits.logsumexp(dim=-1).square().mean()
    return balance / len(router_logits), z / len(router_logits)


def learning_rate(step, progress, peak):
    """A linear warm-up, then a cosine over `progress`, the share of the training time that has passed."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    rate = FINAL_LEARNING_RATE + (peak - FINAL_LEARNING_RATE) * cosine
    return rate * min(1.0, (step + 1) / WARMUP_STEPS)


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def train(model, tokenizer, minutes, seed, peak):
    """Trains in place for so many minutes of wall clock, from the learning rate `peak` down; returns tokens seen."""
    source = RowSource(tokenizer, seed)
    optimizer = make_optimizer(model)
    model.train()
    start = time.monotonic()
    step = 0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress, peak)
        batch = source.batch()
        output = model(input_ids=batch[:, :-1], output_router_logits=True, use_cache=False)
        text_loss = F.cross_entropy(output.logits.flatten(0, 1), batch[:, 1:].flatten())
        balance, z = router_losses(output.router_logits, model.config.num_experts_per_tok)
        loss = text_loss + BALANCE_LOSS_WEIGHT * balance + Z_LOSS_WEIGHT * z
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % LOG_EVERY_STEPS == 0:
            tokens_per_s = step * ROWS * ROW_TOKENS / (time.monotonic() - start)
            print(f"step {step}  {progress:6.1%}  loss {text_loss.item():.3f}  balance {balance.item():.3f}  "
                  f"z {z.item():.2f}  {tokens_per_s:.0f} tokens/s", flush=True)
    return step * ROWS * ROW_TOKENS
