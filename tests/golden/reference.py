"""What Hugging Face transformers computes for a checkpoint: logits, and the experts that the router chose."""

import dataclasses
import json

import numpy
import torch
import transformers

FORMAT = 1
GOLDEN_FILES = ("golden.json", "golden_logits.f32")


def load(folder, dtype):
    """Eager attention and one expert after the other: the plainest path that transformers has."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config._experts_implementation = "eager"
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=getattr(torch, dtype), attn_implementation="eager", output_loading_info=True)
    problems = {name: keys for name, keys in report.items() if keys}
    if problems:
        raise SystemExit(f"{folder}: {problems}")
    model.requires_grad_(False)
    return model.eval()


@dataclasses.dataclass
class Prompt:
    tokens: list
    logit_positions: list
    logits: numpy.ndarray        # [positions, V] float32
    expert_ids: numpy.ndarray    # [MoE layers, n, K], rising
    smallest_margin: float

    def keep_positions(self, keep):
        self.logits = self.logits[keep]
        self.logit_positions = [position for position, kept in zip(self.logit_positions, keep) if kept]

    def greedy_leads(self):
        """By how much the greedy token of each position leads, as a share of the largest magnitude."""
        ranked = numpy.sort(self.logits, axis=-1)
        return (ranked[:, -1] - ranked[:, -2]) / numpy.abs(self.logits).max(axis=-1)

    def errors(self, exact):
        return numpy.abs(self.logits - exact.logits).max(axis=-1) / numpy.abs(exact.logits).max(axis=-1)


@dataclasses.dataclass
class Golden:
    dtype: str
    vocab_size: int
    prompts: list

    @property
    def smallest_margin(self):
        return min(prompt.smallest_margin for prompt in self.prompts)

    @property
    def num_positions(self):
        return sum(len(prompt.logit_positions) for prompt in self.prompts)

    def write(self, folder):
        document = {
            "format": FORMAT,
            "reference": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
            "reference_dtype": self.dtype,
            "vocab_size": self.vocab_size,
            "prompts": [{"tokens": prompt.tokens, "logit_positions": prompt.logit_positions,
                         "expert_ids": prompt.expert_ids.tolist()} for prompt in self.prompts],
        }
        (folder / GOLDEN_FILES[0]).write_text(json.dumps(document, separators=(",", ":")) + "\n")
        logits = numpy.concatenate([prompt.logits.reshape(-1) for prompt in self.prompts])
        logits.astype("<f4").tofile(folder / GOLDEN_FILES[1])


class RouterProbe:
    """Listens to the router of every MoE layer."""

    def __init__(self, model):
        text_config = model.config.get_text_config()
        self.top_k = text_config.num_experts_per_tok
        self.logits = []
        self.choices = []
        self.hooks = [module.register_forward_hook(self.record) for name, module in model.named_modules()
                      if name.endswith((".mlp.gate", ".block_sparse_moe.gate"))]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def record(self, _module, _inputs, output):
        # A router that returns (logits, weights, ids), or a plain linear layer whose caller chooses.
        logits = output[0] if isinstance(output, tuple) else output
        logits = logits.float().reshape(-1, logits.shape[-1])
        chosen = output[2] if isinstance(output, tuple) else torch.topk(logits, self.top_k, dim=-1).indices
        self.logits.append(logits)
        self.choices.append(chosen.reshape(-1, self.top_k).sort(dim=-1).values)

    def take(self):
        logits, choices = torch.stack(self.logits), torch.stack(self.choices)
        self.logits, self.choices = [], []
        return logits, choices

    def smallest_margin(self, logits):
        if logits.shape[-1] == self.top_k:
            return float("inf")
        ranked = logits.sort(dim=-1, descending=True).values
        return float((ranked[..., self.top_k - 1] - ranked[..., self.top_k]).min())


def random_prompts(lengths, vocab_size, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def compute(model, prompts, last=0):
    """Keeps the logits of the last `last` positions of each prompt; of all with 0."""
    results = []
    with RouterProbe(model) as probe:
        for tokens in prompts:
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
            router_logits, choices = probe.take()
            first = max(0, len(tokens) - last) if last else 0
            results.append(Prompt(tokens=tokens, logit_positions=list(range(first, len(tokens))),
                                  logits=logits[first:], expert_ids=choices.numpy(),
                                  smallest_margin=probe.smallest_margin(router_logits)))
    dtype = str(model.dtype).removeprefix("torch.")
    return Golden(dtype=dtype, vocab_size=model.config.get_text_config().vocab_size, prompts=results)


def find_clear_golden(folder, spec, attempts=2000):
    """Random prompts whose router choices are no near-ties, each length found on its own."""
    model = load(folder, spec.reference_dtype)
    exact_model = load(folder, "float32")
    vocab_size = model.config.get_text_config().vocab_size
    prompts = []
    seed = 0
    for length in spec.lengths:
        for seed in range(seed + 1, seed + 1 + attempts):
            [found] = compute(model, random_prompts([length], vocab_size, seed)).prompts
            if found.smallest_margin >= spec.smallest_margin:
                break
        else:
            raise SystemExit(f"{spec.name}: no prompt of {length} tokens has margins of {spec.smallest_margin}")
        [exact] = compute(exact_model, [found.tokens]).prompts
        found.keep_positions((found.greedy_leads() >= spec.smallest_lead) &
                             (found.errors(exact) <= spec.largest_reference_error))
        prompts.append(found)
    return Golden(dtype=spec.reference_dtype, vocab_size=vocab_size, prompts=prompts)
