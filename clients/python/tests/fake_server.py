"""A server that a test makes up, and what it says."""

import concurrent.futures
import contextlib
import threading
import time

import grpc
import package  # noqa: F401  makes cadre_client importable

from cadre_client import _protos


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


class FakeServer(grpc.ServerInterceptor):
    """Answers GenerationService by what `script` says for each call, one after the other: a list of events and at most
    one error (code, text, trailers) at its end. `calls` counts those, too, whose request gRPC refuses to take."""

    def __init__(self, script):
        self.script = list(script)
        self.requests, self.times, self.cancelled = [], [], threading.Event()
        self.calls = 0
        self.lock = threading.Lock()

    def intercept_service(self, continuation, handler_call_details):
        with self.lock:
            self.calls += 1
        return continuation(handler_call_details)

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
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), interceptors=[self])
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


def answer(text):
    response = _protos.GENERATE_TEXT.response_class()
    response.sequences.add(text=text)
    return response


ANSWER = [started(), delta("a", 1), delta("b", 2, 3), finished("c")]
#: One sequence ends before the other does.
PAIR = [started(), delta("a", 1), delta("x", 2, index=1), finished("!"), delta("y", 3, index=1), finished(index=1)]
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", (details("QUEUE_FULL", 0.05),))
#: What gRPC itself says of a message over a limit.
TOO_LARGE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5000000 vs. 4194304)", ())
