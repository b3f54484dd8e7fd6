"""A real gateway with an OpenAI-compatible front before two servers: it is given their addresses and nothing else.

The gateway is smg from PyPI (tools/install_gateway.sh). Without it these tests are skipped, and say so.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import ROOT, Server, clean_environment, free_port, generation

SMG = shutil.which("smg", path=f"{ROOT / 'build' / 'gateway' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
MESSAGES = [{"role": "user", "content": "What is 2 + 3?"}]


class Gateway:
    """A gateway process before `servers`, ready when it knows all of them."""

    def __init__(self, servers):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="cadre-gateway-")
        self.log = (pathlib.Path(self.folder.name) / "log").open("w+b")
        urls = [f"grpc://{server.address}" for server in servers]
        self.process = subprocess.Popen(
            [SMG, "launch", "--host", "127.0.0.1", "--port", str(self.port), "--policy", "round_robin",
             "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--worker-urls", *urls],
            stdout=self.log, stderr=subprocess.STDOUT, cwd=self.folder.name, env=clean_environment())
        try:
            self.wait_for(len(servers))
        except BaseException:
            self.stop()
            raise

    def wait_for(self, num_workers, timeout=120):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                workers = self.get("/workers")["workers"]
                # A worker is listed before its tokenizer is there.
                if sum(bool(w["is_healthy"]) for w in workers) == num_workers and self.chat(max_tokens=1)[0] == 200:
                    return
            except (OSError, http.client.HTTPException, KeyError, ValueError):
                pass
            time.sleep(0.1)
        raise RuntimeError("the gateway was not ready:\n" + self.log_text())

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(encoding="utf-8", errors="replace")[-8000:]

    def connect(self, path, body=None):
        """An answer that has begun, and the connection that it comes on."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None,
                           {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def get(self, path):
        connection, answer = self.connect(path)
        with contextlib.closing(connection):
            return json.load(answer)

    def chat(self, **fields):
        """(HTTP status, the answer) of a chat, greedy unless told otherwise."""
        connection, answer = self.connect(
            "/v1/chat/completions", {"model": "demo", "messages": MESSAGES, "temperature": 0, **fields})
        with contextlib.closing(connection):
            return answer.status, json.loads(answer.read())

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        self.folder.cleanup()


@unittest.skipUnless(SMG, "the gateway is not installed: tools/install_gateway.sh gets it from PyPI")
class GatewayTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = []
        cls.addClassCleanup(lambda: [server.stop() for server in cls.servers])
        for _ in range(2):
            cls.servers.append(Server("--enable-vllm-engine-api", "--served-model-name", "demo"))
        cls.gateway = Gateway(cls.servers)
        cls.addClassCleanup(cls.gateway.stop)

    def tearDown(self):
        for server in self.servers:
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])

    def own_answer(self, max_tokens):
        """What the server itself says to the same conversation."""
        return self.servers[0].generation.GenerateText(
            generation.GenerateTextRequest(
                chat=generation.ChatInput(messages=[generation.ChatMessage(**m) for m in MESSAGES]),
                sampling=generation.SamplingParams(temperature=0),
                stopping=generation.StopConditions(max_tokens=max_tokens)), timeout=30)

    def test_completes_a_chat(self):
        own = self.own_answer(12)
        status, answer = self.gateway.chat(max_tokens=12)
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["choices"][0]["message"]["content"], own.sequences[0].text)
        usage = own.sequences[0].finished.usage
        self.assertEqual((answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]),
                         (usage.prompt_tokens, usage.generated_tokens))

    def test_streams_the_same(self):
        own = self.own_answer(24)
        connection, answer = self.gateway.connect("/v1/chat/completions", {
            "model": "demo", "messages": MESSAGES, "temperature": 0, "max_tokens": 24, "stream": True,
            "stream_options": {"include_usage": True}})
        with contextlib.closing(connection):
            events = [json.loads(line[6:]) for line in answer.read().decode().splitlines()
                      if line.startswith("data: {")]
        text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
        self.assertEqual(text, own.sequences[0].text)
        usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
        self.assertEqual(usage["completion_tokens"], own.sequences[0].finished.usage.generated_tokens)

    def test_samples_as_it_is_told(self):
        said = []
        for _ in range(2):
            status, answer = self.gateway.chat(max_tokens=8, n=3, temperature=1, seed=5, logprobs=True, top_logprobs=2)
            self.assertEqual(status, 200, answer)
            for choice in answer["choices"]:
                self.assertTrue(all(entry["logprob"] <= 0 for entry in choice["logprobs"]["content"]))
            self.assertEqual(sorted(choice["index"] for choice in answer["choices"]), [0, 1, 2])
            said.append({choice["index"]: choice["message"]["content"] for choice in answer["choices"]})
        self.assertEqual(said[0], said[1])
        self.assertGreater(len(set(said[0].values())), 1)

    def test_both_servers_work(self):
        before = [server.metric("cadre_requests_admitted_total") for server in self.servers]
        for _ in range(6):
            self.assertEqual(self.gateway.chat(max_tokens=2)[0], 200)
        work = [server.metric("cadre_requests_admitted_total") - old for server, old in zip(self.servers, before)]
        self.assertEqual(sum(work), 6)
        self.assertGreaterEqual(min(work), 2, work)

    def test_a_refusal_reaches_the_client(self):
        status, answer = self.gateway.chat(max_tokens=100_000)
        self.assertEqual(status, 400, answer)
        self.assertIn("sampling_params.max_tokens", json.dumps(answer))

    def cancelled(self):
        return sum(server.metric("cadre_requests_finished_total", outcome="cancelled") for server in self.servers)

    def test_a_client_that_leaves_frees_its_request(self):
        before = self.cancelled()
        for _ in range(10):  # the model may be done before the connection is
            connection, answer = self.gateway.connect("/v1/chat/completions", {
                "model": "demo", "messages": MESSAGES, "max_tokens": 900, "n": 8, "ignore_eos": True, "stream": True})
            with contextlib.closing(connection):
                self.assertEqual(answer.status, 200)
                answer.read(64)
                answer.close()
            for server in self.servers:
                server.wait_until_idle(60)
            if self.cancelled() > before:
                return
        self.fail("no request was cancelled:\n" + self.gateway.log_text())


if __name__ == "__main__":
    unittest.main()
