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
    """Retries are made after UNAVAILABLE and RESOURCE_EXHAUSTED, before the first event of a stream, while the timeout
    of the call and the budget of the client allow. Between them the client waits as long as the server says, or, where
    it does not say, longer each time; always with jitter, so that refused clients do not come back together."""

    #: Calls in all, the first included; 1 never retries.
    max_attempts: int = 4
    #: Seconds before the first retry, where the server does not say.
    initial_backoff: float = 0.1
    #: Each further wait is so many times as long.
    multiplier: float = 2.0
    #: The longest wait in seconds; a server that asks for more is not asked again.
    max_backoff: float = 10.0
    #: Share by which a wait is drawn longer.
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
        if not isinstance(error, (OverloadedError, UnavailableError)) or error.retry_forbidden:
            return None
        if self._made >= self._policy.max_attempts:
            return None
        wait = self._backoff if error.retry_after is None else error.retry_after
        if error.retry_after is None:
            self._backoff = min(self._policy.max_backoff, self._backoff * self._policy.multiplier)
        if wait > self._policy.max_backoff:
            return None
        wait *= 1.0 + self._policy.jitter * self._draw()
        remaining = self.remaining()
        if remaining is not None and wait >= remaining:
            return None
        if not self._budget.spend():
            return None
        self._made += 1
        return wait
