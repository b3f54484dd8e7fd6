"""Starting, refusing to start, overload, draining and stopping of a real server process."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from harness import BIN, DEMO_MODEL, NOT_SERVING, SERVING, Completion, Server, error_details, health_status, request


# A simulated model whose steps last: what is in flight stays in flight long enough to be looked at.
SLOW_MODEL = "sim:step_ms=10"


def long_request(tokens=400):
    message = request(ids=[1, 2, 3], max_tokens=tokens, temperature=0)
    message.stopping.ignore_eos = True
    return message


def run_server(*flags, timeout=20):
    command = [str(BIN / "cadre-server"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


class LifecycleTest(unittest.TestCase):
    def test_sigterm_lets_running_requests_finish(self):
        with Server("--drain-timeout", "30s", model=SLOW_MODEL) as server:
            answers = []
            runner = threading.Thread(
                target=lambda: answers.append(Completion(server.generation.Generate(long_request(), timeout=60))))
            runner.start()
            while not server.metric("cadre_requests_running"):
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            codes = set()
            while runner.is_alive():
                try:
                    Completion(server.generation.Generate(request(ids=[1], max_tokens=1), timeout=5))
                except grpc.RpcError as error:
                    codes.add(error.code())
                    if "RetryInfo" in error_details(error):
                        codes.add("RetryInfo")
                time.sleep(0.02)
            runner.join()
            self.assertEqual(len(answers[0].token_ids), 400)
            self.assertIn(grpc.StatusCode.UNAVAILABLE, codes)
            self.assertEqual(server.process.wait(10), 0)

    def test_clients_that_are_killed_leave_nothing_behind(self):
        """A kernel closes the connections of a process that is gone, without a word of gRPC."""
        with Server("--drain-delay", "0s", model=SLOW_MODEL) as server:
            expected = Completion(server.generation.Generate(long_request(60), timeout=60)).token_ids
            others = []
            for _ in range(3):
                clients = [subprocess.Popen([str(BIN / "cadre"), "-a", server.address, "generate", "x", "--max-tokens",
                                             "4000", "--ignore-eos"], stdout=subprocess.DEVNULL) for _ in range(8)]
                end = time.monotonic() + 20
                while server.metric("cadre_requests_running") < len(clients) and time.monotonic() < end:
                    time.sleep(0.01)
                stream = server.generation.Generate(long_request(60), timeout=60)
                next(stream)
                for client in clients:
                    client.kill()
                others.append(Completion(stream).token_ids)
                for client in clients:
                    client.wait()
                server.wait_until_idle()
            self.assertEqual(others, [expected] * 3)
            self.assertEqual(server.metric("cadre_requests_finished_total", outcome="cancelled"), 24)
            self.assertEqual(server.audit(), [])

    def test_readiness_falls_before_the_server_goes(self):
        with Server("--drain-timeout", "30s", model=SLOW_MODEL) as server:
            stream = server.generation.Generate(long_request(), timeout=60)
            next(stream)
            self.assertEqual(health_status(server.channel, "readiness"), SERVING)
            self.assertEqual(health_status(server.channel, "liveness"), SERVING)
            server.process.send_signal(signal.SIGTERM)
            seen = set()
            for _ in range(50):
                try:
                    seen.add(health_status(server.channel, "readiness"))
                except grpc.RpcError:
                    break
                time.sleep(0.01)
            self.assertIn(NOT_SERVING, seen)
            list(stream)
            self.assertEqual(server.process.wait(10), 0)

    def test_a_deadline_out_of_reach_is_refused_at_once(self):
        with Server(model=SLOW_MODEL) as server:
            Completion(server.generation.Generate(long_request(30), timeout=60))  # the server learns its pace
            begin = time.monotonic()
            with self.assertRaises(grpc.RpcError) as caught:
                Completion(server.generation.Generate(long_request(3000), timeout=10))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "DEADLINE_UNREACHABLE")
            self.assertLess(time.monotonic() - begin, 5)
            self.assertEqual(server.metric("cadre_requests_rejected_total", reason="deadline_unreachable"), 1)
            self.assertEqual(server.audit(), [])

    def test_deadlines_end_requests(self):
        with Server("--deadline-admission=off", model=SLOW_MODEL) as server:
            for timeout in (0.5, 1.0):
                with self.assertRaises(grpc.RpcError) as caught:
                    Completion(server.generation.Generate(long_request(3000), timeout=timeout))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])
            # The client gives up by its own clock too, so the server may hear of it as a cancellation.
            ended = [server.metric("cadre_requests_finished_total", outcome=o) for o in ("deadline", "cancelled")]
            self.assertEqual(sum(ended), 2)

    def test_a_second_signal_ends_at_once(self):
        with Server("--drain-timeout", "60s", model="sim:step_ms=50") as server:
            stream = server.generation.Generate(request(ids=[1, 2, 3], max_tokens=1000), timeout=60)
            next(stream)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            self.assertIsNone(server.process.poll())
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertNotEqual(server.process.wait(30), 0)
            self.assertLess(time.monotonic() - start, 30)  # the drain would take 60

    def test_overload_is_refused_at_once_with_a_time_to_retry(self):
        with Server("--max-num-seqs", 1, "--max-queue-requests", 2, model="sim:step_ms=20") as server:
            streams = [server.generation.Generate(request(ids=[1, 2], max_tokens=200), timeout=60) for _ in range(8)]
            refused = 0
            for stream in streams:
                try:
                    next(stream)
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
                    self.assertIn("RetryInfo", error_details(error))
                    refused += 1
                if refused == 5:
                    break
            self.assertGreaterEqual(refused, 1)
            for stream in streams:
                stream.cancel()
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])

    def test_a_port_in_use_is_refused_before_loading(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            result = run_server("--model", DEMO_MODEL, "--port", holder.getsockname()[1], "--metrics-port", 0)
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("in use", (result.stderr + result.stdout).lower())

    def test_two_servers_cannot_share_a_port(self):
        with Server() as server:
            result = run_server("--model", DEMO_MODEL, "--port", server.port, "--metrics-port", 0)
            self.assertEqual(result.returncode, 69, result.stderr)

    def test_a_missing_model_and_a_mistyped_flag_say_so(self):
        missing = run_server("--model", "/nonexistent/model")
        self.assertEqual(missing.returncode, 66, missing.stderr)
        self.assertIn("/nonexistent/model", missing.stderr + missing.stdout)
        if not pathlib.Path("/dev/nvidiactl").exists():
            no_gpu = run_server("--model", DEMO_MODEL, "--device", "cuda")
            self.assertEqual(no_gpu.returncode, 71, no_gpu.stderr)
            self.assertRegex(no_gpu.stderr + no_gpu.stdout, "(?i)driver|gpu|without cuda")
        mistyped = run_server("--modle", DEMO_MODEL)
        self.assertEqual(mistyped.returncode, 64, mistyped.stderr)
        self.assertIn("--model", mistyped.stderr + mistyped.stdout)

    def test_a_broken_checkpoint_is_refused_quickly(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = pathlib.Path(folder) / "model"
            shutil.copytree(DEMO_MODEL, broken)
            weights = broken / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-100])
            start = time.monotonic()
            result = run_server("--model", broken, "--port", 0, "--metrics-port", 0)
            self.assertLess(time.monotonic() - start, 10)
            self.assertEqual(result.returncode, 78, result.stderr)
            self.assertIn("model.safetensors", result.stderr + result.stdout)

    def test_a_model_that_does_not_fit_is_refused(self):
        result = run_server("--model", DEMO_MODEL, "--port", 0, "--metrics-port", 0, "--kv-cache-gb", 100000)
        self.assertEqual(result.returncode, 75, result.stderr)
        self.assertIn("--kv-cache-gb", result.stderr + result.stdout)

    def test_flags_come_from_the_environment_and_logs_can_be_json(self):
        with Server(env={"CADRE_SERVED_MODEL_NAME": "toy", "CADRE_LOG_FORMAT": "json"}) as server:
            answer = Completion(server.generation.Generate(request("a", max_tokens=1), timeout=10))
            self.assertEqual(answer.started.model, "toy")
            server.stop()
            lines = [line for line in server.log_text().splitlines() if line.strip()]
            self.assertTrue(lines)
            for line in lines:
                json.loads(line)


class MetricsHostTest(unittest.TestCase):
    """Linux answers on all of 127.0.0.0/8: addresses of one machine that are not each other's."""

    def reaches(self, host, port):
        try:
            socket.create_connection((host, port), timeout=5).close()
            return True
        except ConnectionRefusedError:
            return False

    def test_http_listens_where_grpc_does_unless_told_otherwise(self):
        with Server("--host", "127.0.0.1", model="sim") as server:
            self.assertTrue(self.reaches("127.0.0.1", server.metrics_port))
            self.assertFalse(self.reaches("127.0.0.2", server.metrics_port))
        with Server("--metrics-host", "127.0.0.2", model="sim") as server:
            self.assertFalse(self.reaches("127.0.0.1", server.metrics_port))
            self.assertTrue(self.reaches("127.0.0.2", server.metrics_port))
            self.assertTrue(self.reaches("127.0.0.1", server.port))
            self.assertFalse(self.reaches("127.0.0.2", server.port))
            self.assertIn(f"gRPC on {server.address}, metrics on 127.0.0.2:{server.metrics_port}", server.log_text())

    def test_pages_that_others_can_read_are_told(self):
        told = "HTTP listens on 0.0.0.0 in plaintext"
        with Server("--metrics-host", "0.0.0.0", model="sim") as server:
            self.assertIn(told, server.log_text())
            self.assertNotIn("gRPC listens on", server.log_text())
        with Server("--host", "0.0.0.0", model="sim") as server:
            self.assertIn(told, server.log_text())
        with Server("--host", "0.0.0.0", "--metrics-host", "127.0.0.1", model="sim") as server:
            self.assertNotIn("HTTP listens", server.log_text())

    def test_an_address_that_is_none_names_the_option(self):
        done = run_server("--model", "sim", "--port", "0", "--metrics-host", "no.such.host.invalid")
        self.assertEqual(done.returncode, 64)
        self.assertIn('--metrics-host, or --host without it: "no.such.host.invalid"', done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
