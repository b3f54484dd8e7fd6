"""Calls of the package to a server that a test makes up: retries, errors, streams that break."""

import asyncio
import os
import threading
import time
import unittest

import grpc
from fake_server import ANSWER, FULL, PAIR, TOO_LARGE, FakeServer, answer, delta, details, finished, started

import cadre_client
from cadre_client import (
    AsyncClient, Client, Finished, FinishReason, GenerateStream, OverloadedError, RetryPolicy, UnavailableError,
    UnreachableError)
from cadre_client.client import channel_options
from cadre_client.errors import error_from_rpc
from cadre_client.retry import Attempts, RetryBudget

QUICK = RetryPolicy(initial_backoff=0.01, jitter=0.0)
#: A message of this size is over the limit of gRPC's servers, and the same answer over that of SMALL.
LARGE_TEXT = "x" * 5_000_000
SMALL = [("grpc.max_receive_message_length", 1000)]


class Refusal(grpc.RpcError):
    """An error without a server."""

    def __init__(self, code, text, trailers=()):
        super().__init__()
        self._code, self._text, self._trailers = code, text, trailers

    def code(self):
        return self._code

    def details(self):
        return self._text

    def trailing_metadata(self):
        return self._trailers


class FakeCall:
    """What a stub returns: answers without end until it is cancelled, or fails at once with `error`."""

    def __init__(self, error=None):
        self.error, self.is_cancelled = error, False

    def __next__(self):
        if self.is_cancelled:
            raise Refusal(grpc.StatusCode.CANCELLED, "cancelled")
        if self.error is not None:
            raise self.error
        return started()

    def cancel(self):
        self.is_cancelled = True


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

    def test_an_overload_is_final_when_the_server_did_not_say_when_to_come_again(self):
        pushback = (grpc.StatusCode.RESOURCE_EXHAUSTED, "later", (("grpc-retry-pushback-ms", "10"),))
        for first, calls in ((TOO_LARGE, 1), (FULL, 2), (pushback, 2)):
            for call in (lambda client: client.generate("x"), lambda client: list(client.stream("x"))):
                server = FakeServer([[first]])
                with server.running() as address, Client(address, retry=QUICK) as client:
                    if calls == 1:
                        with self.assertRaises(OverloadedError):
                            call(client)
                    else:
                        call(client)
                self.assertEqual(server.calls, calls, first)

    def test_a_message_over_a_limit_of_grpc_is_sent_once(self):
        server = FakeServer([[answer("short")]])
        with server.running() as address, Client(address, retry=QUICK) as client:
            for call in (lambda: client.generate(LARGE_TEXT), lambda: list(client.stream(LARGE_TEXT))):
                server.calls = 0
                with self.assertRaisesRegex(OverloadedError, "larger than max"):
                    call()
                self.assertEqual((server.calls, server.requests), (1, []))
        server = FakeServer([[answer("x" * 2000)], [delta("x" * 2000)]])
        with server.running() as address, Client(address, retry=QUICK, options=SMALL) as client:
            for call in (lambda: client.generate("x"), lambda: list(client.stream("x"))):
                server.calls = 0
                with self.assertRaisesRegex(OverloadedError, "larger than max"):
                    call()
                self.assertEqual(server.calls, 1, "the answer is too large again, however often it is made")

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
        error = OverloadedError("RESOURCE_EXHAUSTED", "no", retry_after=0.5)

        def may_retry():
            return Attempts(RetryPolicy(), budget, None).wait_before_retry(error) is not None

        self.assertEqual([may_retry() for _ in range(4)], [True, True, False, False])
        Attempts(RetryPolicy(), budget, None).succeeded()
        self.assertFalse(may_retry())
        Attempts(RetryPolicy(), budget, None).succeeded()
        self.assertTrue(may_retry())

    def test_backoff_grows_with_jitter_up_to_its_limit(self):
        policy = RetryPolicy(max_attempts=10, initial_backoff=1, multiplier=3, max_backoff=6, jitter=0.5)

        def waits(draw, *errors, policy=policy):
            attempts = Attempts(policy, RetryBudget(capacity=100), None, draw=lambda: draw)
            return [attempts.wait_before_retry(error) for error in errors]

        silent = UnavailableError("UNAVAILABLE", "")
        self.assertEqual(waits(1.0, silent, silent, silent, silent), [1.5, 4.5, 6, 6])
        self.assertEqual(waits(0.0, silent, silent, silent, silent), [1, 3, 4, 4])
        hasty = RetryPolicy(initial_backoff=1, max_backoff=0.5, jitter=0)
        self.assertEqual(waits(1.0, silent, silent, policy=hasty), [0.5, 0.5])

        def asks_for(seconds):
            return UnavailableError("UNAVAILABLE", "", retry_after=seconds)

        self.assertEqual(waits(1.0, asks_for(2), asks_for(5), asks_for(6), silent), [3, 6, 6, 1.5])
        self.assertEqual(waits(0.0, asks_for(2), asks_for(5), asks_for(6)), [2, 5, 6], "never sooner than it asks for")
        self.assertEqual(waits(0.0, asks_for(6.1)), [None], "a server that asks for more is not asked again")
        for wrong in ({"max_attempts": 0}, {"multiplier": 0.5}, {"jitter": -1}):
            with self.assertRaises(ValueError):
                RetryPolicy(**wrong)

    def test_options_of_the_channel_win(self):
        """gRPC takes the first of two values of one name."""
        self.assertEqual(channel_options([("grpc.enable_retries", 1), ("grpc.enable_retries", 2), ("a", 3)]),
                         [*channel_options([])[:2], ("grpc.enable_retries", 2), *channel_options([])[3:], ("a", 3)])

    def test_nobody_answers(self):
        with Client("127.0.0.1:1", retry=RetryPolicy(max_attempts=2, initial_backoff=0.01)) as client:
            with self.assertRaises(UnreachableError):
                client.generate("x", timeout=20)
            self.assertFalse(client.is_ready(timeout=1))

    def test_a_broken_trailer_is_no_second_error(self):
        for _ in range(200):
            trailers = (("grpc-status-details-bin", os.urandom(40)), ("grpc-retry-pushback-ms", "soon"))
            error = error_from_rpc(Refusal(grpc.StatusCode.UNAVAILABLE, "odd", trailers))
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

    def test_closing_while_the_call_starts_cancels_it(self):
        call = FakeCall()

        def start(_):
            stream.close()  # as another thread may
            return call

        stream = GenerateStream(start, Attempts(QUICK, RetryBudget(), None))
        self.assertEqual(list(stream), [])
        self.assertTrue(call.is_cancelled)

    def test_closing_ends_the_wait_before_a_retry(self):
        waits = threading.Event()
        calls = []

        def start(_):
            calls.append(FakeCall(Refusal(*FULL[:2], (("grpc-retry-pushback-ms", "9000"),))))
            return calls[-1]

        stream = GenerateStream(start, Attempts(RetryPolicy(), RetryBudget(), None, draw=lambda: waits.set() or 0.0))
        reader = threading.Thread(target=lambda: list(stream), daemon=True)
        reader.start()
        self.assertTrue(waits.wait(5))
        stream.close()
        reader.join(4)
        self.assertFalse(reader.is_alive())
        self.assertEqual(len(calls), 1)

    def test_half_an_answer_is_no_result(self):
        server = FakeServer([PAIR, PAIR, PAIR[:-1]])
        with server.running() as address, Client(address) as client:
            with client.stream("x") as broken_off:
                for event in broken_off:
                    if isinstance(event, Finished):
                        break
            self.assertEqual(list(broken_off), [])
            with self.assertRaisesRegex(RuntimeError, "not over"):
                broken_off.result()
            with client.stream("x") as whole:
                list(whole)
            self.assertEqual([c.text for c in whole.result().completions], ["a!", "xy"])
            odd = client.stream("x")
            self.assertEqual(len(list(odd)), len(PAIR) - 1)
            with self.assertRaisesRegex(RuntimeError, "without"):  # the server's fault, and no answer either
                odd.result()

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

    async def test_an_overload_is_final_when_the_server_did_not_say_when_to_come_again(self):
        async def read(stream):
            return [event async for event in stream]

        for script, prompt, options, calls in (([[TOO_LARGE]], "x", [], 1), ([[FULL]], "x", [], 2),
                                               ([], LARGE_TEXT, [], 1),
                                               ([[answer("x" * 2000)], [delta("x" * 2000)]], "x", SMALL, 1)):
            server = FakeServer(script)
            with server.running() as address:
                async with AsyncClient(address, retry=QUICK, options=options) as client:
                    for call in (lambda: client.generate(prompt), lambda: read(client.stream(prompt))):
                        server.calls, server.script = 0, server.script or list(script)
                        if calls == 1:
                            with self.assertRaises(OverloadedError):
                                await call()
                        else:
                            await call()
                        self.assertEqual(server.calls, calls)

    async def test_half_an_answer_is_no_result(self):
        server = FakeServer([PAIR, PAIR])
        with server.running() as address:
            async with AsyncClient(address) as client:
                async with client.stream("x") as broken_off:
                    async for event in broken_off:
                        if isinstance(event, Finished):
                            break
                with self.assertRaisesRegex(RuntimeError, "not over"):
                    broken_off.result()
                async with client.stream("x") as whole:
                    async for event in whole:
                        pass
                self.assertEqual([c.text for c in whole.result().completions], ["a!", "xy"])

    async def test_closing_ends_the_wait_before_a_retry(self):
        later = (*FULL[:2], (("grpc-retry-pushback-ms", "9000"),))
        server = FakeServer([[later], ANSWER])
        with server.running() as address:
            async with AsyncClient(address) as client:
                stream = client.stream("x")
                reader = asyncio.ensure_future(stream.__anext__())
                while stream._pause is None:
                    await asyncio.sleep(0.01)
                stream.close()
                with self.assertRaises(StopAsyncIteration):
                    await asyncio.wait_for(reader, 4)
        self.assertEqual(server.calls, 1)

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
