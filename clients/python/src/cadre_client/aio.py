"""The client for programs with an event loop. The same as cadre_client.Client, with `await` and `async for`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Optional, Sequence

import grpc
import grpc.aio

from cadre_client import _protos, results
from cadre_client._convert import (
    HEALTH_SERVING, Assembly, detokenize_request, event_from, expert_stats_request, fill_capacity, from_message,
    generate_request, generation_from, tokenize_request, watch_request)
from cadre_client.client import channel_options, key_metadata
from cadre_client.errors import CadreError, error_from_rpc
from cadre_client.options import CapacityPolicy, Chat, GenerateOptions, Prompt
from cadre_client.retry import Attempts, RetryBudget, RetryPolicy


class AsyncGenerateStream:
    """The events of one answer. Iterate over it with `async for`; `close`, the end of the `async with` block, or
    cancelling the task that reads cancels the request on the server."""

    def __init__(self, start: Callable[[Optional[float]], Any], attempts: Attempts) -> None:
        self._start, self._attempts = start, attempts
        self._call: Any = None
        self._pause: Optional[asyncio.Future[None]] = None
        self._assembly = Assembly()
        self._has_event = self._closed = False

    def __aiter__(self) -> AsyncGenerateStream:
        return self

    async def __anext__(self) -> results.Event:
        while not self._closed:
            if self._call is None:
                self._call = self._start(self._attempts.remaining())
            try:
                response = await self._call.read()
            except grpc.RpcError as error:
                await self._retry_or_raise(error_from_rpc(error))
                continue
            except asyncio.CancelledError:
                if self._closed:  # by close, from another task
                    break
                self.close()
                raise
            if response is grpc.aio.EOF:
                self._assembly.is_over = self._closed = True
                break
            if not self._has_event:
                self._attempts.succeeded()
                self._has_event = True
            event = event_from(response)
            if event is not None:
                self._assembly.add(event)
                return event
        raise StopAsyncIteration

    async def _retry_or_raise(self, error: CadreError) -> None:
        wait = None if self._has_event or self._closed else self._attempts.wait_before_retry(error)
        if wait is None:
            closed_by_us, self._closed = self._closed, True
            if closed_by_us and error.code == "CANCELLED":
                return
            raise error
        self._call = None
        self._pause = asyncio.ensure_future(asyncio.sleep(wait))
        try:
            await asyncio.wait({self._pause})  # which `close` may end; a CancelledError is the caller's own
        finally:
            self._pause.cancel()

    async def texts(self) -> AsyncIterator[str]:
        """The text of the first sequence, piece by piece."""
        async for event in self:
            if not isinstance(event, results.Started) and event.index == 0 and event.text:
                yield event.text

    def result(self) -> results.Generation:
        """The whole answer. RuntimeError before the stream was read to its end."""
        return self._assembly.result()

    def close(self) -> None:
        """Cancels what is not over yet."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        if self._pause is not None:
            self._pause.cancel()

    async def __aenter__(self) -> AsyncGenerateStream:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        self.close()


