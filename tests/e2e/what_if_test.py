"""What other caches of experts would have done, as a real server process tells it."""

import subprocess
import time
import unittest

import grpc

from cached_model import ALL_EXPERTS, PROMPTS, CachedModelTest, ask
from harness import BIN, clean_environment, error_details, request
from harness import experts as experts_pb


class WhatIfTest(CachedModelTest):
    def test_what_other_caches_would_have_done(self):
        num_slots = ALL_EXPERTS // 2
        # Nothing is read ahead, and all misses of a layer travel at once: when reads end changes nothing.
        server = self.start(num_slots, "--prefix-cache", "off", "--expert-prefetch", "off", "--expert-read-threads", 16)
        answer = server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=30)
        self.assertEqual((answer.lookups, len(answer.caches), answer.slots, answer.policy),
                         (0, 0, num_slots, "next-use"))
        for prompt in PROMPTS:
            self.complete(server, ask(prompt))
        server.wait_until_idle()
        answer = server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=30)
        hits = {(row.policy, row.slots): row.hits for row in answer.caches}
        self.assertEqual(len(hits), 6 * 3)
        live = server.metric("cadre_expert_lookups_total", result="hit")
        lookups = live + server.metric("cadre_expert_lookups_total", result="miss")
        # The trace holds all of it: the simulation of this cache is this cache.
        self.assertEqual(answer.lookups, lookups)
        self.assertEqual(hits["next-use", num_slots], live)
        for (policy, slots), count in hits.items():
            self.assertLessEqual(count, hits["belady", slots], policy)
            self.assertEqual(server.metric("cadre_expert_what_if_hit_ratio", policy=policy, size={
                num_slots // 2: "half", num_slots: "same", num_slots * 2: "twice"}[slots]), count / lookups)
        table = subprocess.run([str(BIN / "cadre"), "-a", server.address, "experts", "--what-if"], capture_output=True,
                               text=True, timeout=30, env=clean_environment())
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        self.assertIn(f"{lookups:.0f} lookups", table.stdout)
        self.assertIn(f"> {100 * live / lookups:.1f} %", table.stdout)
        self.assertEqual(len(table.stdout.splitlines()), 7)

    def test_few_calls_wait_for_a_simulation(self):
        server = self.start(ALL_EXPERTS // 2, "--prefix-cache", "off")
        self.complete(server, ask(PROMPTS[0]))
        server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=30)
        # The next simulation begins half a second after this one.
        self.complete(server, request("Once", max_tokens=1))
        calls = [server.experts.GetWhatIf.future(experts_pb.GetWhatIfRequest(), timeout=30) for _ in range(64)]
        # A name that is wrong need not wait, nor find a place, to be told so.
        with self.assertRaises(grpc.RpcError) as caught:
            server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(model="other"), timeout=30)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        refused = [call.exception() for call in calls if call.exception() is not None]
        self.assertGreater(len(refused), 0)
        self.assertLessEqual(len(refused), 64 - 16)
        for error in refused:
            self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertEqual(error_details(error)["ErrorInfo"].reason, "TOO_MANY_WHAT_IF_CALLS")
        # The places are free again.
        self.assertEqual(server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=30).pinned, 0)
        server.experts.PinExperts(experts_pb.PinExpertsRequest(experts=[experts_pb.ExpertRef(layer=0, expert=1)]),
                                  timeout=5)
        while server.metric("cadre_experts_kept") != 1:  # a call that pins returns before the next step
            time.sleep(0.01)
        self.assertEqual(server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=30).pinned, 1)

    def test_without_a_cache_there_is_nothing_to_compare(self):
        server = self.resident()
        with self.assertRaises(grpc.RpcError) as caught:
            server.experts.GetWhatIf(experts_pb.GetWhatIfRequest(), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "EXPERTS_RESIDENT")
        with self.assertRaises(KeyError):
            server.metric("cadre_expert_what_if_lookups")


if __name__ == "__main__":
    unittest.main()
