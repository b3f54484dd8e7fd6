"""A model whose experts are not all in memory, against a real server process: the same answers, exact accounts, and
what happens when the disk does not give an expert back."""

import json
import pathlib
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

import grpc

from cached_model import (ALL_EXPERTS, EXPERT_BYTES, NUM_EXPERTS, NUM_LAYERS, PROMPTS, TOP_K, CachedModelTest, ask,
                          gib_of)
from harness import BIN, DEMO_MODEL, Completion, Server, clean_environment, error_details, models, request
from harness import experts as experts_pb, placement as placement_pb


def seconds(duration):
    return duration.seconds + duration.nanos * 1e-9


def experts_of(completion):
    """(layer, expert) of every choice."""
    told = completion.finished.routed_experts
    return {(i // told.top_k % told.num_layers, expert) for i, expert in enumerate(told.expert_ids)}


def matrix_offset(path, layer, expert):
    """Where the file keeps the up projection of an expert."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    return 8 + size + header[f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"]["data_offsets"][0]


class ExpertCacheTest(CachedModelTest):
    def wait_until_nothing_travels(self, server):
        """An idle server takes the ends of what was read ahead, too."""
        deadline = time.monotonic() + 10
        while server.metric("cadre_expert_slots", state="loading") > 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def copy_of_the_model(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return pathlib.Path(shutil.copytree(DEMO_MODEL, pathlib.Path(folder.name) / "model"))

    def test_no_size_changes_an_answer(self):
        messages = [ask(prompt) for prompt in PROMPTS] + [ask(p, temperature=1, seed=7) for p in PROMPTS]
        resident = self.resident()
        expected = [self.complete(resident, message) for message in messages]
        with self.assertRaises(KeyError):
            resident.metric("cadre_expert_lookups_total")
        for num_slots, policy, prefetch in ((1, "lru", "off"), (TOP_K, "least-stale", "on"),
                                            (ALL_EXPERTS // 2, "next-use", "on"), (ALL_EXPERTS // 2, "lfu", "off"),
                                            (ALL_EXPERTS - 1, "lfru", "on")):
            with self.subTest(slots=num_slots, policy=policy, prefetch=prefetch):
                server = self.start(num_slots, "--expert-policy", policy, "--expert-prefetch", prefetch)
                for message, answer in zip(messages, expected):
                    found = self.complete(server, message)
                    self.assertEqual(found.text, answer.text)
                    self.assertEqual(found.finished.routed_experts, answer.finished.routed_experts)
                server.wait_until_idle()
                self.assertEqual(server.audit(), [])
                hits = server.metric("cadre_expert_lookups_total", result="hit")
                misses = server.metric("cadre_expert_lookups_total", result="miss")
                self.assertGreater(misses, 0)
                ahead = server.metric("cadre_expert_loads_total", cause="prefetch")
                late = server.metric("cadre_expert_prefetches_total", result="late")
                if prefetch == "off":
                    self.assertEqual(ahead, 0)
                elif policy == "next-use":
                    self.assertGreater(ahead, 0)
                self.assertEqual(server.metric("cadre_expert_loads_total", cause="miss"), misses - late)
                loads = misses - late + ahead
                self.wait_until_nothing_travels(server)
                self.assertEqual(server.metric("cadre_expert_load_bytes_total"), loads * EXPERT_BYTES)
                self.assertEqual(server.metric("cadre_expert_slots"), num_slots)
                self.assertEqual(server.metric("cadre_expert_slots", state="pinned"), 0)
                self.assertEqual(server.metric("cadre_expert_evictions_total"),
                                 loads - server.metric("cadre_expert_slots", state="idle") -
                                 server.metric("cadre_expert_slots", state="loading"))
                self.assertGreaterEqual(hits + misses, len(messages) * NUM_LAYERS * TOP_K)
                plan = server.models.GetModel(models.GetModelRequest(), timeout=5).model.memory_plan
                self.assertEqual(plan.num_expert_slots, num_slots)
                self.assertEqual(plan.expert_weight_bytes, num_slots * EXPERT_BYTES)
                self.assertEqual(plan.all_expert_bytes, ALL_EXPERTS * EXPERT_BYTES)
                server.stop()

    def test_the_log_says_what_speed_to_expect(self):
        server = self.start(ALL_EXPERTS // 2, "--expert-read-threads", 2)
        log = server.log_text()
        num_read = NUM_LAYERS * TOP_K / 2
        time, rate = r"[\d.]+m?s", r"[\d.]+ [KMG]iB/s"
        expected = (rf"expert speed: a token of one sequence waits about {time} for experts \({num_read:.1f} of its "
                    rf"{NUM_LAYERS * TOP_K} at a hit ratio of 50.0%, the share that fits: [\d.]+ MiB at {rate}, "
                    rf"measured with 8 of them, 2 at a time\), or {time} for those in the page cache \({rate}\)")
        self.assertRegex(log, expected)

    def test_scheduling_by_experts_changes_no_answer(self):
        expected = [self.complete(self.resident(), ask(prompt)) for prompt in PROMPTS]
        server = self.start(ALL_EXPERTS // 2, "--expert-aware-scheduling", "on", "--routing-sample-steps", 1,
                            "--max-num-seqs", 1)
        for _ in range(2):
            calls = [server.generation.Generate(ask(prompt), timeout=60) for prompt in PROMPTS]
            for call, answer in zip(calls, expected):
                self.assertEqual(Completion(call).text, answer.text)
        self.assertGreaterEqual(server.metric("cadre_expert_aware_passed_over_total"),
                                server.metric("cadre_expert_aware_preferred_total"))
        self.assertEqual(server.audit(), [])

    def test_experts_are_read_past_the_page_cache(self):
        expected = [self.complete(self.resident(), ask(prompt)) for prompt in PROMPTS]
        try:
            server = self.start(TOP_K, "--expert-read", "direct")
        except RuntimeError as error:
            if "past the page cache" not in str(error):
                raise
            self.skipTest("the file system of the model cannot do it")
        for prompt, answer in zip(PROMPTS, expected):
            self.assertEqual(self.complete(server, ask(prompt)).text, answer.text)

    def test_room_for_all_is_no_cache(self):
        server = self.start(ALL_EXPERTS)
        plan = server.models.GetModel(models.GetModelRequest(), timeout=5).model.memory_plan
        self.assertEqual(plan.num_expert_slots, 0)
        self.assertEqual(plan.expert_weight_bytes, plan.all_expert_bytes)
        self.assertNotIn("without effect", server.log_text())

    def test_flags_that_mean_nothing_are_told(self):
        server = Server("--expert-policy", "lru", "--expert-read-threads", 2)
        self.addCleanup(server.stop)
        self.assertIn("--expert-policy, --expert-read-threads: without effect, because all experts are in memory",
                      server.log_text())

    def test_memory_that_cannot_move(self):
        server = Server("--memory-split", "auto")
        self.addCleanup(server.stop)
        self.assertIn("--memory-split: without effect, because all experts are in memory", server.log_text())
        plan = server.models.GetModel(models.GetModelRequest(), timeout=5).model.memory_plan
        self.assertEqual(plan.num_expert_slots, 0)
        self.assertGreater(plan.num_kv_blocks, 0)
        self.assertNotIn("cadre_memory_split", server.metrics_text())
        with self.assertRaisesRegex(RuntimeError, "--memory-split: auto decides what --expert-cache-gb fixes"):
            self.start(TOP_K, "--memory-split", "auto")
        for flag, value in (("--expert-policy", "lfu"), ("--expert-cache-gb", "1")):
            result = subprocess.run([str(BIN / "cadre-server"), "--model", "sim", "--port", "0", "--metrics-port", "0",
                                     flag, value], capture_output=True, text=True, timeout=60, env=clean_environment())
            self.assertEqual(result.returncode, 64)
            self.assertIn(f"{flag}: a simulated model has no experts that could be read", result.stderr)

    def test_placement_agrees_with_the_counters(self):
        resident = self.resident()
        placement = resident.experts.GetPlacement(experts_pb.GetPlacementRequest(), timeout=5)
        self.assertEqual(len(placement.layers), NUM_LAYERS)
        for layer in placement.layers:
            self.assertEqual(list(layer.tiers), [placement_pb.EXPERT_TIER_DEVICE] * NUM_EXPERTS)
        self.assertEqual(placement.device_slots, ALL_EXPERTS)
        self.assertEqual(placement.totals.device, ALL_EXPERTS)
        self.assertEqual(placement.expert_bytes, EXPERT_BYTES)
        num_slots = ALL_EXPERTS // 4
        server = self.start(num_slots)
        self.assertEqual(server.experts.GetPlacement(experts_pb.GetPlacementRequest(), timeout=5).totals.disk,
                         ALL_EXPERTS)
        for prompt in PROMPTS:
            self.complete(server, ask(prompt))
        server.wait_until_idle()
        self.wait_until_nothing_travels(server)
        placement = server.experts.GetPlacement(experts_pb.GetPlacementRequest(), timeout=5)
        self.assertEqual(placement.device_slots, num_slots)
        self.assertEqual(placement.expert_bytes, EXPERT_BYTES)
        totals = placement.totals
        self.assertEqual(totals.device, server.metric("cadre_expert_slots", state="idle"))
        self.assertEqual(totals.device + totals.host + totals.disk, ALL_EXPERTS)
        self.assertEqual(totals.device, sum(list(layer.tiers).count(placement_pb.EXPERT_TIER_DEVICE)
                                            for layer in placement.layers))
        self.assertEqual(totals.hits, server.metric("cadre_expert_lookups_total", result="hit"))
        self.assertEqual(totals.misses, server.metric("cadre_expert_lookups_total", result="miss"))
        self.assertEqual(totals.hits, sum(layer.hits for layer in placement.layers))
        self.assertEqual(totals.misses, sum(layer.misses for layer in placement.layers))
        self.assertTrue(all(layer.misses > 0 for layer in placement.layers))
        self.assertEqual(totals.evictions, server.metric("cadre_expert_evictions_total"))
        self.assertGreater(totals.evictions, 0)
        self.assertEqual(totals.loaded_bytes, server.metric("cadre_expert_load_bytes_total"))
        self.assertGreater(totals.loaded_bytes, 0)
        self.assertGreater(seconds(totals.wait), 0)
        self.assertAlmostEqual(seconds(totals.wait), server.metric("cadre_expert_wait_seconds_total"), places=6)
        self.assertAlmostEqual(seconds(totals.wait), sum(seconds(layer.wait) for layer in placement.layers), places=6)
        for result in ("used", "late", "wasted"):
            self.assertEqual(getattr(totals, f"prefetches_{result}"),
                             server.metric("cadre_expert_prefetches_total", result=result))
        self.assertEqual(totals.load_errors, 0)
        self.assertEqual((totals.loading, totals.quarantined), (0, 0))
        with self.assertRaises(grpc.RpcError) as caught:
            server.experts.GetPlacement(experts_pb.GetPlacementRequest(model="other"), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reports_count_the_hits_of_their_own_assignments(self):
        for num_slots in (1, ALL_EXPERTS // 2):
            with self.subTest(slots=num_slots):
                server = self.start(num_slots, "--prefix-cache", "off")
                hits = misses = waited = 0
                # A prompt of one token: every step has one row, whose assignments are the layers' lookups.
                for seed in range(3):
                    message = request(ids=[5 + seed], max_tokens=20, temperature=1, seed=seed)
                    routing = self.complete(server, message).finished.routing
                    self.assertEqual(routing.expert_cache_hits + routing.expert_cache_misses, routing.processed)
                    hits += routing.expert_cache_hits
                    misses += routing.expert_cache_misses
                    self.assertEqual(routing.expert_bytes_loaded, routing.expert_cache_misses * EXPERT_BYTES)
                    waited += seconds(routing.expert_wait)
                server.wait_until_idle()
                self.assertEqual(hits, server.metric("cadre_expert_lookups_total", result="hit"))
                self.assertEqual(misses, server.metric("cadre_expert_lookups_total", result="miss"))
                self.assertGreater(waited, 0)
                self.assertAlmostEqual(waited, server.metric("cadre_expert_wait_seconds_total"), places=6)
                # Together in steps, each has its own.
                calls = [server.generation.Generate(ask(prompt), timeout=60) for prompt in PROMPTS]
                for call in calls:
                    routing = Completion(call).finished.routing
                    self.assertEqual(routing.expert_cache_hits + routing.expert_cache_misses, routing.processed)
                    self.assertGreater(routing.expert_cache_misses, 0)
                server.stop()
        routing = self.complete(self.resident(), ask(PROMPTS[0])).finished.routing
        self.assertEqual((routing.expert_cache_hits, routing.expert_cache_misses), (0, 0))
        self.assertEqual((routing.expert_bytes_loaded, seconds(routing.expert_wait)), (0, 0))

    def find_victim(self, server):
        """An expert that some of the prompts use and others do not, and who they are."""
        used = [experts_of(self.complete(server, ask(prompt))) for prompt in PROMPTS]
        candidates = sorted(set.union(*used), key=lambda e: abs(len(PROMPTS) - 2 * sum(e in u for u in used)))
        victim = candidates[0]
        users = [victim in u for u in used]
        self.assertIn(True, users)
        self.assertIn(False, users)
        return victim, users

    def damage(self, path, victim):
        """Writes other bytes into the file, and returns what puts the right ones back."""
        offset = matrix_offset(path, *victim)
        with open(path, "r+b") as file:
            file.seek(offset)
            right = file.read(64)
            file.seek(offset)
            file.write(bytes(byte ^ 0xFF for byte in right))

        def mend():
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(right)
        return mend

    def test_a_damaged_expert_ends_those_who_need_it_and_comes_back(self):
        model = self.copy_of_the_model()
        # Four slots keep nothing from one request to the next but the last layer's.
        server = self.start(4, "--prefix-cache", "off", model=model)
        victim, users = self.find_victim(server)
        expected = [self.complete(server, ask(prompt)).text for prompt in PROMPTS]
        mend = self.damage(model / "model.safetensors", victim)
        # What is in memory is whole.
        self.complete(server, ask(PROMPTS[users.index(False)]))
        for prompt, uses, text in zip(PROMPTS, users, expected):
            with self.subTest(prompt=prompt, uses=uses):
                if not uses:
                    self.assertEqual(self.complete(server, ask(prompt)).text, text)
                    continue
                with self.assertRaises(grpc.RpcError) as caught:
                    self.complete(server, ask(prompt))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
                self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "EXPERT_UNAVAILABLE")
                server.wait_for_log(f"expert {victim[1]} of layer {victim[0]} cannot be read")
        # It is set aside for a second or two; an idle server sees that end.
        def set_aside():
            placement = server.experts.GetPlacement(experts_pb.GetPlacementRequest(), timeout=5)
            return [(layer.layer, e) for layer in placement.layers for e in layer.quarantined_experts]
        deadline = time.monotonic() + 60
        while set_aside() != [victim]:
            self.assertLess(time.monotonic(), deadline)
            with self.assertRaises(grpc.RpcError):
                self.complete(server, ask(PROMPTS[users.index(True)]))
        while set_aside() or server.metric("cadre_experts_quarantined") > 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        self.assertGreater(server.metric("cadre_expert_load_errors_total"), 0)
        mend()
        deadline = time.monotonic() + 60
        while True:
            try:
                found = [self.complete(server, ask(prompt)).text for prompt in PROMPTS]
                break
            except grpc.RpcError:
                self.assertLess(time.monotonic(), deadline, "it does not come back")
                time.sleep(0.5)
        self.assertEqual(found, expected)
        self.assertEqual(server.metric("cadre_experts_quarantined"), 0)
        server.wait_until_idle()
        self.assertEqual(server.audit(), [])

    def test_going_on_without_an_expert_is_told(self):
        model = self.copy_of_the_model()
        server = self.start(4, "--prefix-cache", "off", "--expert-fault", "degrade", model=model)
        victim, users = self.find_victim(server)
        self.damage(model / "model.safetensors", victim)
        self.complete(server, ask(PROMPTS[users.index(False)]))
        dropped = 0
        for prompt, uses in zip(PROMPTS, users):
            routing = self.complete(server, ask(prompt)).finished.routing
            self.assertEqual(routing.dropped > 0, uses, prompt)
            self.assertEqual(routing.lost_gate_weight > 0, uses, prompt)
            self.assertEqual(routing.fidelity < 1, uses, prompt)
            dropped += routing.dropped
        server.wait_until_idle()
        self.assertEqual(server.audit(), [])
        self.assertEqual(server.metric("cadre_routing_assignments_total", state="dropped"), dropped)
        # No request has failed: the log alone says what is wrong. Not with every step.
        told = [line for line in server.log_text().splitlines()
                if f"expert {victim[1]} of layer {victim[0]} cannot be read: " in line]
        self.assertTrue(told)
        self.assertIn("its bytes are not those that were read first", told[0])
        self.assertIn("left alone for 1s", told[0])
        self.assertLess(len(told), dropped)
        self.assertEqual(len(told), len(set(told)))

    def test_a_file_cut_short_is_an_error_and_not_the_end(self):
        model = self.copy_of_the_model()
        server = self.start(4, "--prefix-cache", "off", model=model)
        path = model / "model.safetensors"
        whole = path.read_bytes()
        with open(path, "r+b") as file:
            file.truncate(len(whole) // 3)
        with self.assertRaises(grpc.RpcError) as caught:
            for prompt in PROMPTS:
                self.complete(server, ask(prompt))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        with open(path, "r+b") as file:
            file.write(whole)
        deadline = time.monotonic() + 90
        while True:
            try:
                for prompt in PROMPTS:
                    self.complete(server, ask(prompt))
                break
            except grpc.RpcError:
                self.assertLess(time.monotonic(), deadline, "it does not come back")
                time.sleep(0.5)

    def test_what_cannot_be_is_refused(self):
        for flags, words in ((("--expert-cache-gb", "0"), "--expert-cache-gb"),
                             (("--expert-cache-gb", "nan"), "--expert-cache-gb"),
                             (("--expert-cache-gb", "0.000001"), "one expert takes"),
                             (("--expert-policy", "random"), "least-stale"),
                             (("--expert-read-threads", "0"), "--expert-read-threads"),
                             (("--expert-fault", "degrade"), "--prefix-cache off")):
            with self.subTest(flags=flags):
                result = subprocess.run([str(BIN / "cadre-server"), "--model", str(DEMO_MODEL), "--port", "0",
                                         "--metrics-port", "0", *flags], capture_output=True, text=True, timeout=60,
                                        env=clean_environment())
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(words, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
