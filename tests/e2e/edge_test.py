"""deploy/haproxy in front of a server: honest clients notice nothing, and what gRPC 1.51 does not bound is bounded for
each source address. Attacks are of seconds, from 127.0.0.2; honest clients are at 127.0.0.1."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from harness import (ROOT, SERVING, Completion, Server, error_details, experts, experts_grpc, free_port,
                     generation_grpc, health_status, models, models_grpc, request)
from http2_flood import Attacker, endless_headers, rapid_reset

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
MODEL = "sim:step_ms=2"
# What a flood may leave in the memory of the server.
MAX_GROWTH = 16 << 20


def long_request(tokens):
    message = request(ids=[1, 2, 3], max_tokens=tokens, temperature=0)
    message.stopping.ignore_eos = True
    return message


class Edge:
    """An HAProxy process with the shipped configuration, in front of a server."""

    def __init__(self, server, credentials=None, **settings):
        self.port = free_port()
        self.log = tempfile.NamedTemporaryFile(prefix="cadre-edge-", suffix=".log")
        environment = {"CADRE_EDGE_BIND": f"127.0.0.1:{self.port}", "CADRE_EDGE_PORT": str(server.port),
                       "CADRE_EDGE_METRICS_PORT": str(server.metrics_port), **settings}
        self.process = subprocess.Popen(["haproxy", "-f", str(CONFIG)], stdout=self.log, stderr=subprocess.STDOUT,
                                        env={**os.environ, **environment})
        address = f"127.0.0.1:{self.port}"
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        self.generation = generation_grpc.GenerationServiceStub(self.channel)
        self.experts = experts_grpc.ExpertServiceStub(self.channel)
        try:
            grpc.channel_ready_future(self.channel).result(10)
        except grpc.FutureTimeoutError as error:
            raise AssertionError(f"nobody can connect to the edge:\n{self.stop()}") from error

    def stop(self):
        self.channel.close()
        self.process.terminate()
        self.process.wait(10)
        return pathlib.Path(self.log.name).read_text(encoding="utf-8")


@unittest.skipUnless(shutil.which("haproxy"), "haproxy is not installed")
class EdgeTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--drain-delay", "1s", "--drain-timeout", "30s", model=MODEL)
        self.addCleanup(self.server.stop)

    def edge(self, credentials=None, **settings):
        edge = Edge(self.server, credentials, **settings)
        self.addCleanup(edge.stop)
        return edge

    def test_it_may_have_a_certificate(self):
        folder = tempfile.TemporaryDirectory(prefix="cadre-edge-")
        self.addCleanup(folder.cleanup)
        # The key as components/edge-tls of deploy/kubernetes mounts it: in a file of its own.
        cert = pathlib.Path(folder.name) / "edge.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=cadre", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", f"{cert}.key", "-out", cert], check=True, capture_output=True)
        edge = self.edge(grpc.ssl_channel_credentials(cert.read_bytes()), CADRE_EDGE_TLS=f"ssl crt {cert} alpn h2")
        direct = Completion(self.server.generation.Generate(long_request(20), timeout=30))
        through = Completion(edge.generation.Generate(long_request(20), timeout=30))
        self.assertEqual(through.token_ids, direct.token_ids)
        with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as plaintext, self.assertRaises(grpc.RpcError) as caught:
            health_status(plaintext)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_honest_clients_notice_nothing(self):
        edge = self.edge()
        direct = Completion(self.server.generation.Generate(long_request(200), timeout=30))
        through = Completion(edge.generation.Generate(long_request(200), timeout=30))
        self.assertEqual(through.token_ids, direct.token_ids)
        self.assertEqual(health_status(edge.channel), SERVING)
        # Statuses with details, and a request of megabytes.
        with self.assertRaises(grpc.RpcError) as caught:
            Completion(edge.generation.Generate(request("x", max_tokens=1, temperature=-1), timeout=10))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        with self.assertRaises(grpc.RpcError) as caught:
            Completion(edge.generation.Generate(request("x" * (4 << 20), max_tokens=1), timeout=30))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_a_stream_that_nobody_reads_holds_up_nobody(self):
        edge = self.edge()
        message = request(ids=[7] * 3000, max_tokens=1, temperature=0)
        message.output.prompt_logprobs = 20  # an event of several times the window
        stream = edge.generation.Generate(message, timeout=60)
        self.addCleanup(stream.cancel)
        end = time.monotonic() + 20
        while self.server.metric("cadre_requests_finished_total", outcome="ok") < 1:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        time.sleep(0.5)  # what can be sent has been
        models_grpc.ModelServiceStub(edge.channel).ListModels(models.ListModelsRequest(), timeout=5)
        self.assertTrue(next(stream).HasField("started"))

    def test_a_cancel_reaches_the_server(self):
        edge = self.edge()
        stream = edge.generation.Generate(long_request(3000), timeout=60)
        next(stream)
        stream.cancel()
        self.assertLess(self.server.wait_until_idle(), 2)
        self.assertEqual(self.server.metric("cadre_requests_finished_total", outcome="cancelled"), 1)

    def test_operators_calls_stay_inside(self):
        edge = self.edge()
        with self.assertRaises(grpc.RpcError) as caught:
            edge.experts.ResetStats(experts.ResetStatsRequest(), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
        self.server.experts.ResetStats(experts.ResetStatsRequest(), timeout=5)

    def test_streams_survive_a_drain_and_others_are_told(self):
        edge = self.edge()
        answers = []
        runner = threading.Thread(
            target=lambda: answers.append(Completion(edge.generation.Generate(long_request(1500), timeout=60))))
        runner.start()
        while runner.is_alive() and not self.server.metric("cadre_requests_running"):
            time.sleep(0.01)
        self.server.process.terminate()
        outcomes = []
        while runner.is_alive():
            try:
                Completion(edge.generation.Generate(request(ids=[1], max_tokens=1), timeout=5))
                outcomes.append("accepted")
            except grpc.RpcError as error:
                outcomes.append((error.code(), error_details(error)["ErrorInfo"].reason))
            time.sleep(0.05)
        self.assertEqual(len(answers[0].token_ids), 1500)
        # As without an edge: accepted for --drain-delay, then refused by the server itself.
        self.assertEqual(set(outcomes), {"accepted", (grpc.StatusCode.UNAVAILABLE, "DRAINING")})
        self.assertEqual(outcomes[0], "accepted")
        self.assertEqual(self.server.process.wait(20), 0)

    def attack(self, edge, seconds=3):
        """(calls sent, calls that reached the server, growth of its memory, honest calls, of these failed)"""
        Completion(edge.generation.Generate(long_request(20), timeout=10))
        received, resident = (self.server.metric(name) for name in
                              ("cadre_requests_received_total", "process_resident_memory_bytes"))
        sent = []
        flood = threading.Thread(target=lambda: sent.append(rapid_reset(edge.port, seconds)))
        flood.start()
        honest = failed = 0
        while flood.is_alive():
            honest += 1
            try:
                self.assertEqual(len(Completion(edge.generation.Generate(long_request(20), timeout=10)).token_ids), 20)
            except grpc.RpcError:
                failed += 1
            time.sleep(0.05)
        reached = self.server.metric("cadre_requests_received_total") - received - honest
        growth = self.server.metric("process_resident_memory_bytes") - resident
        return sent[0], reached, growth, honest, failed

    def test_a_flood_of_resets_is_cut_off(self):
        sent, reached, growth, honest, failed = self.attack(self.edge())
        self.assertGreater(sent, 600, "no flood")
        self.assertLess(growth, MAX_GROWTH)
        # Before it is cut, each second's first calls may pass.
        self.assertLess(reached, 2500)
        self.assertGreater(honest, 10)
        self.assertEqual(failed, 0, "clients of another address")
        self.assertEqual(self.server.process.poll(), None)

    def test_calls_beyond_the_rate_get_no_answer_and_reach_nobody(self):
        edge = self.edge(CADRE_EDGE_REQUEST_RATE="20")
        attacker = Attacker(edge.port)
        self.addCleanup(attacker.close)
        fast = grpc.insecure_channel(f"127.0.0.1:{edge.port}", [("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(fast.close)
        stub = generation_grpc.GenerationServiceStub(fast)
        before = self.server.metric("cadre_requests_received_total")
        outcomes = []
        for _ in range(60):
            outcomes.append(stub.Generate(request(ids=[1], max_tokens=1), timeout=5))
        codes = [call.code() for call in outcomes]
        self.assertIn(grpc.StatusCode.UNAVAILABLE, codes)
        self.assertLessEqual(self.server.metric("cadre_requests_received_total") - before, 25)
        # Another address is another source.
        self.assertTrue(attacker.answers())

    def test_headers_without_an_end_are_cut_off(self):
        edge = self.edge()
        resident = self.server.metric("process_resident_memory_bytes")
        taken = endless_headers(edge.port, 5)
        self.assertIsNotNone(taken, "never cut")
        self.assertLess(self.server.metric("process_resident_memory_bytes") - resident, MAX_GROWTH)
        self.assertEqual(len(Completion(edge.generation.Generate(long_request(20), timeout=10)).token_ids), 20)

    def test_connections_of_one_source_are_bounded(self):
        edge = self.edge(CADRE_EDGE_CONNECTIONS="5")
        attackers = [Attacker(edge.port) for _ in range(8)]
        self.addCleanup(lambda: [attacker.close() for attacker in attackers])
        # HAProxy's threads accept them in any order.
        self.assertEqual(sum(attacker.answers(0.5) for attacker in attackers), 5)
        self.assertEqual(len(Completion(edge.generation.Generate(long_request(20), timeout=10)).token_ids), 20)


@unittest.skipUnless(shutil.which("haproxy"), "haproxy is not installed")
class ConfigurationTest(unittest.TestCase):
    def check(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".cfg", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            return subprocess.run(["haproxy", "-c", "-f", file.name], capture_output=True, text=True, check=False)

    def test_haproxy_accepts_it_without_warnings(self):
        done = self.check(CONFIG.read_text(encoding="utf-8"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        broken = CONFIG.read_text(encoding="utf-8").replace("sc0_http_req_rate", "sc0_rate")
        self.assertNotEqual(self.check(broken).returncode, 0)

    def test_settings_are_documented_with_their_defaults(self):
        text = CONFIG.read_text(encoding="utf-8")
        used = dict(re.findall(r"\$\{(CADRE_EDGE_\w+)-([^}]*)\}", text))
        head = text.partition("global\n")[0]
        self.assertEqual(len(used), 8)
        for name, default in used.items():
            self.assertRegex(head, rf"{name}\b")
            self.assertIn(default, head)


if __name__ == "__main__":
    unittest.main(verbosity=2)
