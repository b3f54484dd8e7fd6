"""Limited experts, against a real server process: flags, what a request may demand, what an operator may change, what
becomes of tokens, and that others do not see it."""

import subprocess
import unittest

import grpc

from harness import BIN, Server, clean_environment, error_details, experts, generation, models, request

PROMPT = "Once upon a time, in a small village by the sea, there lived a girl who wanted to know everything."
OFF, REQUEST, BATCH = 1, 2, 3
DROP, REWEIGHT, REROUTE = 1, 2, 3


def states(routing):
    return routing.processed, routing.rerouted, routing.reweighted, routing.dropped


class CapacityTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--capacity-factor", 0.5, "--capacity-group", 16)
        self.addCleanup(self.server.stop)

    def generate(self, message=None, server=None, **capacity):
        message = message or request(PROMPT, max_tokens=24, temperature=0)
        if capacity:
            message.scheduling.capacity.SetInParent()
        for name, value in capacity.items():
            setattr(message.scheduling.capacity, name, value)
        answer = (server or self.server).generation.GenerateText(
            generation.GenerateTextRequest.FromString(message.SerializeToString()), timeout=60)
        return answer.sequences[0]

    def set_policy(self, **policy):
        message = experts.SetCapacityPolicyRequest()
        message.policy.SetInParent()
        for name, value in policy.items():
            setattr(message.policy, name, value)
        return self.server.experts.SetCapacityPolicy(message, timeout=5)

    def assert_fails(self, code, call, **arguments):
        with self.assertRaises(grpc.RpcError) as caught:
            call(**arguments)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception

    def test_what_is_lost_is_told(self):
        routing = self.generate().finished.routing
        self.assertGreater(routing.dropped, 0)
        self.assertGreater(routing.lost_gate_weight, 0)
        self.assertLess(routing.fidelity, 1)
        self.assertGreater(routing.fidelity, 0)
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])
        self.assertEqual(self.server.metric("cadre_routing_assignments_total", state="dropped"), routing.dropped)
        self.assertEqual(self.server.metric("cadre_routing_assignments_total"), sum(states(routing)))
        self.assertAlmostEqual(self.server.metric("cadre_routing_lost_gate_weight_total"), routing.lost_gate_weight, 3)
        stats = self.server.experts.GetExpertStats(experts.GetExpertStatsRequest(), timeout=5).stats
        self.assertEqual(sum(sum(layer.dropped) for layer in stats.total), routing.dropped)
        lost = sum(sum(layer.lost_gate_weight) for layer in stats.total)
        self.assertAlmostEqual(lost, routing.lost_gate_weight, 3)

    def test_trailing_metadata_tells_it_for_all_sequences(self):
        stream = self.server.generation.Generate(request(PROMPT, max_tokens=24, temperature=0, n=2), timeout=60)
        reports = [event.finished.routing for event in stream if event.HasField("finished")]
        self.assertEqual(len(reports), 2)
        trailer = self.trailer(stream)
        for state, told in zip(("processed", "rerouted", "reweighted", "dropped"),
                               zip(*(states(report) for report in reports))):
            self.assertEqual(int(trailer[state]), sum(told))
        gate_weight, lost = (sum(getattr(report, field) for report in reports)
                             for field in ("gate_weight", "lost_gate_weight"))
        self.assertAlmostEqual(float(trailer["gate_weight"]), gate_weight, 6)
        self.assertAlmostEqual(float(trailer["lost_gate_weight"]), lost, 6)
        self.assertAlmostEqual(float(trailer["fidelity"]), 1 - lost / gate_weight, 9)
        refused = self.server.generation.Generate(request(PROMPT, max_tokens=0), timeout=5)
        with self.assertRaises(grpc.RpcError):
            list(refused)
        self.assertEqual(self.trailer(refused), {})

    def trailer(self, call):
        text = dict(call.trailing_metadata()).get("cadre-routing-report")
        return dict(pair.split("=") for pair in text.split(";")) if text else {}

    def test_tenants_are_counted(self):
        routing = {}
        for tenant in "a", "b", "":
            message = request(PROMPT + tenant, max_tokens=8)
            message.scheduling.tenant = tenant
            routing[tenant] = self.generate(message).finished.routing
        self.server.wait_until_idle()
        answer = self.server.experts.GetTenantStats(experts.GetTenantStatsRequest(), timeout=5)
        self.assertEqual([tenant.tenant for tenant in answer.tenants], ["", "other", "a", "b"])
        for tenant in answer.tenants:
            if tenant.tenant != "other":
                self.assertEqual(states(tenant), states(routing[tenant.tenant]))
                self.assertAlmostEqual(tenant.gate_weight, routing[tenant.tenant].gate_weight, 6)
                self.assertAlmostEqual(tenant.lost_gate_weight, routing[tenant.tenant].lost_gate_weight, 6)
        page = self.server.metrics_text("/metrics/experts")
        self.assertIn(f'cadre_tenant_assignments_total{{tenant="b",state="dropped"}} {routing["b"].dropped}', page)

    def test_the_model_tells_its_limits(self):
        capacity = self.server.models.GetModel(models.GetModelRequest(), timeout=5).model.capacity
        self.assertEqual((capacity.policy.scope, capacity.policy.overflow, capacity.policy.capacity_factor,
                          capacity.policy.group_tokens), (REQUEST, DROP, 0.5, 16))
        self.assertTrue(capacity.allows_override and capacity.is_supported)
        self.set_policy(scope=OFF)
        capacity = self.server.models.GetModel(models.GetModelRequest(), timeout=5).model.capacity
        self.assertEqual(capacity.policy.scope, OFF)
        self.assertEqual(self.generate().finished.routing.capacity.scope, OFF)

    def test_the_command_line_tells_it_and_can_demand_that_nothing_is_lost(self):
        def cadre(*arguments):
            return subprocess.run([str(BIN / "cadre"), "--address", self.server.address, *arguments], timeout=60,
                                  capture_output=True, text=True, env=clean_environment(), check=True)
        generate = "generate", PROMPT, "-n", "8", "--temperature", "0"
        self.assertRegex(cadre(*generate).stderr, r"lost assignments: \d+ of \d+, fidelity: 0\.\d{4}\]")
        self.assertNotIn("lost", cadre(*generate, "--dropless").stderr)
        self.assertIn("scope request, factor 0.5, at least 1, groups of 16, overflow drop; requests may choose",
                      cadre("model").stdout)

    def test_who_demands_it_loses_nothing(self):
        with Server() as unlimited:
            expected = self.generate(server=unlimited)
        dropless = self.generate(scope=OFF)
        self.assertEqual(dropless.token_ids, expected.token_ids)
        self.assertEqual(states(dropless.finished.routing), states(expected.finished.routing))
        self.assertEqual(dropless.finished.routing.fidelity, 1)
        self.assertNotEqual(self.generate().token_ids, expected.token_ids)

    def test_each_overflow_has_its_state(self):
        for overflow, state in (DROP, 3), (REWEIGHT, 2), (REROUTE, 1):
            self.assertGreater(states(self.generate(overflow=overflow).finished.routing)[state], 0)

    def test_neighbors_and_cached_prompts_change_nothing(self):
        alone = self.generate()
        crowd = [self.server.generation.Generate(request("the " * 60, max_tokens=30, seed=i, temperature=1))
                 for i in range(6)]
        again = self.generate()
        for stream in crowd:
            list(stream)
        self.assertEqual(again.token_ids, alone.token_ids)
        self.assertEqual(again.text, alone.text)

    def test_an_operator_changes_the_policy_and_leaves_a_line(self):
        before = self.set_policy(scope=OFF).previous_policy
        self.assertEqual((before.scope, before.capacity_factor, before.group_tokens), (REQUEST, 0.5, 16))
        self.assertEqual(self.generate().finished.routing.dropped, 0)
        self.assertEqual(self.set_policy(scope=BATCH, overflow=DROP, capacity_factor=0.25).previous_policy.scope, OFF)
        self.assertGreater(self.generate().finished.routing.dropped, 0)
        self.server.stop()
        log = self.server.log_text()
        self.assertIn("capacity of experts changed by ipv4:127.0.0.1", log)
        self.assertIn("scope=batch overflow=drop factor=0.25", log)
        self.assertIn("depends on the requests beside it", log)

    def test_refusals(self):
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, self.set_policy, capacity_factor=0.0)
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, self.set_policy, scope=OFF, min_capacity=4)
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, self.generate, group_tokens=-4)
        self.assertEqual(error_details(error)["ErrorInfo"].metadata["field"], "scheduling.capacity.group_tokens")
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, self.generate, scope=BATCH)
        self.assertEqual(error_details(error)["ErrorInfo"].reason, "CAPACITY_POLICY_REFUSED")
        with Server("--capacity-factor=0.5", "--capacity-override=refuse") as strict:
            self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, self.generate, server=strict, scope=OFF)
            self.assertGreater(self.generate(server=strict).finished.routing.dropped, 0)


if __name__ == "__main__":
    unittest.main()
