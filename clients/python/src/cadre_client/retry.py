"""When a call that failed is made again."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from typing import Callable, Optional

from cadre_client.errors import CadreError, OverloadedError, UnavailableError


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Retries are made after UNAVAILABLE, and after RESOURCE_EXHAUSTED where the server says when to come again, before
    the first event of a stream, while the timeout of the call and the budget of the client allow. Between them the
    client waits as long as the server says, or, where it does not say, longer each time; with jitter, so that refused
    clients do not come back together.

    RESOURCE_EXHAUSTED without a time is final: gRPC itself says it of a message over a limit, and the same message is
    over it again."""

    #: Calls in all, the first included; 1 never retries.
    max_attempts: int = 4
    #: Seconds before the first retry, where the server does not say.
    initial_backoff: float = 0.1
    #: Each further wait is so many times as long.
    multiplier: float = 2.0
    #: The longest wait in seconds, jitter included; a server that asks for more is not asked again.
    max_backoff: float = 10.0
    #: Share by which a wait is drawn longer, at most to `max_backoff`.
    jitter: float = 0.3

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts: {self.max_attempts} is less than 1")
        for name in ("initial_backoff", "max_backoff", "jitter"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 0")
        if self.multiplier < 1:
            raise ValueError(f"multiplier: {self.multiplier} is less than 1")


class RetryBudget:
    """Limits a client's retries to a share of its calls, so that retries cannot multiply an overload. Every call that
    succeeds earns `ratio` of a retry; `capacity` retries can be saved, and are there at the start. Thread-safe."""

    def __init__(self, ratio: float = 0.1, capacity: float = 10.0) -> None:
        self._ratio, self._capacity = ratio, capacity
        self._tokens = capacity
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._ratio)

    def spend(self) -> bool:
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Attempts:
    """The attempts of one call."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, timeout: Optional[float],
                 clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random) -> None:
        self._policy, self._budget, self._clock, self._draw = policy, budget, clock, draw
        self._end = None if timeout is None else clock() + timeout
        self._made = 1
        self._backoff = policy.initial_backoff

    def remaining(self) -> Optional[float]:
        """Seconds that are left for the next attempt; None: no limit."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def succeeded(self) -> None:
        self._budget.earn()

    def wait_before_retry(self, error: CadreError) -> Optional[float]:
        """Seconds to wait before the next attempt, or None: the error is final."""
        if not self._may_retry(error):
            return None
        wait = self._next_wait(error.retry_after)
        remaining = self.remaining()
        if wait is None or (remaining is not None and wait >= remaining) or not self._budget.spend():
            return None
        self._made += 1
        return wait

    def _may_retry(self, error: CadreError) -> bool:
        if error.retry_forbidden or self._made >= self._policy.max_attempts:
            return False
        return isinstance(error, UnavailableError) or (
            isinstance(error, OverloadedError) and error.retry_after is not None)

    def _next_wait(self, retry_after: Optional[float]) -> Optional[float]:
        """None: the server asks for more than the policy allows."""
        policy = self._policy
        if retry_after is not None:
            if retry_after > policy.max_backoff:
                return None
            shortest = retry_after
        else:
            # The longest backoff has its jitter, too: below the limit.
            shortest = min(self._backoff, policy.max_backoff / (1.0 + policy.jitter))
            self._backoff = min(policy.max_backoff, self._backoff * policy.multiplier)
        longest = min(policy.max_backoff, shortest * (1.0 + policy.jitter))
        return shortest + (longest - shortest) * self._draw()
