"""What was designed for, beside what was measured. A goal that is missed fails no check: it says where work is left."""

import dataclasses

QWEN, OLMOE = "qwen3-30b-a3b", "olmoe-1b-7b"


@dataclasses.dataclass(frozen=True)
class Goal:
    what: str
    section: str
    entry: dict  # what a measurement of the section has to say of itself
    key: str  # its number that counts
    least: float


def _moe(tokens, least):
    return Goal(f"MoE layer, {QWEN}, {tokens} tokens: share of its bound", "kernels",
                {"kernel": "moe", "shape": QWEN, "tokens": tokens}, "share", least)


def _step(batch, least):
    return Goal(f"decode step, {QWEN}, {batch} sequences: share of its bound", "engine",
                {"phase": "decode", "model": QWEN, "batch": batch}, "share", least)


GOALS = [
    _moe(8, 0.75),
    _moe(32, 0.82),
    _moe(64, 0.82),
    _moe(4096, 0.50),
    Goal(f"decode attention, {OLMOE}, 128 sequences: share of its bound", "kernels",
         {"kernel": "decode", "shape": OLMOE, "sequences": 128}, "share", 0.80),
    Goal(f"sampling, {QWEN}, 128 sequences, top_k 50, top_p 0.9: share of one reading of the logits", "kernels",
         {"kernel": "sample", "shape": QWEN, "sequences": 128, "top_k": 50}, "share", 0.25),
    _step(1, 0.45),
    _step(8, 0.68),
    _step(32, 0.76),
    Goal(f"one sequence, {OLMOE}: tokens per second over those of transformers", "transformers",
         {"model": OLMOE, "batch": 1}, "ratio", 3.0),
]


def measured(goal, sections):
    """The number of the last measurement that `goal` is about; None if there is none."""
    found = None
    for section in sections:
        if section.name != goal.section:
            continue
        for step in section.steps:
            for entry in step.measurements:
                if goal.entry.items() <= entry.items() and isinstance(entry.get(goal.key), (int, float)):
                    found = entry[goal.key]
    return found


def table(sections):
    """A dict for each goal: what, least, measured (or None), met (or None)."""
    rows = []
    for goal in GOALS:
        value = measured(goal, sections)
        rows.append({"what": goal.what, "least": goal.least, "measured": value,
                     "met": None if value is None else value >= goal.least})
    return rows
