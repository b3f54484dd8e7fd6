"""The package against servers that a test makes up: requests field by field, retries, errors, streams that break."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
import package  # noqa: F401  makes cadre_client importable

import cadre_client
from cadre_client import (
    AsyncClient, Chat, Client, FinishReason, GenerateOptions, Message, OverloadedError, RetryPolicy, ToolCall,
    UnavailableError, UnreachableError, _protos)
from cadre_client._convert import event_from, generate_request
from cadre_client.errors import error_from_rpc
from cadre_client.retry import Attempts, RetryBudget

QUICK = RetryPolicy(initial_backoff=0.01, jitter=0.0)


def details(reason, retry_seconds=None, violations=()):
    """The trailer of a google.rpc.Status."""
    status = _protos.message_class("google.rpc.Status")(code=8, message="no")

    def add(name, message):
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=message.SerializeToString())

    add("ErrorInfo", _protos.message_class("google.rpc.ErrorInfo")(reason=reason, domain="cadre",
                                                                    metadata={"limit": "5"}))
    if retry_seconds is not None:
        retry = _protos.message_class("google.rpc.RetryInfo")()
        retry.retry_delay.seconds, retry.retry_delay.nanos = divmod(round(retry_seconds * 1e9), 10**9)
        add("RetryInfo", retry)
    if violations:
        bad = _protos.message_class("google.rpc.BadRequest")()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        add("BadRequest", bad)
    return ("grpc-status-details-bin", status.SerializeToString())


class FakeServer:
    """Answers GenerationService by what `script` says for each call, one after the other: a list of events and at most
    one error (code, text, trailers) at its end."""

    def __init__(self, script):
        self.script = list(script)
        self.requests, self.times, self.cancelled = [], [], threading.Event()
        self.lock = threading.Lock()

    def _next(self, request, context):
        with self.lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            return self.script.pop(0) if self.script else []

    def _fail(self, context, error):
        code, text, trailers = error
        context.set_trailing_metadata(trailers)
        context.abort(code, text)

    def generate(self, request, context):
        context.add_callback(lambda: None if context.is_active() else self.cancelled.set())
        for step in self._next(request, context):
            if isinstance(step, tuple):
                self._fail(context, step)
            elif callable(step):
                step()
            else:
                yield step

    def generate_text(self, request, context):
        for step in self._next(request, context):
            if isinstance(step, tuple):
                self._fail(context, step)
            return step
        return _protos.GENERATE_TEXT.response_class()

    @contextlib.contextmanager
    def running(self):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("cadre.v1.GenerationService", {
            "Generate": grpc.unary_stream_rpc_method_handler(
                self.generate, _protos.GENERATE.request_class.FromString,
                _protos.GENERATE.response_class.SerializeToString),
            "GenerateText": grpc.unary_unary_rpc_method_handler(
                self.generate_text, _protos.GENERATE_TEXT.request_class.FromString,
                _protos.GENERATE_TEXT.response_class.SerializeToString)}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0)


def started():
    event = _protos.GENERATE.response_class()
    event.started.request_id = "r"
    return event


def delta(text, *ids, index=0):
    event = _protos.GENERATE.response_class()
    event.delta.text, event.delta.index = text, index
    event.delta.token_ids.extend(ids)
    return event


def finished(text="", index=0, reason=4):
    event = _protos.GENERATE.response_class()
    event.finished.index, event.finished.text, event.finished.reason = index, text, reason
    return event


ANSWER = [started(), delta("a", 1), delta("b", 2, 3), finished("c")]
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", (details("QUEUE_FULL", 0.05),))


class RequestTest(unittest.TestCase):
    def test_every_option_reaches_its_field(self):
        """Each field of the dataclass is set alone: exactly one field of the message must follow."""
        values = {"Optional[bool]": True, "Optional[int]": 3, "Optional[float]": 0.5, "Mapping[int, float]": {7: 1.5},
                  "Sequence[int]": [4, 5], "Sequence[str]": ["x", "y"], "Optional[str]": "text", "str": "name"}
        empty = generate_request("p", GenerateOptions(), unary=False)
        for field in dataclasses.fields(GenerateOptions):
            value = values[field.type]
            request = generate_request("p", GenerateOptions(**{field.name: value}), unary=False)
            self.assertNotEqual(request, empty, field.name)
            paths = list(self.paths(request))
            self.assertEqual([path.rpartition(".")[2] for path in paths if path != "text"] or ["text"],
                             ["choices" if field.name == "choices" else field.name], paths)
        for field in ("temperature", "min_tokens", "top_logprobs", "ignore_eos", "priority"):
            zero = generate_request("p", GenerateOptions(**{field: 0}), unary=False)
            self.assertEqual(len(list(self.paths(zero))), 2, f"{field}: zero is not the same as unset")

    def paths(self, message, prefix=""):
        for descriptor, value in message.ListFields():
            path = prefix + descriptor.name
            if descriptor.message_type and not descriptor.message_type.GetOptions().map_entry \
                    and descriptor.message_type.name != "Duration":
                yield from self.paths(value, path + ".")
            else:
                yield path

    def test_prompts_are_text_ids_or_conversations(self):
        self.assertEqual(generate_request([1, 2], GenerateOptions(), unary=True).token_ids.ids, [1, 2])
        chat = Chat([Message("system", "be brief"), Message("assistant", tool_calls=[ToolCall("f", '{"a": 1}', "7")]),
                     Message("tool", "", tool_call_id="7")], tools=['{"type": "function"}'],
                    add_generation_prompt=False)
        wire = generate_request(chat, GenerateOptions(), unary=False).chat
        self.assertEqual([message.role for message in wire.messages], ["system", "assistant", "tool"])
        self.assertFalse(wire.messages[1].HasField("content"))
        self.assertTrue(wire.messages[2].HasField("content"))
        self.assertEqual(wire.messages[1].tool_calls[0].arguments, '{"a": 1}')
        self.assertTrue(wire.HasField("add_generation_prompt"))
        self.assertEqual(list(wire.tools), ['{"type": "function"}'])
        with self.assertRaises(ValueError):
            generate_request("p", GenerateOptions(regex="a", choices=["b"]), unary=False)

    def test_an_event_or_reason_of_a_newer_server_is_no_error(self):
        self.assertIsNone(event_from(_protos.GENERATE.response_class()))
        self.assertIs(event_from(finished(reason=99)).reason, FinishReason.UNSPECIFIED)

    def test_enums_have_the_names_of_the_api(self):
        reason = _protos.GENERATE.response_class.DESCRIPTOR.fields_by_name["finished"].message_type.fields_by_name[
            "reason"].enum_type
        self.assertEqual({value.name.replace("FINISH_REASON_", ""): value.number for value in reason.values},
                         {member.name: member.value for member in FinishReason})


class RetryTest(unittest.TestCase):
    def test_a_refused_call_is_made_again_when_the_server_said(self):
        server = FakeServer([[FULL], [FULL], ANSWER])
        with server.running() as address, Client(address, retry=QUICK) as client:
            with client.stream("x") as stream:
                self.assertEqual("".join(stream.texts()), "abc")
            self.assertEqual(stream.result().completions[0].token_ids, (1, 2, 3))
        gaps = [after - before for before, after in zip(server.times, server.times[1:])]
        self.assertEqual(len(gaps), 2)
        for gap in gaps:
            self.assertGreaterEqual(gap, 0.05)

    def test_nothing_is_retried_after_the_first_event(self):
        server = FakeServer([[started(), delta("a", 1), FULL], ANSWER])
        with server.running() as address, Client(address, retry=QUICK) as client:
            stream = client.stream("x")
            with self.assertRaises(OverloadedError) as raised:
                list(stream)
            self.assertEqual(raised.exception.reason, "QUEUE_FULL")
            self.assertEqual(raised.exception.retry_after, 0.05)
            with self.assertRaises(RuntimeError):
                stream.result()
        self.assertEqual(len(server.requests), 1)

    def test_other_errors_are_final(self):
        for code, kind in ((grpc.StatusCode.INVALID_ARGUMENT, cadre_client.InvalidRequestError),
                           (grpc.StatusCode.UNIMPLEMENTED, cadre_client.UnsupportedError),
                           (grpc.StatusCode.NOT_FOUND, cadre_client.NotFoundError),
                           (grpc.StatusCode.DEADLINE_EXCEEDED, cadre_client.DeadlineExceededError),
                           (grpc.StatusCode.INTERNAL, cadre_client.ServerError),
                           (grpc.StatusCode.DATA_LOSS, cadre_client.ServerError)):
            server = FakeServer([[(code, "no", (details("WHY", None, [("a.b", "9 is more than 5")]),))], ANSWER])
            with server.running() as address, Client(address, retry=QUICK) as client:
                with self.assertRaises(kind) as raised:
                    client.generate("x")
            error = raised.exception
            self.assertEqual((error.code, error.reason, error.message), (code.name, "WHY", "no"))
            self.assertEqual([(v.field, v.description) for v in error.field_violations], [("a.b", "9 is more than 5")])
            self.assertEqual(error.metadata, {"limit": "5"})
            self.assertEqual(len(server.requests), 1)

    def test_attempts_deadline_and_pushback_end_retries(self):
        server = FakeServer([[FULL]] * 9)
        with server.running() as address, Client(address, retry=RetryPolicy(max_attempts=3, jitter=0)) as client:
            with self.assertRaises(OverloadedError):
                client.generate("x")
            self.assertEqual(len(server.requests), 3)
            start = time.monotonic()
            with self.assertRaises(OverloadedError):  # the wait would not fit: it fails now, and not at the deadline
                client.generate("x", timeout=0.04)
            self.assertLess(time.monotonic() - start, 2)
            self.assertEqual(len(server.requests), 4)
        never = (grpc.StatusCode.UNAVAILABLE, "going", (details("DRAINING", 0.01), ("grpc-retry-pushback-ms", "-1")))
        server = FakeServer([[never], ANSWER])
        with server.running() as address, Client(address, retry=QUICK) as client:
            with self.assertRaises(UnavailableError) as raised:
                client.generate("x")
            self.assertNotIsInstance(raised.exception, UnreachableError)
        self.assertEqual(len(server.requests), 1)

    def test_a_budget_limits_retries_to_a_share_of_calls(self):
        budget = RetryBudget(ratio=0.5, capacity=2)
        error = OverloadedError("RESOURCE_EXHAUSTED", "no")

        def may_retry():
            return Attempts(RetryPolicy(), budget, None).wait_before_retry(error) is not None

        self.assertEqual([may_retry() for _ in range(4)], [True, True, False, False])
        Attempts(RetryPolicy(), budget, None).succeeded()
        self.assertFalse(may_retry())
        Attempts(RetryPolicy(), budget, None).succeeded()
        self.assertTrue(may_retry())

    def test_backoff_grows_with_jitter_up_to_its_limit(self):
        policy = RetryPolicy(max_attempts=10, initial_backoff=1, multiplier=3, max_backoff=5, jitter=0.5)
        attempts = Attempts(policy, RetryBudget(capacity=100), None, draw=lambda: 1.0)
        waits = [attempts.wait_before_retry(UnavailableError("UNAVAILABLE", "")) for _ in range(4)]
        self.assertEqual(waits, [1.5, 4.5, 7.5, 7.5])
        patient = UnavailableError("UNAVAILABLE", "", retry_after=60)
        self.assertIsNone(attempts.wait_before_retry(patient), "a server that asks for a minute is not asked again")
        for wrong in ({"max_attempts": 0}, {"multiplier": 0.5}, {"jitter": -1}):
            with self.assertRaises(ValueError):
                RetryPolicy(**wrong)

    def test_nobody_answers(self):
        with Client("127.0.0.1:1", retry=RetryPolicy(max_attempts=2, initial_backoff=0.01)) as client:
            with self.assertRaises(UnreachableError):
                client.generate("x", timeout=20)
            self.assertFalse(client.is_ready(timeout=1))

    def test_a_broken_trailer_is_no_second_error(self):
        class RpcError:
            def code(self):
                return grpc.StatusCode.UNAVAILABLE

            def details(self):
                return "odd"

            def trailing_metadata(self):
                return (("grpc-status-details-bin", os.urandom(40)), ("grpc-retry-pushback-ms", "soon"))

        for _ in range(200):
            error = error_from_rpc(RpcError())
            self.assertEqual((error.code, error.message), ("UNAVAILABLE", "odd"))
            self.assertTrue(error.retry_forbidden)


class StreamTest(unittest.TestCase):
    def test_closing_cancels_on_the_server(self):
        blocked = threading.Event()
        server = FakeServer([[started(), delta("a", 1), lambda: blocked.wait(5), finished()]])
        with server.running() as address, Client(address) as client:
            with client.stream("x") as stream:
                next(stream)
                next(stream)
            self.assertTrue(server.cancelled.wait(5))
            blocked.set()
            self.assertEqual(list(stream), [])

    def test_sequences_are_put_together_by_index(self):
        events = [started(), delta("a", 1, index=1), delta("x", 2), delta("b", 3, index=1), finished("!", index=1),
                  finished("y")]
        server = FakeServer([events])
        with server.running() as address, Client(address) as client:
            stream = client.stream("x")
            list(stream)
            result = stream.result()
        self.assertEqual([c.text for c in result.completions], ["xy", "ab!"])
        self.assertEqual([c.token_ids for c in result.completions], [(2,), (1, 3)])
        self.assertEqual((result.text, result.reason), ("xy", FinishReason.LENGTH))


class OpenAiDocumentTest(unittest.TestCase):
    """The example of docs/openai.md is run, and its tables name every value of the API."""

    TEXT = (package.CLIENT.parents[1] / "docs" / "openai.md").read_text(encoding="utf-8")

    def test_the_example_answers_a_chat_completion(self):
        namespace = {}
        exec(self.TEXT.split("```python\n")[1].split("```")[0], namespace)
        response = _protos.GENERATE_TEXT.response_class()
        response.started.request_id = "r"
        for index, reason in enumerate((1, 4, 5)):
            sequence = response.sequences.add(text=f"text {index}")
            sequence.finished.index, sequence.finished.reason = index, reason
            sequence.finished.usage.prompt_tokens, sequence.finished.usage.generated_tokens = 5, 2
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        body = {"messages": [{"role": "user", "content": parts},
                             {"role": "assistant", "content": None, "tool_calls": [
                                 {"id": "7", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}],
                "n": 3, "stop": "END", "max_tokens": 9, "logit_bias": {"12": -1}, "user": "u", "temperature": 0,
                "response_format": {"type": "json_object"}, "tools": [{"type": "function", "function": {"name": "f"}}]}
        server = FakeServer([[response]])
        with server.running() as address, Client(address) as client:
            answer = namespace["complete"](client, body)
        sent, = server.requests
        self.assertEqual(sent.chat.messages[0].content, "ab")
        self.assertEqual(sent.chat.messages[1].tool_calls[0].name, "f")
        self.assertEqual((sent.sampling.n, sent.sampling.logit_bias[12], sent.stopping.max_tokens), (3, -1, 9))
        self.assertTrue(sent.sampling.HasField("temperature"))
        self.assertEqual(list(sent.stopping.stop_strings), ["END"])
        self.assertEqual((sent.structured_output.json_schema, sent.scheduling.tenant), ('{"type": "object"}', "u"))
        self.assertEqual([choice["finish_reason"] for choice in answer["choices"]], ["stop", "length", "length"])
        self.assertEqual(answer["choices"][1]["message"]["content"], "text 1")
        self.assertEqual(answer["usage"]["total_tokens"], 5 + 6)

    def test_every_finish_reason_is_in_the_table(self):
        for member in FinishReason:
            if member is not FinishReason.UNSPECIFIED:
                self.assertRegex(self.TEXT, rf"\| `FINISH_REASON_{member.name}` \| `(stop|length)` \|")

    def test_fields_that_are_named_exist(self):
        groups = {field.name: field.message_type for field in _protos.GENERATE.request_class.DESCRIPTOR.fields}
        named = re.findall(r"`(sampling|stopping|output|scheduling|structured_output|prompt|chat)\.(\w+)", self.TEXT)
        self.assertGreater(len(named), 15)
        for group, field in named:
            self.assertIn(field, groups[group].fields_by_name, f"{group}.{field}")


class BuildTest(unittest.TestCase):
    """Outside of a checkout."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="cadre-client-")
        self.addCleanup(self.folder.cleanup)
        shutil.copy(package.CLIENT / "compile_protos.py", self.folder.name)

    def provide(self):
        code = "import compile_protos; compile_protos.provide_protos('protos.binpb')"
        return subprocess.run([sys.executable, "-c", code], cwd=self.folder.name, capture_output=True, text=True)

    def test_without_protos_there_is_no_package(self):
        built = self.provide()
        self.assertNotEqual(built.returncode, 0)
        self.assertIn("there is no folder proto/", built.stderr)

    def test_a_source_archive_carries_them(self):
        (pathlib.Path(self.folder.name) / "protos.binpb").write_bytes(b"compiled")
        self.assertEqual(self.provide().returncode, 0)


class AsyncTest(unittest.IsolatedAsyncioTestCase):
    async def test_streams_retries_and_errors(self):
        server = FakeServer([[FULL], ANSWER, [started(), FULL]])
        with server.running() as address:
            async with AsyncClient(address, retry=QUICK) as client:
                async with client.stream("x") as stream:
                    self.assertEqual([text async for text in stream.texts()], ["a", "b", "c"])
                self.assertEqual(stream.result().text, "abc")
                with self.assertRaises(OverloadedError):
                    async for _ in client.stream("x"):
                        pass
        self.assertEqual(len(server.requests), 3)

    async def test_a_cancelled_task_cancels_on_the_server(self):
        blocked = threading.Event()
        server = FakeServer([[started(), delta("a", 1), lambda: blocked.wait(5), finished()]])
        with server.running() as address:
            async with AsyncClient(address) as client:
                stream = client.stream("x")
                await stream.__anext__()
                await stream.__anext__()
                task = asyncio.ensure_future(stream.__anext__())
                await asyncio.sleep(0.05)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertTrue(await asyncio.get_running_loop().run_in_executor(None, server.cancelled.wait, 5))
                blocked.set()


if __name__ == "__main__":
    unittest.main(verbosity=2)
