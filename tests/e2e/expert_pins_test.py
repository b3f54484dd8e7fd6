"""Experts that are in memory without having been asked for: a warm start from a profile, and pins, against a real
server process and the real client."""

import json
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import grpc

from harness import BIN, DEMO_MODEL, Completion, Server, clean_environment, error_details, experts, request

CONFIG = json.loads((DEMO_MODEL / "config.json").read_text())
NUM_LAYERS, NUM_EXPERTS = CONFIG["num_hidden_layers"], CONFIG["num_experts"]
EXPERT_BYTES = 3 * CONFIG["hidden_size"] * CONFIG["moe_intermediate_size"] * 2
PROMPTS = ["Once upon a time", "The king of the sea said", "In a small village", "Why"]
NUM_SLOTS = 24


def cache_of(num_slots):
    return "--expert-cache-gb", f"{num_slots * EXPERT_BYTES / 2**30 + 1e-12:.12f}"


def refs(pairs):
    return [experts.ExpertRef(layer=layer, expert=expert) for layer, expert in pairs]


class ExpertPinsTest(unittest.TestCase):
    def start(self, *flags, num_slots=NUM_SLOTS):
        server = Server(*cache_of(num_slots), *flags)
        self.addCleanup(server.stop)
        return server

    def complete(self, server, prompt):
        return Completion(server.generation.Generate(request(prompt, max_tokens=12, temperature=0), timeout=60)).text

    def wait_for(self, what, condition):
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def wait_until_placed(self, server):
        self.wait_for("experts do not come", lambda: server.metric("cadre_experts_awaited") == 0)

    def cadre(self, server, *arguments):
        return subprocess.run([str(BIN / "cadre"), "--address", server.address, *map(str, arguments)],
                              capture_output=True, text=True, timeout=30, env=clean_environment())

    def profile_of(self, server):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "demo.profile"
        result = self.cadre(server, "profile", "export", path)
        self.assertEqual(result.returncode, 0, result.stderr)
        return path

    def refused(self, server, pairs):
        with self.assertRaises(grpc.RpcError) as caught:
            server.experts.PinExperts(experts.PinExpertsRequest(experts=refs(pairs)), timeout=5)
        return caught.exception

    def test_a_warm_start_reads_the_most_used_experts_and_keeps_some(self):
        resident = Server()
        self.addCleanup(resident.stop)
        expected = [self.complete(resident, prompt) for prompt in PROMPTS]
        profile = self.profile_of(resident)
        resident.stop()
        server = self.start("--expert-profile", profile, "--expert-keep", "50%")
        self.wait_until_placed(server)
        self.assertEqual(server.metric("cadre_expert_loads_total", cause="placed"), NUM_SLOTS)
        self.assertEqual(server.metric("cadre_expert_slots", state="idle"), NUM_SLOTS)
        self.assertEqual(server.metric("cadre_experts_kept"), NUM_SLOTS // 2)
        # The client chooses from a profile as the server does.
        def pinned():
            placement = server.experts.GetPlacement(experts.GetPlacementRequest(), timeout=5)
            return [(layer.layer, expert) for layer in placement.layers for expert in layer.pinned_experts]
        kept = pinned()
        self.assertEqual(len(kept), NUM_SLOTS // 2)
        server.experts.PinExperts(experts.PinExpertsRequest(), timeout=5)
        self.wait_for("pins stay", lambda: pinned() == [])
        result = self.cadre(server, "pin", "--profile", profile, "--count", NUM_SLOTS // 2)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.wait_for("the client chooses others", lambda: pinned() == kept)
        warm = [self.complete(server, prompt) for prompt in PROMPTS]
        self.assertEqual(warm, expected)
        self.wait_for("no line in the log", lambda: f"experts read ahead: {NUM_SLOTS}" in server.log_text())
        told = re.search(r"the (\d+) most used experts are loaded first, which had ([\d.]+)% of its assignments; "
                         r"(\d+) of", server.log_text())
        self.assertEqual((int(told[1]), int(told[3])), (NUM_SLOTS, NUM_SLOTS // 2))
        self.assertGreater(float(told[2]), 100 * NUM_SLOTS / (NUM_LAYERS * NUM_EXPERTS))
        # Steps wait for less than those of a server that begins with nothing.
        cold = self.start()
        self.assertEqual([self.complete(cold, prompt) for prompt in PROMPTS], expected)
        misses = [each.metric("cadre_expert_lookups_total", result="miss") for each in (server, cold)]
        self.assertLess(*misses)
        self.assertEqual(server.audit(), [])

    def test_a_profile_that_does_not_fit_ends_the_start(self):
        resident = Server()
        self.addCleanup(resident.stop)
        self.complete(resident, PROMPTS[0])
        profile = self.profile_of(resident)
        damaged = profile.with_suffix(".damaged")
        content = bytearray(profile.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
        other = Server(model="sim:layers=4,experts=8,top_k=2")
        self.addCleanup(other.stop)
        for flags, words in (
                (("--expert-profile", damaged), ["damaged", str(damaged)]),
                (("--expert-profile", "/nowhere/profile"), ["--expert-profile", "/nowhere/profile", "No such file"]),
                (("--expert-profile", self.profile_of(other)),
                 ["--expert-profile", "profile.num_experts: 8 is not 16, which the served model has"]),
                (("--expert-profile", profile, "--expert-keep", NUM_SLOTS),
                 [f"--expert-keep: {NUM_SLOTS} is more than {NUM_SLOTS - 1}"]),
                (("--expert-keep", "3"), ["--expert-keep: means nothing without --expert-profile"])):
            with self.subTest(flags=flags):
                result = subprocess.run(
                    [str(BIN / "cadre-server"), "--model", str(DEMO_MODEL), "--port", "0", "--metrics-port", "0",
                     *cache_of(NUM_SLOTS), *map(str, flags)],
                    capture_output=True, text=True, timeout=60, env=clean_environment())
                self.assertEqual(result.returncode, 64, result.stderr)
                for word in words:
                    self.assertIn(word, result.stderr)

    def test_pins_stay_and_change_no_answer(self):
        server = self.start(num_slots=6)
        expected = [self.complete(server, prompt) for prompt in PROMPTS]
        pins = [(0, 3), (0, 3), (1, 15), (3, 0)]
        for _ in range(2):
            answer = server.experts.PinExperts(experts.PinExpertsRequest(experts=refs(pins)), timeout=5)
            self.assertEqual(answer.num_pinned, 3)
        self.wait_for("pins do not hold", lambda: server.metric("cadre_experts_kept") == 3)
        self.wait_until_placed(server)
        placed = server.metric("cadre_expert_loads_total", cause="placed")
        self.assertLessEqual(placed, 3)
        self.assertEqual([self.complete(server, prompt) for prompt in PROMPTS], expected)
        # They are there still: the same pins once more read nothing.
        server.experts.PinExperts(experts.PinExpertsRequest(experts=refs(pins[::-1])), timeout=5)
        self.wait_until_placed(server)
        self.assertEqual(server.metric("cadre_expert_loads_total", cause="placed"), placed)
        server.wait_for_log(r"experts pinned by \S+: 3; before: 0")
        server.wait_for_log(r"experts pinned by \S+: 3; before: 3")
        self.assertEqual(server.experts.PinExperts(experts.PinExpertsRequest(), timeout=5).num_pinned, 0)
        self.wait_for("still kept", lambda: server.metric("cadre_experts_kept") == 0)
        self.assertEqual(server.audit(), [])

    def test_pins_that_cannot_be_are_refused_and_change_nothing(self):
        server = self.start(num_slots=6)
        server.experts.PinExperts(experts.PinExpertsRequest(experts=refs([(1, 1)])), timeout=5)
        for pairs, field, message in (
                ([(NUM_LAYERS, 0)], "experts[0].layer", f"{NUM_LAYERS} is none of the {NUM_LAYERS} layers"),
                ([(0, 1), (0, NUM_EXPERTS)], "experts[1].expert", f"{NUM_EXPERTS} is not in [0, {NUM_EXPERTS - 1}]"),
                ([(0, e) for e in range(6)], "experts", "6 experts are more than 5")):
            with self.subTest(field=field):
                error = self.refused(server, pairs)
                self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn(message, error.details())
                self.assertEqual(error_details(error)["BadRequest"].field_violations[0].field, field)
        self.wait_for("not kept", lambda: server.metric("cadre_experts_kept") == 1)
        five = refs([(0, e) for e in range(5)])
        answer = server.experts.PinExperts(experts.PinExpertsRequest(experts=five), timeout=5)
        self.assertEqual(answer.num_pinned, 5)
        # One slot for all others, and all of them are served.
        self.complete(server, PROMPTS[0])

        resident = Server()
        self.addCleanup(resident.stop)
        error = self.refused(resident, [(0, 0)])
        self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(error_details(error)["ErrorInfo"].reason, "EXPERTS_RESIDENT")

    def test_the_client_pins(self):
        server = self.start()
        self.complete(server, PROMPTS[0])
        profile = self.profile_of(server)
        for arguments, output, kept in ((("0/3", "1/5"), "pinned: 2 experts\n", 2),
                                        (("--profile", profile, "--count", 7), "pinned: 7 experts\n", 7),
                                        (("--none",), "pinned: 0 experts\n", 0)):
            with self.subTest(arguments=arguments):
                result = self.cadre(server, "pin", *arguments)
                self.assertEqual((result.returncode, result.stdout), (0, output), result.stderr)
                self.wait_for("not so many", lambda: server.metric("cadre_experts_kept") == kept)
        for arguments in ((), ("3",), ("a/b",), ("0/1", "--none"), ("--count", "3"), ("--profile", profile)):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.cadre(server, "pin", *arguments).returncode, 64)
        refused = self.cadre(server, "pin", "0/99")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("experts[0].expert: 99 is not in [0, 15]", refused.stderr)


if __name__ == "__main__":
    unittest.main()
