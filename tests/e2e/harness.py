"""What the end-to-end tests share: stubs from the protos alone, a server process, its metrics page, error details.

Needs the distribution's python3 with grpcio and protobuf, protoc and grpc_python_plugin; nothing of cadre but the
protos and the programs in build/release/bin (or the folder named by CADRE_BIN).
"""

import importlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "release" / "bin"))
DEMO_MODEL = ROOT / "models" / "demo"

_stub_folder = tempfile.TemporaryDirectory(prefix="cadre-stubs-")


def _generate_stubs():
    """Compiles proto/ into a temporary folder and puts it on the path, as a client's author would."""
    protos = [str(p.relative_to(ROOT / "proto")) for folder in ("cadre", "google", "opentelemetry", "smg", "vllm")
              for p in sorted((ROOT / "proto" / folder).rglob("*.proto"))]
    subprocess.run(
        ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={_stub_folder.name}", f"--grpc_python_out={_stub_folder.name}",
         "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin", *protos], check=True)
    sys.path.insert(0, _stub_folder.name)


_generate_stubs()
generation = importlib.import_module("cadre.v1.generation_service_pb2")
generation_grpc = importlib.import_module("cadre.v1.generation_service_pb2_grpc")
experts = importlib.import_module("cadre.v1.expert_service_pb2")
placement = importlib.import_module("cadre.v1.expert_placement_pb2")
experts_grpc = importlib.import_module("cadre.v1.expert_service_pb2_grpc")
models = importlib.import_module("cadre.v1.model_service_pb2")
models_grpc = importlib.import_module("cadre.v1.model_service_pb2_grpc")
rpc_status = importlib.import_module("google.rpc.status_pb2")
rpc_details = importlib.import_module("google.rpc.error_details_pb2")

SERVING, NOT_SERVING = 1, 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment():
    """The environment without settings of the server or the client."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CADRE_")}


def health_status(channel, service="readiness", timeout=2):
    """grpc.health.v1 Check, spoken by hand: one string field in, one enum field out."""
    name = service.encode()
    check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda b: b,
                                response_deserializer=lambda b: b)
    answer = check(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=timeout)
    return answer[1] if answer else 0


def error_details(error):
    """{message name: message} of the google.rpc details that came with a grpc.RpcError."""
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = rpc_status.Status.FromString(value)
            for any_detail in status.details:
                name = any_detail.type_url.rsplit(".", 1)[-1]
                detail = getattr(rpc_details, name)()
                any_detail.Unpack(detail)
                found[name] = detail
    return found


class Server:
    """A cadre-server process on free ports of the loopback interface, ready when the `with` block begins."""

    def __init__(self, *flags, model=DEMO_MODEL, wait=True, env=None, before_exec=None, ports=None,
                 operator_services=True):
        if operator_services:
            flags = ("--enable-operator-services", *flags)
        self.port, self.metrics_port = ports or (free_port(), free_port())
        self.address = f"127.0.0.1:{self.port}"
        self.log = tempfile.NamedTemporaryFile(prefix="cadre-server-", suffix=".log")
        self.process = subprocess.Popen(
            [str(BIN / "cadre-server"), "--model", str(model), "--port", str(self.port), "--metrics-port",
             str(self.metrics_port), *map(str, flags)], stdout=self.log, stderr=subprocess.STDOUT,
            env={**clean_environment(), **(env or {})}, preexec_fn=before_exec)
        self.channel = grpc.insecure_channel(self.address)
        self.generation = generation_grpc.GenerationServiceStub(self.channel)
        self.experts = experts_grpc.ExpertServiceStub(self.channel)
        self.models = models_grpc.ModelServiceStub(self.channel)
        if wait:
            try:
                self.wait_until_ready()
            except RuntimeError:
                self.stop()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"cadre-server ended with {self.process.returncode}:\n{self.log_text()}")
            try:
                # gRPC would wait for seconds after a first attempt that comes before the server listens.
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                if health_status(self.channel) == SERVING:
                    return
            except (grpc.RpcError, OSError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"cadre-server was not ready in {timeout} s:\n{self.log_text()}")

    def metrics_text(self, path="/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def metric(self, name, **labels):
        """Sum of the samples of `name` whose labels include `labels`."""
        total, found = 0.0, False
        for line in self.metrics_text().splitlines():
            match = re.fullmatch(r'([a-z_:]+)(?:\{(.*)\})? (\S+)', line)
            if not match or match.group(1) != name:
                continue
            of_line = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
            if all(of_line.get(key) == value for key, value in labels.items()):
                total, found = total + float(match.group(3)), True
        if not found:
            raise KeyError(f"{name}{labels} is not on /metrics")
        return total

    def wait_for_log(self, pattern, timeout=10):
        """Waits for a line that the regular expression matches: the log is written by a thread of its own."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.log_text()):
            if time.monotonic() > end:
                raise AssertionError(f"no line of the log matches {pattern}:\n{self.log_text()}")
            time.sleep(0.01)

    def wait_until_idle(self, timeout=10):
        """Waits until no request is queued or running; returns the seconds it took."""
        start = time.monotonic()
        # Each is a scrape of its own: a request may begin to run between two of them, so running is asked again.
        while any(self.metric(f"cadre_requests_{state}") for state in ("running", "waiting", "running")):
            if time.monotonic() - start > timeout:
                raise RuntimeError("requests are still in flight:\n" + self.metrics_text())
            time.sleep(0.01)
        return time.monotonic() - start

    def audit(self):
        """The identities that hold between the counters of an idle server; returns the broken ones."""
        broken = []

        def equal(what, left, right):
            if left != right:
                broken.append(f"{what}: {left} != {right}")

        m = self.metric
        admitted = m("cadre_requests_admitted_total")
        equal("received = rejected + admitted", m("cadre_requests_received_total"),
              m("cadre_requests_rejected_total") + admitted)
        equal("admitted = finished at idle", admitted, m("cadre_requests_finished_total"))
        equal("KV blocks in use at idle", m("cadre_kv_blocks", state="in_use"), 0)
        tokens, assignments = m("cadre_routing_tokens_total"), m("cadre_routing_assignments_total")
        fewest, most = tokens * self.architecture().routing.min_k, tokens * self.top_k()
        equal("routed assignments = tokens x K", assignments, min(max(assignments, fewest), most))
        return broken

    def architecture(self):
        return self.models.GetModel(models.GetModelRequest(), timeout=5).model.architecture

    def top_k(self):
        return self.architecture().top_k

    def stop(self, timeout=20):
        """SIGTERM, and the exit code."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode


def request(text=None, ids=None, max_tokens=None, **sampling):
    """A GenerateRequest from the fields that most tests set."""
    message = generation.GenerateRequest(sampling=generation.SamplingParams(**sampling))
    if text is not None:
        message.text = text
    if ids is not None:
        message.token_ids.ids.extend(ids)
    if max_tokens is not None:
        message.stopping.max_tokens = max_tokens
    return message


class Completion:
    """A whole stream, taken apart."""

    def __init__(self, stream):
        self.started = self.finished = None
        self.deltas = []
        for event in stream:
            kind = event.WhichOneof("event")
            if kind == "started":
                self.started = event.started
            elif kind == "delta":
                self.deltas.append(event.delta)
            else:
                self.finished = event.finished

    @property
    def text(self):
        return "".join(d.text for d in self.deltas) + self.finished.text

    @property
    def token_ids(self):
        return [token for d in self.deltas for token in d.token_ids]
