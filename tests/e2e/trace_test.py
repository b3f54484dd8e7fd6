#!/usr/bin/env python3
"""Spans of calls at a collector of OpenTelemetry: those whose caller traces them, with its ids, and nobody's words."""

import concurrent.futures
import importlib
import threading
import unittest

import grpc

import harness

otlp = importlib.import_module("opentelemetry.trace_service_pb2")
otlp_grpc = importlib.import_module("opentelemetry.trace_service_pb2_grpc")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans = []
        self.has_come = threading.Condition()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        otlp_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.endpoint = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request, context):
        with self.has_come:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self.has_come.notify_all()
        return otlp.ExportTraceServiceResponse()

    def await_spans(self, count):
        with self.has_come:
            self.has_come.wait_for(lambda: len(self.spans) >= count, timeout=60)
            return {span.name: span for span in self.spans}


class TraceTest(unittest.TestCase):
    def setUp(self):
        self.collector = Collector()
        self.addCleanup(lambda: self.collector.server.stop(0))

    def generate(self, server, *metadata):
        request = harness.request("Once upon a time", max_tokens=8)
        request.stopping.min_tokens = 8
        return server.generation.GenerateText(request, timeout=60, metadata=metadata)

    def test_a_traced_call_is_told_with_its_phases(self):
        with harness.Server("--otlp-endpoint", self.collector.endpoint, "--trace-sample-ratio", "0",
                            "--log-level", "debug") as server:
            self.generate(server)  # nobody traces it
            self.generate(server, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1"),
                          ("x-request-id", "traced-1"))
            spans = self.collector.await_spans(4)
            self.assertEqual(sorted(spans), ["cadre.v1.GenerationService/GenerateText", "decode", "prefill", "queue"])
            whole = spans["cadre.v1.GenerationService/GenerateText"]
            self.assertEqual((whole.trace_id.hex(), whole.parent_span_id.hex(), whole.trace_state),
                             (TRACE, PARENT, "vendor=1"))
            attributes = {each.key: each.value for each in whole.attributes}
            self.assertEqual(attributes["cadre.request_id"].string_value, "traced-1")
            self.assertEqual(attributes["gen_ai.usage.output_tokens"].int_value, 8)
            self.assertEqual(attributes["rpc.grpc.status_code"].int_value, 0)
            for name in ("queue", "prefill", "decode"):
                self.assertEqual(spans[name].parent_span_id, whole.span_id)
                self.assertLessEqual(whole.start_time_unix_nano, spans[name].start_time_unix_nano)
                self.assertLessEqual(spans[name].end_time_unix_nano, whole.end_time_unix_nano + 1000)
            self.assertNotIn("Once", str(self.collector.spans))
            server.wait_for_log(f"request traced-1 of trace {TRACE}:")

    def test_a_trace_state_too_long_to_pass_on_is_dropped(self):
        with harness.Server("--otlp-endpoint", self.collector.endpoint) as server:
            self.generate(server, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=" + 512 * "1"))
            spans = self.collector.await_spans(4)
            whole = spans["cadre.v1.GenerationService/GenerateText"]
            self.assertEqual((whole.trace_id.hex(), whole.trace_state), (TRACE, ""))

    def test_what_is_left_is_sent_when_the_server_ends(self):
        with harness.Server("--otlp-endpoint", self.collector.endpoint) as server:
            self.generate(server)
        self.assertIn("decode", self.collector.await_spans(4))

    def test_a_collector_that_is_not_there_holds_nobody_up(self):
        with harness.Server("--otlp-endpoint", f"127.0.0.1:{harness.free_port()}") as server:
            self.generate(server)
            server.stop()
            self.assertEqual(server.process.returncode, 0)

    def test_an_endpoint_that_is_none_ends_the_start(self):
        server = harness.Server("--otlp-endpoint", "nowhere", wait=False)
        self.addCleanup(server.stop)
        self.assertNotEqual(server.process.wait(timeout=60), 0)
        self.assertIn('--otlp-endpoint: "nowhere": has no port', server.log_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
