"""Keys, roles and operators' calls, against a real server process: who is let in, who is not, and what a changed key
file does while requests run."""

import asyncio
import hashlib
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import grpc

from harness import BIN, DEMO_MODEL, ROOT, Completion, Server, clean_environment, error_details, experts, generation, \
    models, request

sys.path.insert(0, str(ROOT / "clients" / "python" / "tests"))

import package  # noqa: E402,F401  makes cadre_client importable

from cadre_client import AsyncClient, CadreError, Client, GenerateOptions  # noqa: E402

engine = importlib.import_module("vllm.grpc.engine.vllm_engine_pb2")
engine_grpc = importlib.import_module("vllm.grpc.engine.vllm_engine_pb2_grpc")

ALICE, GRAFANA, OPS = "alice-0123456789abcdef", "grafana-0123456789abcdef", "operators-0123456789abcdef"
KEYS = f"""# The operators' secret is known by its digest alone.
alice   generation    {ALICE}
grafana experts-read  {GRAFANA}
ops     experts-read,operator  sha256:{hashlib.sha256(OPS.encode()).hexdigest()}
"""
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = b"\x3a\x00"


def bearer(secret):
    return [("authorization", f"Bearer {secret}")]


def all_methods():
    """{path: whether it streams} of every method of the protos that the server serves."""
    found = {}
    for proto in sorted((ROOT / "proto").rglob("*.proto")):
        if "opentelemetry" in proto.parts:  # others serve it
            continue
        name = ".".join(proto.relative_to(ROOT / "proto").with_suffix("").parts) + "_pb2"
        try:
            services = importlib.import_module(name).DESCRIPTOR.services_by_name
        except ImportError:  # health: spoken by hand
            continue
        for service in services.values():
            for method in service.methods:
                found[f"/{service.full_name}/{method.name}"] = method.server_streaming
    return found


def raw_error(channel, path, streams, metadata=(), body=b""):
    """The error with which an empty request ends, or None."""
    try:
        if streams:
            for _ in channel.unary_stream(path)(body, metadata=metadata, timeout=10):
                break
        else:
            channel.unary_unary(path)(body, metadata=metadata, timeout=10)
    except grpc.RpcError as error:
        return error
    return None


def raw_call(*arguments, **options):
    """Its status code and message."""
    error = raw_error(*arguments, **options)
    return (error.code().name, error.details()) if error else ("OK", "")


def reason_of(error):
    return error_details(error)["ErrorInfo"].reason


class KeyTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cadre-keys-")
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "keys"
        self.write(KEYS)

    def write(self, text):
        """As a careful operator: a new file in place of the old one."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.rename(self.path)

    def start(self, *flags, model="sim", **options):
        server = Server("--api-keys-file", self.path, *flags, model=model, **options)
        self.addCleanup(server.stop)
        return server

    def wait_for(self, condition, timeout=15):
        end = time.monotonic() + timeout
        while not condition():
            self.assertLess(time.monotonic(), end, "it did not happen")
            time.sleep(0.05)

    def assert_code(self, server, secret, expected, path="/cadre.v1.GenerationService/Tokenize"):
        code, message = raw_call(server.channel, path, False, bearer(secret) if secret else ())
        self.assertEqual(code, expected, message)

    def test_every_method_needs_a_key(self):
        server = self.start("--enable-vllm-engine-api")
        methods = all_methods()
        self.assertGreaterEqual(len(methods), 18)
        self.assertIn("/cadre.v1.ExpertService/WatchExpertStats", methods)
        for path, streams in methods.items():
            for metadata in ((), bearer("somebody-elses-secret"), [("authorization", "Basic " + ALICE)],
                             bearer(ALICE) + bearer(ALICE)):
                error = raw_error(server.channel, path, streams, metadata)
                self.assertEqual(error.code().name, "UNAUTHENTICATED", f"{path} with {metadata}")
                self.assertEqual(reason_of(error), "UNAUTHENTICATED", path)
                self.assertIn("key" if not metadata or "some" in metadata[0][1] else "authorization", error.details())
        code, _ = raw_call(server.channel, REFLECTION, True, body=LIST_SERVICES)
        self.assertEqual(code, "UNAUTHENTICATED")
        self.assertEqual(server.metric("cadre_calls_refused_total", reason="unknown_key"), len(methods))
        self.assertEqual(server.metric("cadre_requests_received_total"), 0)

    def test_nothing_of_a_stranger_is_read(self):
        server = self.start("--enable-vllm-engine-api")
        never = threading.Event()
        self.addCleanup(never.set)
        for path in (*all_methods(), REFLECTION):
            with self.assertRaises(grpc.RpcError) as refused:
                list(server.channel.stream_stream(path)(iter(never.wait, False), timeout=10))
            self.assertEqual(refused.exception.code().name, "UNAUTHENTICATED", path)

    def test_who_says_nothing_is_not_waited_for(self):
        server = self.start("--request-timeout", "300ms")
        never = threading.Event()
        self.addCleanup(never.set)
        for path, secret in (("/cadre.v1.GenerationService/Generate", ALICE),
                             ("/cadre.v1.ModelService/GetModel", ALICE),
                             ("/cadre.v1.ExpertService/PinExperts", OPS)):
            call = server.channel.stream_stream(path)(iter(never.wait, False), metadata=bearer(secret), timeout=30)
            with self.assertRaises(grpc.RpcError) as ended:
                list(call)
            self.assertEqual(reason_of(ended.exception), "REQUEST_TIMEOUT", path)

    def test_what_is_not_served_is_named(self):
        server = self.start()
        for path, word in (("/vllm.grpc.engine.VllmEngine/Embed", "no method"),
                           ("/vllm.grpc.engine.VllmEngine/GetModelInfo", "--enable-vllm-engine-api"),
                           ("/cadre.v1.ModelService/GetSecrets", "no method")):
            code, message = raw_call(server.channel, path, False, bearer(ALICE))
            self.assertEqual(code, "UNIMPLEMENTED", path)
            self.assertIn(path, message)
            self.assertIn(word, message)
            self.assertEqual(raw_call(server.channel, path, False)[0], "UNAUTHENTICATED", path)

    def test_every_method_has_a_role(self):
        server = self.start("--enable-vllm-engine-api")
        for path, streams in all_methods().items():
            errors = {secret: raw_error(server.channel, path, streams, bearer(secret))
                      for secret in (ALICE, GRAFANA, OPS)}
            codes = {secret: error.code().name if error else "OK" for secret, error in errors.items()}
            for secret, code in codes.items():
                if code == "PERMISSION_DENIED":
                    self.assertEqual(reason_of(errors[secret]), "ROLE_MISSING", path)
            self.assertNotIn("UNAUTHENTICATED", codes.values(), path)
            let_in = [secret for secret, code in codes.items() if code != "PERMISSION_DENIED"]
            self.assertTrue(let_in, f"{path}: nobody may call it")
            for secret in let_in:
                self.assertNotEqual(codes[secret], "UNIMPLEMENTED", path)
            if "/cadre.v1.GenerationService/" in path:
                self.assertEqual(let_in, [ALICE], path)

    def test_nobody_aborts_what_another_caller_asked_for(self):
        bob = "bob-0123456789abcdefghij"
        self.write(KEYS + f"bob generation {bob}\n")
        server = self.start("--enable-vllm-engine-api", model="sim:step_ms=20")
        stub = engine_grpc.VllmEngineStub(server.channel)
        message = engine.GenerateRequest(request_id="of-alice", stream=True)
        message.tokenized.input_ids.extend([1, 2, 3])
        message.sampling_params.CopyFrom(engine.SamplingParams(max_tokens=1000, ignore_eos=True))
        call = stub.Generate(message, metadata=bearer(ALICE), timeout=60)
        next(call)
        abort = engine.AbortRequest(request_ids=["of-alice"])
        stub.Abort(abort, metadata=bearer(bob), timeout=10)
        for _ in range(5):
            self.assertTrue(next(call).HasField("chunk"))
        self.assertEqual(server.metric("cadre_requests_running"), 1)
        for secret, code in ((GRAFANA, grpc.StatusCode.PERMISSION_DENIED), ("x" * 20, grpc.StatusCode.UNAUTHENTICATED)):
            with self.assertRaises(grpc.RpcError) as refused:
                stub.Abort(abort, metadata=bearer(secret), timeout=10)
            self.assertEqual(refused.exception.code(), code)
        stub.Abort(abort, metadata=bearer(ALICE), timeout=10)
        with self.assertRaises(grpc.RpcError) as ended:
            list(call)
        self.assertEqual(ended.exception.code(), grpc.StatusCode.CANCELLED)
        self.assertIn("aborted", ended.exception.details())

    def test_reflection_answers_those_with_a_key(self):
        server = self.start()
        call = server.channel.stream_stream(REFLECTION)
        answer = next(call(iter([LIST_SERVICES]), metadata=bearer(GRAFANA), timeout=10))
        self.assertIn(b"cadre.v1.GenerationService", answer)

    def test_operators_calls_are_off_unless_enabled(self):
        server = self.start(operator_services=False)
        pin = "/cadre.v1.ExpertService/PinExperts"
        off = raw_error(server.channel, pin, False, bearer(OPS))
        self.assertEqual((off.code().name, reason_of(off)), ("UNIMPLEMENTED", "OPERATORS_OFF"))
        self.assertIn("--enable-operator-services", off.details())
        self.assert_code(server, ALICE, "PERMISSION_DENIED", pin)
        open_server = Server(model="sim", operator_services=False)
        self.addCleanup(open_server.stop)
        self.assertEqual(raw_call(open_server.channel, pin, False)[0], "UNIMPLEMENTED")
        self.assertEqual(raw_call(open_server.channel, "/cadre.v1.ModelService/GetModel", False)[0], "OK")

    def test_the_tenant_is_the_name_of_the_key(self):
        server = self.start(model=DEMO_MODEL)
        message = request("Once", max_tokens=2)
        for tenant in ("", "alice"):
            message.scheduling.tenant = tenant
            Completion(server.generation.Generate(message, metadata=bearer(ALICE), timeout=30))
        message.scheduling.tenant = "bob"
        with self.assertRaises(grpc.RpcError) as caught:
            Completion(server.generation.Generate(message, metadata=bearer(ALICE), timeout=30))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
        self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "TENANT_REFUSED")
        self.assertEqual(error_details(caught.exception)["BadRequest"].field_violations[0].field, "scheduling.tenant")
        stats = server.experts.GetTenantStats(experts.GetTenantStatsRequest(), metadata=bearer(GRAFANA), timeout=10)
        self.assertEqual([tenant.tenant for tenant in stats.tenants if tenant.processed], ["alice"])

    def test_a_new_key_file_holds_without_a_restart(self):
        server = self.start(model="sim:step_ms=20")
        stream = server.generation.Generate(request("abc", max_tokens=250), metadata=bearer(ALICE), timeout=60)
        next(stream)
        watch = server.experts.WatchExpertStats(experts.WatchExpertStatsRequest(), metadata=bearer(GRAFANA), timeout=60)
        next(watch)
        self.write(f"bob generation {ALICE[::-1]}\n")
        self.wait_for(lambda: server.metric("cadre_file_reloads_total", file="api_keys", result="ok") == 1)
        self.assert_code(server, ALICE, "UNAUTHENTICATED")
        self.assert_code(server, ALICE[::-1], "INVALID_ARGUMENT")  # an empty request, read by the method
        self.assertGreater(sum(len(event.delta.token_ids) for event in stream), 200)  # what ran goes on
        with self.assertRaises(grpc.RpcError) as caught:  # but for what has no end
            for _ in watch:
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_a_wrong_key_file_changes_nothing(self):
        server = self.start()
        self.write(KEYS + "mallory root a-secret-of-mallory\n")
        self.wait_for(lambda: server.metric("cadre_file_reloads_total", file="api_keys", result="failed") == 1)
        self.assertIn("line 5: roles", server.log_text())
        self.assertNotIn("a-secret-of-mallory", server.log_text())
        self.path.chmod(0o666)
        self.wait_for(lambda: server.metric("cadre_file_reloads_total", file="api_keys", result="failed") == 2)
        self.path.unlink()
        self.wait_for(lambda: server.metric("cadre_file_reloads_total", file="api_keys", result="failed") == 3)
        self.assertEqual(server.metric("cadre_file_wrong", file="api_keys"), 1)
        self.assert_code(server, ALICE, "INVALID_ARGUMENT")
        self.assert_code(server, "a-secret-of-mallory", "UNAUTHENTICATED")
        self.write(KEYS)  # as it was: nothing is new, and nothing wrong
        self.wait_for(lambda: server.metric("cadre_file_wrong", file="api_keys") == 0)
        self.assertEqual(server.metric("cadre_file_reloads_total", file="api_keys", result="ok"), 0)

    def test_a_wrong_key_file_ends_the_start(self):
        for text, mode, reason in (("alice generation short", 0o600, "line 1: secret: 5 characters"),
                                   (KEYS, 0o660, "chmod go-w"), ("", 0o600, "no key in it")):
            self.write(text)
            self.path.chmod(mode)
            done = subprocess.run(
                [BIN / "cadre-server", "--model=sim", "--port=0", "--metrics-port=0", f"--api-keys-file={self.path}"],
                capture_output=True, text=True, timeout=30, env=clean_environment(), check=False)
            self.assertEqual(done.returncode, 64, done.stderr)
            self.assertIn(f"--api-keys-file: {self.path}: ", done.stderr)
            self.assertIn(reason, done.stderr)

    def test_the_python_package_shows_its_key(self):
        server = self.start()
        options = GenerateOptions(max_tokens=2)

        async def ask(key):
            async with AsyncClient(server.address, timeout=10, api_key=key) as client:
                return await client.generate("abc", options)

        with Client(server.address, timeout=10, api_key=ALICE) as client:
            self.assertEqual(len(client.generate("abc", options).completions[0].token_ids), 2)
        self.assertEqual(len(asyncio.run(ask(ALICE)).completions[0].token_ids), 2)
        with mock.patch.dict(os.environ, CADRE_API_KEY=ALICE):
            with Client(server.address, timeout=10) as client:
                self.assertTrue(list(client.stream("abc", options)))
            with Client(server.address, timeout=10, api_key="") as client, self.assertRaises(CadreError) as caught:
                client.generate("abc", options)
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")
        with self.assertRaises(CadreError) as caught:
            asyncio.run(ask(OPS))
        self.assertEqual(caught.exception.code, "PERMISSION_DENIED")

    def test_a_tenant_has_limits(self):
        server = self.start("--tenant-requests-per-second", 0.5, "--tenant-burst", 3, "--tenant-max-concurrent", 2,
                            model="sim:step_ms=20")

        def generate(tokens):
            return server.generation.Generate(request("abc", max_tokens=tokens), metadata=bearer(ALICE), timeout=60)

        def refusal():
            with self.assertRaises(grpc.RpcError) as caught:
                Completion(generate(1))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            details = error_details(caught.exception)
            self.assertGreater(details["RetryInfo"].retry_delay.ToTimedelta().total_seconds(), 0)
            return details["ErrorInfo"].reason

        streams = [generate(3000) for _ in range(2)]
        for stream in streams:
            next(stream)
        self.assertEqual(refusal(), "TENANT_CONCURRENCY_LIMIT")
        for stream in streams:
            stream.cancel()
        server.wait_until_idle()
        time.sleep(0.5)  # for the calls to go, behind their requests
        Completion(generate(1))  # the last of the burst: who was refused took nothing from it
        self.assertEqual(refusal(), "TENANT_RATE_LIMIT")
        for limit in ("rate", "concurrency"):
            self.assertEqual(server.metric("cadre_tenant_limit_refusals_total", limit=limit), 1)
        self.assertEqual(server.metric("cadre_requests_rejected_total", reason="tenant_limit"), 2)

    def test_an_open_door_is_told(self):
        with Server("--host", "0.0.0.0", model="sim") as server:
            self.assertIn("without TLS and without keys", server.log_text())
        with Server("--host", "0.0.0.0", "--api-keys-file", self.path, model="sim") as server:
            self.assertIn("API KEYS TRAVEL IN PLAINTEXT", server.log_text())
        with Server(model="sim") as server:
            self.assertNotIn("without TLS", server.log_text())
        os.chmod(self.path, 0o604)
        with Server("--api-keys-file", self.path, model="sim") as server:
            self.assertIn("can be read by everybody", server.log_text())
            self.assertEqual(raw_call(server.channel, "/cadre.v1.ModelService/GetModel", False, bearer(GRAFANA),
                                      models.GetModelRequest().SerializeToString())[0], "OK")
            text = generation.TokenizeRequest(text="abc").SerializeToString()
            self.assertEqual(raw_call(server.channel, "/cadre.v1.GenerationService/Tokenize", False, bearer(ALICE),
                                      text)[0], "OK")


if __name__ == "__main__":
    unittest.main()
