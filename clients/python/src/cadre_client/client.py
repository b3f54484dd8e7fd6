"""The client for programs without an event loop."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any, Callable, Iterator, Optional, Sequence

import grpc

from cadre_client import _protos, results
from cadre_client._convert import (
    HEALTH_SERVING, Assembly, detokenize_request, event_from, expert_stats_request, fill_capacity, from_message,
    generate_request, generation_from, tokenize_request, watch_request)
from cadre_client.errors import CadreError, error_from_rpc
from cadre_client.options import CapacityPolicy, Chat, GenerateOptions, Prompt
from cadre_client.retry import Attempts, RetryBudget, RetryPolicy

#: Statistics of many layers and experts, and prompts, take more than gRPC's 4 MiB.
_MAX_MESSAGE_BYTES = 64 << 20


def channel_options(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Those of every channel of this package, and `options`, which win. Retries are made here and not by gRPC; a proxy
    for web traffic, as the environment may name one, is not for this."""
    # Each name once: of two values gRPC takes the first.
    return list({"grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
                 "grpc.max_send_message_length": _MAX_MESSAGE_BYTES,
                 "grpc.enable_retries": 0, "grpc.enable_http_proxy": 0, **dict(options)}.items())


def key_metadata(api_key: Optional[str]) -> tuple[tuple[str, str], ...]:
    """What a call says of its key: the one given, else CADRE_API_KEY of the environment; nothing if both are empty."""
    key = os.environ.get("CADRE_API_KEY", "") if api_key is None else api_key
    return (("authorization", f"Bearer {key}"),) if key else ()


class GenerateStream:
    """The events of one answer. Iterate over it; `close` (or the end of the `with` block) before the end cancels the
    request on the server. One thread at a time, but for `close`."""

    def __init__(self, start: Callable[[Optional[float]], Any], attempts: Attempts) -> None:
        self._start, self._attempts = start, attempts
        self._call: Any = None
        self._assembly = Assembly()
        self._has_event = False
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[results.Event]:
        return self

    def __next__(self) -> results.Event:
        while not self._closed.is_set():
            if self._call is None:
                self._call = self._start(self._attempts.remaining())
                if self._closed.is_set():  # `close` came in between, and saw no call to cancel
                    self._call.cancel()
            try:
                event = event_from(next(self._call))
            except StopIteration:
                self._assembly.is_over = True
                self._closed.set()
                break
            except grpc.RpcError as error:
                self._retry_or_raise(error_from_rpc(error))
                continue
            if not self._has_event:
                self._attempts.succeeded()
                self._has_event = True
            if event is not None:
                self._assembly.add(event)
                return event
        raise StopIteration

    def _retry_or_raise(self, error: CadreError) -> None:
        closed_by_us = self._closed.is_set()
        wait = None if self._has_event or closed_by_us else self._attempts.wait_before_retry(error)
        if wait is None:
            self._closed.set()
            if closed_by_us and error.code == "CANCELLED":
                return
            raise error
        self._closed.wait(wait)
        self._call = None

    def texts(self) -> Iterator[str]:
        """The text of the first sequence, piece by piece."""
        for event in self:
            if not isinstance(event, results.Started) and event.index == 0 and event.text:
                yield event.text

    def result(self) -> results.Generation:
        """The whole answer. RuntimeError before the stream was read to its end."""
        return self._assembly.result()

    def close(self) -> None:
        """Cancels what is not over yet. Any thread."""
        self._closed.set()
        call = self._call  # the thread that reads may drop it meanwhile
        if call is not None:
            call.cancel()

    def __enter__(self) -> GenerateStream:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


