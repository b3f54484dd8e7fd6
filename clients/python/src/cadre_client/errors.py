"""What a server's errors become."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

from cadre_client._protos import message_class

_STATUS = message_class("google.rpc.Status")
_DETAILS = {name: message_class(f"google.rpc.{name}") for name in ("ErrorInfo", "BadRequest", "RetryInfo")}
_STATUS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"


@dataclasses.dataclass(frozen=True)
class FieldViolation:
    """A field of the request that the server does not accept."""

    field: str
    description: str


class CadreError(Exception):
    """A call failed. The subclasses stand for the gRPC status codes that cadre uses."""

    #: The gRPC status code, such as "INVALID_ARGUMENT".
    code: str
    #: Why, as a constant: "INVALID_FIELD", "QUEUE_FULL", ... Empty when the error does not come from a cadre server.
    reason: str
    #: The same for people.
    message: str
    #: The fields that are wrong, where it is about fields.
    field_violations: tuple[FieldViolation, ...]
    #: Seconds after which the server expects that a retry can succeed.
    retry_after: float | None
    #: Whether the server forbids retries.
    retry_forbidden: bool
    #: Details of the reason, as the server tells them.
    metadata: Mapping[str, str]

    def __init__(self, code: str, message: str, *, reason: str = "", field_violations: Sequence[FieldViolation] = (),
                 retry_after: float | None = None, retry_forbidden: bool = False,
                 metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.field_violations = tuple(field_violations)
        self.retry_after = retry_after
        self.retry_forbidden = retry_forbidden
        self.metadata = dict(metadata or {})


class InvalidRequestError(CadreError):
    """INVALID_ARGUMENT: `field_violations` says what is wrong."""


class UnsupportedError(CadreError):
    """UNIMPLEMENTED: the server does not have a field or method that was used."""


class NotFoundError(CadreError):
    """NOT_FOUND: no such model."""


class OverloadedError(CadreError):
    """RESOURCE_EXHAUSTED: the queue is full (`retry_after` says for how long), this client reads too slowly, a
    message is over a limit of gRPC, or a constraint on the output takes more work than it may: `reason` tells."""


class UnavailableError(CadreError):
    """UNAVAILABLE: the model is loading, or the server is going away."""


class UnreachableError(UnavailableError):
    """UNAVAILABLE, and not said by a cadre server: nobody answers, or the connection broke."""


class DeadlineExceededError(CadreError):
    """DEADLINE_EXCEEDED: the call's timeout is over."""


class CallCancelledError(CadreError):
    """CANCELLED: somebody ended the call."""


class ServerError(CadreError):
    """INTERNAL and the other codes: a fault of the server."""


_CLASSES: dict[str, type[CadreError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "UNIMPLEMENTED": UnsupportedError,
    "NOT_FOUND": NotFoundError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": CallCancelledError,
}


def _metadata_values(metadata: Any, key: str) -> list[Any]:
    return [value for name, value in metadata or () if name == key]


def _pushback_seconds(metadata: Any) -> float | None:
    """Negative or malformed: no retry, as gRPC defines it."""
    values = _metadata_values(metadata, _PUSHBACK_KEY)
    if not values:
        return None
    try:
        return int(values[-1]) / 1000
    except ValueError:
        return -1.0


def error_from_rpc(error: Any) -> CadreError:
    """The exception for a grpc.RpcError or grpc.aio.AioRpcError."""
    code, text = error.code().name, error.details() or ""
    metadata = error.trailing_metadata()
    found: dict[str, Any] = {}
    for value in _metadata_values(metadata, _STATUS_KEY):
        try:
            for detail in _STATUS.FromString(value).details:
                name = detail.type_url.rpartition(".")[2]
                if name in _DETAILS:
                    found[name] = _DETAILS[name].FromString(detail.value)
        except Exception:  # protobuf runtimes differ in what they raise
            break  # somebody else's trailer, or a broken one: the code and the text are still there
    info, bad, retry = found.get("ErrorInfo"), found.get("BadRequest"), found.get("RetryInfo")
    kind = _CLASSES.get(code, ServerError)
    if kind is UnavailableError and info is None:
        kind = UnreachableError
    pushback = _pushback_seconds(metadata)
    retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if retry is not None else None
    if pushback is not None and pushback >= 0:
        retry_after = max(pushback, retry_after or 0.0)
    return kind(code, text, reason=info.reason if info is not None else "",
                field_violations=[FieldViolation(v.field, v.description) for v in bad.field_violations] if bad else (),
                retry_after=retry_after, retry_forbidden=pushback is not None and pushback < 0,
                metadata=dict(info.metadata) if info is not None else None)
