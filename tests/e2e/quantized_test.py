"""Weights that are rounded to fewer bits while the server loads them."""

import concurrent.futures
import math
import subprocess
import unittest

from cached_model import CONFIG
from harness import BIN, Completion, Server, models, request

PROMPTS = ["Once upon a time", "12 + 30 =", "The king of the sea said", "def add(a, b):", "In a small village", "Why"]


class QuantizedTest(unittest.TestCase):
    def start(self, *flags):
        server = Server(*flags)
        self.addCleanup(server.stop)
        return server

    def model(self, server):
        return server.models.GetModel(models.GetModelRequest(), timeout=5).model

    def complete(self, server, prompt):
        message = request(prompt, max_tokens=16, temperature=0)
        return list(Completion(server.generation.Generate(message, timeout=60)).token_ids)

    def test_experts_take_half_and_a_quarter_of_the_memory(self):
        exact = self.model(self.start())
        self.assertEqual(exact.execution.expert_dtype, exact.execution.weight_dtype)
        width, inner = CONFIG["hidden_size"], CONFIG["moe_intermediate_size"]
        in_bfloat16 = 3 * width * inner * 2
        for name, block_bytes in (("int8", 132), ("int4", 72)):
            in_blocks = 2 * inner * math.ceil(width / 128) * block_bytes + width * math.ceil(inner / 128) * block_bytes
            server = self.start("--quantize", name)
            model = self.model(server)
            self.assertEqual(model.execution.expert_dtype, name)
            self.assertEqual(model.execution.weight_dtype, exact.execution.weight_dtype)
            self.assertEqual(model.memory_plan.dense_weight_bytes, exact.memory_plan.dense_weight_bytes)
            self.assertEqual(model.memory_plan.expert_weight_bytes * in_bfloat16,
                             exact.memory_plan.expert_weight_bytes * in_blocks)
            self.assertEqual(server.metric("cadre_model_info", expert_dtype=name), 1)
            shown = subprocess.run([str(BIN / "cadre"), "--address", server.address, "model"], capture_output=True,
                                   text=True, check=True, timeout=20).stdout
            self.assertIn(f"experts {name}", shown)

    def test_all_matrices_may_be_rounded(self):
        experts_only = self.model(self.start("--quantize", "int4"))
        model = self.model(self.start("--quantize", "int4", "--quantize-parts", "all"))
        self.assertEqual((model.execution.weight_dtype, model.execution.expert_dtype), ("int8", "int4"))
        self.assertLess(model.memory_plan.dense_weight_bytes, experts_only.memory_plan.dense_weight_bytes)
        self.assertEqual(model.execution.kv_cache_dtype, experts_only.execution.kv_cache_dtype)
        alike = self.model(self.start("--quantize", "int4", "--quantize-parts", "all-alike"))
        self.assertEqual((alike.execution.weight_dtype, alike.execution.expert_dtype), ("int4", "int4"))
        self.assertLess(alike.memory_plan.dense_weight_bytes, model.memory_plan.dense_weight_bytes)
        self.assertEqual(alike.memory_plan.expert_weight_bytes, model.memory_plan.expert_weight_bytes)

    def test_a_crowd_changes_nothing(self):
        for flags in (("int8",), ("int4", "--quantize-parts", "all"), ("int4", "--quantize-parts", "all-alike")):
            server = self.start("--quantize", *flags, "--prefix-cache", "off")
            alone = [self.complete(server, prompt) for prompt in PROMPTS]
            with concurrent.futures.ThreadPoolExecutor(24) as pool:
                together = list(pool.map(lambda prompt: self.complete(server, prompt), PROMPTS * 4))
            self.assertEqual(together, alone * 4)

    def test_experts_that_are_read_when_needed_say_the_same(self):
        whole = self.start("--quantize", "int8")
        expected = [self.complete(whole, prompt) for prompt in PROMPTS]
        cached = self.start("--quantize", "int8", "--expert-cache-gb", "0.002")
        self.assertLess(self.model(cached).memory_plan.expert_weight_bytes,
                        self.model(whole).memory_plan.expert_weight_bytes)
        self.assertEqual([self.complete(cached, prompt) for prompt in PROMPTS], expected)

    def test_what_cannot_be_is_refused(self):
        for flags, code, part in ((("--quantize", "int3"), 64, "int3"),
                                  (("--quantize-parts", "all"), 64, "--quantize-parts: needs --quantize")):
            run = subprocess.run([str(BIN / "cadre-server"), "--model", "sim", *flags], capture_output=True, text=True,
                                 check=False, timeout=20)
            self.assertEqual(run.returncode, code)
            self.assertIn(part, run.stdout + run.stderr)
        with self.assertRaisesRegex(RuntimeError, "--quantize: a simulated model has no weights"):
            Server("--quantize", "int8", model="sim")


if __name__ == "__main__":
    unittest.main()
