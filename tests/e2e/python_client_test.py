"""The Python package against a real server process: the demo model, and a simulated one that is full."""

import asyncio
import dataclasses
import pathlib
import subprocess
import sys
import threading
import time
import unittest

from harness import ROOT, Server, clean_environment

sys.path.insert(0, str(ROOT / "clients" / "python" / "tests"))

import package  # noqa: E402  makes cadre_client importable

from cadre_client import (  # noqa: E402
    DROPLESS, AsyncClient, CapacityPolicy, CapacityScope, Client, DeadlineExceededError, Delta, FinishReason, Finished,
    GenerateOptions, InvalidRequestError, ModelState, NotFoundError, OverloadedError, ReplayRouting, ReplayWeights,
    RetryPolicy, Started)

EXAMPLES = ROOT / "clients" / "python" / "examples"
GREEDY = GenerateOptions(max_tokens=12, temperature=0)


class DemoModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = Client(cls.server.address, timeout=30)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.stop()

    def test_a_stream_and_the_whole_answer_agree(self):
        with self.client.stream("Once upon a time", GREEDY) as stream:
            events = list(stream)
        self.assertIsInstance(events[0], Started)
        self.assertTrue(all(isinstance(event, Delta) for event in events[1:-1]))
        self.assertIsInstance(events[-1], Finished)
        streamed, whole = stream.result(), self.client.generate("Once upon a time", GREEDY)
        self.assertEqual(streamed.completions[0].token_ids, whole.completions[0].token_ids)
        self.assertEqual(streamed.text, whole.text)
        self.assertTrue(whole.text.strip())
        finished = whole.completions[0].finished
        self.assertEqual((finished.reason, finished.usage.generated_tokens), (FinishReason.LENGTH, 12))
        self.assertGreater(finished.timings.total, 0)
        self.assertGreater(finished.routing.processed, 0)
        self.assertIsNone(finished.matched_token_id)

    def test_experts_are_limited_and_requests_are_not(self):
        before = self.client.set_capacity_policy(CapacityPolicy(CapacityScope.REQUEST, capacity_factor=0.25))
        try:
            self.assertEqual(before.scope, CapacityScope.OFF)
            self.assertEqual(self.client.model().capacity.policy.scope, CapacityScope.REQUEST)
            options = GenerateOptions(max_tokens=12, temperature=0, tenant="python")
            limited = self.client.generate("Once upon a time", options).completions[0].finished.routing
            self.assertGreater(limited.dropped, 0)
            self.assertAlmostEqual(limited.fidelity, 1 - limited.lost_gate_weight / limited.gate_weight)
            self.assertEqual(limited.capacity.capacity_factor, 0.25)
            whole = self.client.generate("Once upon a time", GenerateOptions(
                max_tokens=12, temperature=0, tenant="python", capacity=DROPLESS)).completions[0].finished.routing
            self.assertEqual((whole.dropped, whole.fidelity, whole.capacity.scope), (0, 1.0, CapacityScope.OFF))
            tenant, = [tenant for tenant in self.client.tenant_stats() if tenant.tenant == "python"]
            self.assertEqual(tenant.dropped, limited.dropped)
            self.assertEqual(tenant.processed, limited.processed + whole.processed)
        finally:
            self.client.set_capacity_policy(CapacityPolicy(CapacityScope.OFF))

        async def ask():
            async with AsyncClient(self.server.address, timeout=30) as client:
                before = await client.set_capacity_policy(CapacityPolicy(CapacityScope.OFF))
                return before, await client.tenant_stats()
        before, tenants = asyncio.run(ask())
        self.assertEqual(before, CapacityPolicy(CapacityScope.OFF))
        self.assertIn(tenant, tenants)

    def test_recorded_experts_are_replayed(self):
        options = GenerateOptions(max_tokens=12, seed=3, logprobs=True, routed_experts=True)
        recorded = self.client.generate("Once upon a time", options).completions[0]
        replay = ReplayRouting(recorded.finished.routed_experts, ReplayWeights.RECORDED)
        replayed = self.client.generate("Once upon a time", dataclasses.replace(
            options, replay_routing=replay)).completions[0]
        self.assertEqual((replayed.token_ids, replayed.details), (recorded.token_ids, recorded.details))
        self.assertEqual(replayed.finished.routed_experts, recorded.finished.routed_experts)
        longer = dataclasses.replace(replay.record, first_position=1)
        with self.assertRaisesRegex(InvalidRequestError, "replay_routing.record.expert_ids: positions 1 to"):
            self.client.generate("Once upon a time", dataclasses.replace(options, replay_routing=ReplayRouting(longer)))

    def test_stop_strings_and_ids(self):
        text = self.client.generate("Once upon a time", GREEDY).text
        stop = text.strip().split()[-1]
        result = self.client.generate("Once upon a time", GenerateOptions(max_tokens=50, temperature=0,
                                                                          stop_strings=[stop]))
        self.assertEqual(result.reason, FinishReason.STOP_STRING)
        self.assertEqual(result.completions[0].finished.matched_stop_string, stop)
        ids = self.client.tokenize("Once upon a time").token_ids
        self.assertEqual(self.client.generate(ids, GREEDY).text, text)

    def test_tokens_there_and_back(self):
        tokens = self.client.tokenize("Grüße", add_special_tokens=False)
        self.assertEqual(self.client.detokenize(tokens.token_ids), "Grüße")
        self.assertGreater(tokens.max_model_len, 0)

    def test_model_load_and_experts(self):
        model = self.client.model()
        self.assertEqual(model.state, ModelState.READY)
        self.assertIn("sampling.temperature", model.supported_fields)
        self.client.generate("x", GREEDY)
        self.server.wait_until_idle()
        load = self.client.load()
        self.assertEqual(load.running_requests + load.waiting_requests, 0)
        self.assertEqual(load.generated_tokens, self.server.metric("cadre_generated_tokens_total"))
        self.assertAlmostEqual(load.time, time.time(), delta=60)
        stats = self.client.expert_stats(layers=[model.architecture.moe_layers[0]], window=False)
        layer, = stats.total
        self.assertEqual(sum(layer.processed), layer.tokens * model.architecture.top_k)
        self.assertEqual(stats.window, ())
        self.assertGreater(layer.health.load_entropy, 0)
        watched = self.client.watch_expert_stats(0.1, include_experts=False)
        first, second = next(watched), next(watched)
        watched.close()
        self.assertLess(first.time, second.time)
        self.assertEqual(first.total[0].processed, ())
        self.assertTrue(self.client.is_ready())

    def test_errors_are_exceptions_with_their_fields(self):
        with self.assertRaises(InvalidRequestError) as raised:
            self.client.generate("x", GenerateOptions(top_p=9))
        self.assertEqual(raised.exception.field_violations[0].field, "sampling.top_p")
        self.assertEqual(raised.exception.reason, "INVALID_FIELD")
        with self.assertRaises(NotFoundError):
            self.client.generate("x", GenerateOptions(model="somebody-elses"))
        with self.assertRaises(DeadlineExceededError):
            list(self.client.stream("x", GenerateOptions(max_tokens=400, ignore_eos=True), timeout=0.02))

    def test_asyncio(self):
        async def run():
            async with AsyncClient(self.server.address, timeout=30) as client:
                answers = await asyncio.gather(*(client.generate(f"{n} + {n} =", GREEDY) for n in range(12)))
                async with client.stream("3 + 3 =", GREEDY) as stream:
                    text = "".join([piece async for piece in stream.texts()])
                self.assertEqual((await client.model()).state, ModelState.READY)
                self.assertGreater((await client.load()).steps, 0)
                self.assertEqual(await client.detokenize((await client.tokenize("ab")).token_ids), "ab")
                async for stats in client.watch_expert_stats(0.1):
                    self.assertGreater(stats.total[0].tokens, 0)
                    break
                with self.assertRaises(InvalidRequestError):
                    await client.generate("x", GenerateOptions(top_k=-5))
                return answers, text

        answers, text = asyncio.run(run())
        self.assertEqual(answers[3].text, text)
        self.assertEqual(self.client.generate("3 + 3 =", GREEDY).text, text)

    def test_examples_run(self):
        folder = pathlib.Path(package._folder.name)
        for name, arguments, expected in (("stream.py", ["Once upon a time"], r"seed \d+\]"),
                                          ("many.py", [], r"20 \+ 20 ="), ("experts.py", ["a b c"], "layer  tokens")):
            result = subprocess.run([sys.executable, str(EXAMPLES / name), *arguments, self.server.address],
                                    capture_output=True, text=True, timeout=60, check=False,
                                    env={**clean_environment(), "PYTHONPATH": str(folder)})
            self.assertEqual((result.returncode, result.stderr), (0, ""), name)
            self.assertRegex(result.stdout, expected)


class FullServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", 1, "--max-queue-requests", 1, "--drain-delay", "0s",
                            model="sim:step_ms=2")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def fill(self, client):
        """One that runs and one that waits; returns their streams."""
        streams = []
        for _ in range(2):
            stream = client.stream("x", GenerateOptions(max_tokens=4000, ignore_eos=True))
            streams.append(stream)
            thread = threading.Thread(target=lambda s=stream: [None for _ in s], daemon=True)
            thread.start()
            self.addCleanup(thread.join)
            end = time.monotonic() + 10
            # The second is refused while the first still waits.
            while client.load().running_requests < 1 or client.load().waiting_requests < len(streams) - 1:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.01)
        return streams

    def test_a_full_queue_is_an_error_that_says_when_to_come_again(self):
        with Client(self.server.address, retry=RetryPolicy(max_attempts=1), timeout=30) as client:
            streams = self.fill(client)
            with self.assertRaises(OverloadedError) as raised:
                client.generate("y", GREEDY)
            self.assertEqual(raised.exception.reason, "QUEUE_FULL")
            self.assertGreater(raised.exception.retry_after, 0)
            for stream in streams:
                stream.close()
            self.server.wait_until_idle()

    def test_a_retry_succeeds_when_there_is_room_again(self):
        with Client(self.server.address, retry=RetryPolicy(max_attempts=10), timeout=30) as client:
            streams = self.fill(client)
            rejected = self.server.metric("cadre_requests_rejected_total", reason="queue_full")

            def make_room():
                end = time.monotonic() + 10
                while self.server.metric("cadre_requests_rejected_total", reason="queue_full") == rejected:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.01)
                for stream in streams:
                    stream.close()

            thread = threading.Thread(target=make_room)
            thread.start()
            self.assertEqual(client.generate("y", GREEDY).completions[0].finished.usage.generated_tokens, 12)
            thread.join()
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

    def test_closing_a_stream_frees_the_server(self):
        with Client(self.server.address, timeout=30) as client:
            with client.stream("x", GenerateOptions(max_tokens=4000, ignore_eos=True)) as stream:
                for _ in zip(range(5), stream):
                    pass
            self.assertLess(self.server.wait_until_idle(), 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