class AsyncClient:
    """A connection to a server, for one event loop. See cadre_client.Client for the arguments."""

    def __init__(self, address: str = "127.0.0.1:50051", *, timeout: Optional[float] = None,
                 retry: RetryPolicy = RetryPolicy(), credentials: Any = None,
                 api_key: Optional[str] = None, metadata: Sequence[tuple[str, str]] = (),
                 options: Sequence[tuple[str, Any]] = ()) -> None:
        self._timeout, self._retry, self._budget = timeout, retry, RetryBudget()
        self._metadata = (*metadata, *key_metadata(api_key))
        all_options = channel_options(options)
        if credentials is None:
            self._channel: Any = grpc.aio.insecure_channel(address, options=all_options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=all_options)
        unary, stream = self._channel.unary_unary, self._channel.unary_stream
        self._generate = _protos.GENERATE.bind(stream)
        self._watch = _protos.WATCH_EXPERT_STATS.bind(stream)
        self._unary = {method.path: method.bind(unary) for method in (
            _protos.GENERATE_TEXT, _protos.TOKENIZE, _protos.DETOKENIZE, _protos.GET_EXPERT_STATS, _protos.GET_MODEL,
            _protos.GET_LOAD, _protos.GET_TENANT_STATS, _protos.SET_CAPACITY_POLICY, _protos.CHECK_HEALTH)}

    async def close(self) -> None:
        """Ends the connection, and all calls that are still open."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def generate(self, prompt: Prompt, options: GenerateOptions = GenerateOptions(), *,
                       timeout: Optional[float] = None) -> results.Generation:
        """The whole answer at once."""
        request = generate_request(prompt, options, unary=True)
        return generation_from(await self._call(_protos.GENERATE_TEXT, request, timeout))

    def stream(self, prompt: Prompt, options: GenerateOptions = GenerateOptions(), *,
               timeout: Optional[float] = None) -> AsyncGenerateStream:
        """The answer as it comes. The request is sent when the first event is asked for."""
        request = generate_request(prompt, options, unary=False)
        return AsyncGenerateStream(lambda left: self._generate(request, timeout=left, metadata=self._metadata),
                                   self._attempts(timeout))

    async def tokenize(self, prompt: str | Chat, *, add_special_tokens: Optional[bool] = None,
                       parse_special: Optional[bool] = None, token_bytes: bool = False, model: str = "",
                       timeout: Optional[float] = None) -> results.Tokenization:
        """Token ids of a text or a conversation."""
        request = tokenize_request(prompt, add_special_tokens=add_special_tokens, parse_special=parse_special,
                                   token_bytes=token_bytes, model=model)
        return from_message(results.Tokenization, await self._call(_protos.TOKENIZE, request, timeout))

    async def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: Optional[bool] = None,
                         model: str = "", timeout: Optional[float] = None) -> str:
        """Text of token ids."""
        request = detokenize_request(token_ids, skip_special_tokens=skip_special_tokens, model=model)
        return str((await self._call(_protos.DETOKENIZE, request, timeout)).text)

    async def model(self, model: str = "", *, timeout: Optional[float] = None) -> results.Model:
        """What is served, its limits and the fields it supports."""
        request = _protos.GET_MODEL.request_class(model=model)
        return from_message(results.Model, (await self._call(_protos.GET_MODEL, request, timeout)).model)

    async def load(self, model: str = "", *, timeout: Optional[float] = None) -> results.Load:
        """How busy the server is."""
        request = _protos.GET_LOAD.request_class(model=model)
        return from_message(results.Load, (await self._call(_protos.GET_LOAD, request, timeout)).load)

    async def expert_stats(self, *, layers: Sequence[int] = (), total: bool = True, window: bool = True,
                           include_experts: bool = True, model: str = "",
                           timeout: Optional[float] = None) -> results.ExpertStats:
        """What every expert did: since the start (`total`) and over the latest tokens (`window`)."""
        request = expert_stats_request(_protos.GET_EXPERT_STATS.request_class, model, layers, total, window,
                                       include_experts)
        return from_message(results.ExpertStats,
                            (await self._call(_protos.GET_EXPERT_STATS, request, timeout)).stats)

    async def tenant_stats(self, *, model: str = "",
                           timeout: Optional[float] = None) -> tuple[results.TenantStats, ...]:
        """What became of the assignments of each tenant's requests."""
        request = _protos.GET_TENANT_STATS.request_class(model=model)
        response = await self._call(_protos.GET_TENANT_STATS, request, timeout)
        return tuple(from_message(results.TenantStats, tenant) for tenant in response.tenants)

    async def set_capacity_policy(self, policy: CapacityPolicy, *, model: str = "",
                                 timeout: Optional[float] = None) -> CapacityPolicy:
        """For operators: how much an expert takes of requests that come from now on. Returns what held before."""
        request = _protos.SET_CAPACITY_POLICY.request_class(model=model)
        fill_capacity(policy, request.policy)
        response = await self._call(_protos.SET_CAPACITY_POLICY, request, timeout)
        return from_message(CapacityPolicy, response.previous_policy)

    async def watch_expert_stats(self, interval: float = 1.0, *, layers: Sequence[int] = (), total: bool = True,
                                 window: bool = True, include_experts: bool = True, delta: bool = False,
                                 model: str = "") -> AsyncIterator[results.ExpertStats]:
        """The same every `interval` seconds, until the iterator is closed. With `delta`, `total` counts from the
        previous message on."""
        request = watch_request(interval, model, layers, total, window, include_experts, delta)
        call = self._watch(request, metadata=self._metadata)
        try:
            async for response in call:
                yield from_message(results.ExpertStats, response.stats)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        finally:
            call.cancel()

    async def is_ready(self, *, timeout: float = 5.0) -> bool:
        """Whether requests are accepted. False, too, when nobody answers."""
        request = _protos.CHECK_HEALTH.request_class(service="readiness")
        try:
            answer = await self._unary[_protos.CHECK_HEALTH.path](request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError:
            return False
        return bool(answer.status == HEALTH_SERVING)

    def _attempts(self, timeout: Optional[float]) -> Attempts:
        return Attempts(self._retry, self._budget, self._timeout if timeout is None else timeout)

    async def _call(self, method: _protos.Method, request: Any, timeout: Optional[float]) -> Any:
        attempts = self._attempts(timeout)
        while True:
            try:
                response = await self._unary[method.path](request, timeout=attempts.remaining(),
                                                          metadata=self._metadata)
            except grpc.RpcError as rpc_error:
                error = error_from_rpc(rpc_error)
            else:
                attempts.succeeded()
                return response
            wait = attempts.wait_before_retry(error)
            if wait is None:
                raise error
            await asyncio.sleep(wait)
