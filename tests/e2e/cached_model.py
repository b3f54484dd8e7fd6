"""A server whose experts are not all in memory, for several tests."""

import json
import unittest

from harness import DEMO_MODEL, Completion, Server, request

PROMPTS = ["Once upon a time", "The king of the sea said", "1 2 3", "In a small village", "\"Where?\"", "A red dog ran",
           "Why"]
CONFIG = json.loads((DEMO_MODEL / "config.json").read_text())
NUM_LAYERS, NUM_EXPERTS, TOP_K = (CONFIG[key] for key in ("num_hidden_layers", "num_experts", "num_experts_per_tok"))
EXPERT_BYTES = 3 * CONFIG["hidden_size"] * CONFIG["moe_intermediate_size"] * 2
ALL_EXPERTS = NUM_LAYERS * NUM_EXPERTS


def gib_of(num_experts):
    return num_experts * EXPERT_BYTES / 2**30 + 1e-12


def ask(prompt, **sampling):
    message = request(prompt, max_tokens=12, **{"temperature": 0, **sampling})
    message.output.routed_experts = True
    return message


class CachedModelTest(unittest.TestCase):
    def start(self, num_slots, *flags, model=DEMO_MODEL):
        server = Server("--expert-cache-gb", f"{gib_of(num_slots):.12f}", *flags, model=model)
        self.addCleanup(server.stop)
        return server

    def complete(self, server, message):
        return Completion(server.generation.Generate(message, timeout=60))

    def resident(self):
        server = Server()
        self.addCleanup(server.stop)
        return server
