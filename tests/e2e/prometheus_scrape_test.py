"""The metrics as operators get them: a real Prometheus scrapes a real server, and is asked what it saw."""

import shutil
import socket
import subprocess
import unittest
import urllib.request

import grpc

from harness import Completion, Server, request
from prometheus import Prometheus


@unittest.skipUnless(shutil.which("prometheus") and shutil.which("promtool"), "prometheus is not installed")
class PrometheusScrapeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--metrics-experts", "ranked", "--max-queue-requests", 64, model="sim:step_ms=1")
        cls.prometheus = Prometheus(cls.server.metrics_port)

    @classmethod
    def tearDownClass(cls):
        cls.prometheus.stop()
        cls.server.stop()

    def send(self, tokens):
        message = request(ids=[1, 2, 3, 4, 5], max_tokens=tokens)
        message.stopping.ignore_eos = True
        return Completion(self.server.generation.Generate(message, timeout=30))

    def test_prometheus_sees_what_clients_saw(self):
        before = self.server.metric("cadre_generated_tokens_total")
        told = sum(len(self.send(tokens).token_ids) for tokens in (1, 7, 20, 40))
        self.assertEqual(told, 68)
        with self.assertRaises(grpc.RpcError):
            self.server.generation.Generate(request("x", max_tokens=1, temperature=-1), timeout=5).next()
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

        prometheus = self.prometheus
        prometheus.wait_for("cadre_generated_tokens_total", before + told)
        prometheus.wait_for('up{job="cadre"}', 1)
        prometheus.wait_for('up{job="cadre-experts"}', 1)
        prometheus.wait_for("cadre_ready", 1)
        # The audit, asked of Prometheus: sums that are equal, on either page.
        top_k = self.server.top_k()
        routed = "sum(cadre_routing_assignments_total)"
        for left, right in (
                ("sum(cadre_requests_received_total)",
                 "sum(cadre_requests_rejected_total) + sum(cadre_requests_admitted_total)"),
                ("sum(cadre_requests_admitted_total)", "sum(cadre_requests_finished_total)"),
                ('sum(cadre_requests_finished_total{outcome="ok"})', "sum(cadre_completions_total)"),
                (routed, f"sum({top_k} * cadre_routing_tokens_total)"),
                (routed, 'sum(cadre_layer_assignments_total{job="cadre-experts"})'),
                (routed, 'sum(cadre_expert_assignments_total{job="cadre-experts"})'),
                # Nothing is in use; what is not free is kept by the prefix cache.
                ("sum(cadre_kv_blocks)", 'sum(cadre_kv_blocks{state=~"free|cached"})')):
            prometheus.wait_for(f"{left} - ({right})", 0)
        self.assertGreaterEqual(prometheus.value('cadre_requests_rejected_total{reason="invalid"}'), 1)
        ttft = prometheus.value("histogram_quantile(0.5, cadre_time_to_first_token_seconds_bucket)")
        self.assertGreater(ttft, 0)
        self.assertLess(ttft, 30)
        self.assertGreater(prometheus.value("cadre_step_sequences_count"), 0)
        model = prometheus.query("cadre_model_info")[0][0]
        self.assertEqual((model["family"], model["experts_per_token"]), ("simulated", str(top_k)))
        self.assertLessEqual(prometheus.value('scrape_samples_scraped{job="cadre"}'), 400)

    def test_promtool_accepts_the_live_pages(self):
        self.send(5)
        for path in ("/metrics", "/metrics/experts"):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.metrics_port}{path}", timeout=5) as answer:
                self.assertEqual(answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
                page = answer.read()
            check = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
            self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_scrapes_go_on_beside_stalled_clients(self):
        stalled = []
        for _ in range(200):
            client = socket.create_connection(("127.0.0.1", self.server.metrics_port))
            client.send(b"GET /metrics HTTP/1.1\r\nHo")
            stalled.append(client)
        told = self.server.metric("cadre_generated_tokens_total") + len(self.send(30).token_ids)
        self.prometheus.wait_for("cadre_generated_tokens_total", told)
        self.assertEqual(self.prometheus.value('max_over_time(up{job="cadre"}[3s])'), 1)
        for client in stalled:
            client.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
