#!/usr/bin/env python3
"""The log of a running server: as JSON, every line parses, and a line about a request has its ids and tenant as fields;
as text it is for people. No prompt is in either."""

import json
import os
import re
import tempfile
import unittest

import grpc

import harness
from trace_test import PARENT, TRACE, Collector

PROMPT = "Once upon a time, platypus"
SECRET = "a-secret-of-many-characters"
COMMON = {"time", "level", "message"}


def generate(server, *metadata, tenant="", **sampling):
    request = harness.request(PROMPT, max_tokens=4, **sampling)
    request.scheduling.tenant = tenant
    return server.generation.GenerateText(request, timeout=60, metadata=metadata)


def lines_of(server):
    """Of a server that was ended: the log is whole then."""
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log_text().splitlines()]
    assert all(COMMON <= set(line) and re.fullmatch(r"\d{4}-.*Z", line["time"]) for line in lines)
    return lines


class JsonLogTest(unittest.TestCase):
    def server(self, *flags):
        server = harness.Server("--log-format", "json", "--log-level", "debug", *flags)
        self.addCleanup(server.stop)
        return server

    def fields(self, lines, request_id):
        """Of the only line about a request, without those that every line has."""
        line, = [line for line in lines if line.get("request_id") == request_id]
        self.assertIn(request_id, line["message"])
        return {name: value for name, value in line.items() if name not in COMMON}

    def refused(self, code, server, *metadata, **values):
        with self.assertRaises(grpc.RpcError) as caught:
            generate(server, *metadata, **values)
        self.assertEqual(caught.exception.code(), code)

    def test_a_request_is_found_by_its_fields(self):
        collector = Collector()
        self.addCleanup(lambda: collector.server.stop(0))
        server = self.server("--otlp-endpoint", collector.endpoint, "--trace-sample-ratio", "0")
        sampled, not_sampled = (("traceparent", f"00-{TRACE}-{PARENT}-0{flag}") for flag in (1, 0))
        generate(server, ("x-request-id", "recorded"), sampled, tenant="acme")
        generate(server, ("x-request-id", "not-recorded"), not_sampled)
        generate(server, ("x-request-id", "alone"))
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.refused(invalid, server, ("x-request-id", "refused"), sampled, tenant="acme", temperature=-1)
        self.refused(invalid, server, ("x-request-id", "long"), tenant="t" * 500)
        lines = lines_of(server)
        recorded = self.fields(lines, "recorded")
        spans = {span.span_id.hex() for span in collector.spans if span.parent_span_id.hex() == PARENT}
        self.assertIn(recorded.pop("span_id"), spans)
        self.assertEqual(recorded, {"request_id": "recorded", "trace_id": TRACE, "tenant": "acme"})
        self.assertEqual(self.fields(lines, "not-recorded"), {"request_id": "not-recorded", "trace_id": TRACE})
        self.assertEqual(self.fields(lines, "alone"), {"request_id": "alone"})
        refused = self.fields(lines, "refused")
        self.assertIn(refused.pop("span_id"), spans)
        self.assertEqual(refused, {"request_id": "refused", "trace_id": TRACE, "tenant": "acme"})
        self.assertEqual(self.fields(lines, "long")["tenant"], "t" * 128)
        self.assertTrue(all(set(line) == COMMON for line in lines if "request_id" not in line))
        self.assertNotIn("platypus", server.log_text())

    def test_with_keys_the_tenant_is_the_name_of_the_key(self):
        with tempfile.NamedTemporaryFile("w", prefix="cadre-keys-") as keys:
            os.fchmod(keys.fileno(), 0o600)
            keys.write(f"shop generation {SECRET}\n")
            keys.flush()
            server = self.server("--api-keys-file", keys.name)
            key = ("authorization", f"Bearer {SECRET}")
            generate(server, key, ("x-request-id", "own"))
            self.refused(grpc.StatusCode.PERMISSION_DENIED, server, key, ("x-request-id", "other"), tenant="acme")
            lines = lines_of(server)
        self.assertEqual(self.fields(lines, "own"), {"request_id": "own", "tenant": "shop"})
        self.assertEqual(self.fields(lines, "other"), {"request_id": "other", "tenant": "shop"})
        self.assertNotIn(SECRET, server.log_text())

    def test_who_changed_what_is_found_by_its_fields(self):
        with tempfile.NamedTemporaryFile("w", prefix="cadre-keys-") as keys:
            os.fchmod(keys.fileno(), 0o600)
            keys.write(f"on-call operator {SECRET}\n")
            keys.flush()
            server = self.server("--api-keys-file", keys.name)
            metadata = (("authorization", f"Bearer {SECRET}"), ("x-request-id", "r" * 500),
                        ("traceparent", f"00-{TRACE}-{PARENT}-01"))
            policy = harness.experts.SetCapacityPolicyRequest()
            policy.policy.scope = 1  # off, as it is
            server.experts.SetCapacityPolicy(policy, metadata=metadata, timeout=10)
            server.experts.ResetStats(harness.experts.ResetStatsRequest(), metadata=metadata[:1], timeout=10)
            lines = lines_of(server)
        changed, = [line for line in lines if line.get("method", "").endswith("/SetCapacityPolicy")]
        reset, = [line for line in lines if line.get("method", "").endswith("/ResetStats")]
        peer = changed["peer"]
        self.assertRegex(peer, r"^ipv[46]:")
        self.assertTrue(changed.pop("message").startswith(f"capacity of experts changed by on-call at {peer}: "))
        self.assertEqual({name: changed[name] for name in set(changed) - COMMON},
                         {"method": "/cadre.v1.ExpertService/SetCapacityPolicy", "key": "on-call", "peer": peer,
                          "request_id": "r" * 128, "trace_id": TRACE})
        self.assertEqual(reset["message"], f"expert statistics reset by on-call at {reset['peer']}")
        self.assertEqual(set(reset) - COMMON, {"method", "key", "peer"})
        self.assertNotIn(SECRET, server.log_text())

    def test_a_client_writes_no_field(self):
        server = self.server()
        tenant = 'a","request_id":"forged\n{"level":"error"}'
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, server, ("x-request-id", "honest"), tenant=tenant)
        lines = lines_of(server)
        self.assertEqual(self.fields(lines, "honest"), {"request_id": "honest", "tenant": tenant})
        self.assertEqual([line for line in lines if line.get("request_id") == "forged"], [])


class TextLogTest(unittest.TestCase):
    def test_text_is_for_people(self):
        with harness.Server("--log-level", "debug") as server:
            generate(server, ("x-request-id", "told"), ("traceparent", f"00-{TRACE}-{PARENT}-01"), tenant="acme")
            self.assertEqual(server.stop(), 0)
            self.assertRegex(server.log_text(), r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} D "
                             rf"request told of trace {TRACE}: OK after \d generated tokens$")
            self.assertNotIn("platypus", server.log_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