class Client:
    """A connection to a server. Thread-safe; close it, or use it in a `with` block.

    `timeout` is the deadline in seconds of calls that give none of their own; None waits for ever. `metadata` goes with
    every call. `credentials` (grpc.ChannelCredentials) encrypts; without them the connection is plain. `api_key` is
    shown with every call; None takes CADRE_API_KEY of the environment, where it is set.
    """

    def __init__(self, address: str = "127.0.0.1:50051", *, timeout: Optional[float] = None,
                 retry: RetryPolicy = RetryPolicy(), credentials: Any = None,
                 api_key: Optional[str] = None, metadata: Sequence[tuple[str, str]] = (),
                 options: Sequence[tuple[str, Any]] = ()) -> None:
        self._timeout, self._retry, self._budget = timeout, retry, RetryBudget()
        self._metadata = (*metadata, *key_metadata(api_key))
        all_options = channel_options(options)
        if credentials is None:
            self._channel: Any = grpc.insecure_channel(address, options=all_options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=all_options)
        unary, stream = self._channel.unary_unary, self._channel.unary_stream
        self._generate = _protos.GENERATE.bind(stream)
        self._watch = _protos.WATCH_EXPERT_STATS.bind(stream)
        self._unary = {method.path: method.bind(unary) for method in (
            _protos.GENERATE_TEXT, _protos.TOKENIZE, _protos.DETOKENIZE, _protos.GET_EXPERT_STATS, _protos.GET_MODEL,
            _protos.GET_LOAD, _protos.GET_TENANT_STATS, _protos.SET_CAPACITY_POLICY, _protos.CHECK_HEALTH)}

    def close(self) -> None:
        """Ends the connection, and all calls that are still open."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def generate(self, prompt: Prompt, options: GenerateOptions = GenerateOptions(), *,
                 timeout: Optional[float] = None) -> results.Generation:
        """The whole answer at once."""
        request = generate_request(prompt, options, unary=True)
        return generation_from(self._call(_protos.GENERATE_TEXT, request, timeout))

    def stream(self, prompt: Prompt, options: GenerateOptions = GenerateOptions(), *,
               timeout: Optional[float] = None) -> GenerateStream:
        """The answer as it comes. The request is sent when the first event is asked for."""
        request = generate_request(prompt, options, unary=False)
        return GenerateStream(lambda left: self._generate(request, timeout=left, metadata=self._metadata),
                              self._attempts(timeout))

    def tokenize(self, prompt: str | Chat, *, add_special_tokens: Optional[bool] = None,
                 parse_special: Optional[bool] = None, token_bytes: bool = False, model: str = "",
                 timeout: Optional[float] = None) -> results.Tokenization:
        """Token ids of a text or a conversation."""
        request = tokenize_request(prompt, add_special_tokens=add_special_tokens, parse_special=parse_special,
                                   token_bytes=token_bytes, model=model)
        return from_message(results.Tokenization, self._call(_protos.TOKENIZE, request, timeout))

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: Optional[bool] = None, model: str = "",
                   timeout: Optional[float] = None) -> str:
        """Text of token ids."""
        request = detokenize_request(token_ids, skip_special_tokens=skip_special_tokens, model=model)
        return str(self._call(_protos.DETOKENIZE, request, timeout).text)

    def model(self, model: str = "", *, timeout: Optional[float] = None) -> results.Model:
        """What is served, its limits and the fields it supports."""
        request = _protos.GET_MODEL.request_class(model=model)
        return from_message(results.Model, self._call(_protos.GET_MODEL, request, timeout).model)

    def load(self, model: str = "", *, timeout: Optional[float] = None) -> results.Load:
        """How busy the server is."""
        request = _protos.GET_LOAD.request_class(model=model)
        return from_message(results.Load, self._call(_protos.GET_LOAD, request, timeout).load)

    def expert_stats(self, *, layers: Sequence[int] = (), total: bool = True, window: bool = True,
                     include_experts: bool = True, model: str = "",
                     timeout: Optional[float] = None) -> results.ExpertStats:
        """What every expert did: since the start (`total`) and over the latest tokens (`window`)."""
        request = expert_stats_request(_protos.GET_EXPERT_STATS.request_class, model, layers, total, window,
                                       include_experts)
        return from_message(results.ExpertStats, self._call(_protos.GET_EXPERT_STATS, request, timeout).stats)

    def tenant_stats(self, *, model: str = "", timeout: Optional[float] = None) -> tuple[results.TenantStats, ...]:
        """What became of the assignments of each tenant's requests."""
        request = _protos.GET_TENANT_STATS.request_class(model=model)
        response = self._call(_protos.GET_TENANT_STATS, request, timeout)
        return tuple(from_message(results.TenantStats, tenant) for tenant in response.tenants)

    def set_capacity_policy(self, policy: CapacityPolicy, *, model: str = "",
                           timeout: Optional[float] = None) -> CapacityPolicy:
        """For operators: how much an expert takes of requests that come from now on. Returns what held before."""
        request = _protos.SET_CAPACITY_POLICY.request_class(model=model)
        fill_capacity(policy, request.policy)
        response = self._call(_protos.SET_CAPACITY_POLICY, request, timeout)
        return from_message(CapacityPolicy, response.previous_policy)

    def watch_expert_stats(self, interval: float = 1.0, *, layers: Sequence[int] = (), total: bool = True,
                           window: bool = True, include_experts: bool = True, delta: bool = False,
                           model: str = "") -> Iterator[results.ExpertStats]:
        """The same every `interval` seconds, until the iterator is closed. With `delta`, `total` counts from the
        previous message on."""
        request = watch_request(interval, model, layers, total, window, include_experts, delta)
        call = self._watch(request, metadata=self._metadata)
        try:
            for response in call:
                yield from_message(results.ExpertStats, response.stats)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        finally:
            call.cancel()

    def is_ready(self, *, timeout: float = 5.0) -> bool:
        """Whether requests are accepted. False, too, when nobody answers."""
        request = _protos.CHECK_HEALTH.request_class(service="readiness")
        try:
            answer = self._unary[_protos.CHECK_HEALTH.path](request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError:
            return False
        return bool(answer.status == HEALTH_SERVING)

    def _attempts(self, timeout: Optional[float]) -> Attempts:
        return Attempts(self._retry, self._budget, self._timeout if timeout is None else timeout)

    def _call(self, method: _protos.Method, request: Any, timeout: Optional[float]) -> Any:
        attempts = self._attempts(timeout)
        while True:
            try:
                response = self._unary[method.path](request, timeout=attempts.remaining(), metadata=self._metadata)
            except grpc.RpcError as rpc_error:
                error = error_from_rpc(rpc_error)
            else:
                attempts.succeeded()
                return response
            wait = attempts.wait_before_retry(error)
            if wait is None:
                raise error
            time.sleep(wait)
