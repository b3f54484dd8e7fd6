"""Between the dataclasses and the messages of the API."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import typing
from collections import abc
from typing import Any, Iterator, Optional, Sequence, TypeVar

from cadre_client import results
from cadre_client._protos import DETOKENIZE, GENERATE, GENERATE_TEXT, TOKENIZE, WATCH_EXPERT_STATS
from cadre_client.options import (
    CapacityPolicy, Chat, GenerateOptions, Message, Prompt, ReplayRouting, RoutedExperts, ToolCall)

T = TypeVar("T")

#: Of google.protobuf.Duration: 10,000 years.
_MAX_DURATION_SECONDS = 315_576_000_000

# The fields of GenerateOptions by the message of the request that has them under the same name.
_GROUPS = {
    "prompt": ("add_special_tokens", "parse_special", "truncate_prompt_tokens"),
    "sampling": ("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty",
                 "repetition_penalty", "seed", "n", "logit_bias", "allowed_token_ids"),
    "stopping": ("max_tokens", "min_tokens", "stop_strings", "stop_token_ids", "ignore_eos", "include_stop_string"),
    "output": ("skip_special_tokens", "text", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "token_bytes",
               "routed_experts"),
    "scheduling": ("priority", "tenant", "cache_salt"),
}


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Says of an error of protobuf which field it is about."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{field}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _elements(field: str, value: Any) -> list[Any]:
    """What is in a sequence. TypeError of a text and of bytes, which are sequences, too, but nobody means their
    characters; and of an iterator, which the next request with the same options would find empty."""
    wrong = (str, bytes, bytearray, memoryview, abc.Mapping, abc.Iterator)
    if isinstance(value, wrong) or not isinstance(value, abc.Iterable):
        raise TypeError(f"{field}: a sequence is wanted, such as a list, not {type(value).__name__}")
    return list(value)


def _elements_of(kind: type[T], field: str, value: Any) -> list[T]:
    elements = _elements(field, value)
    for index, element in enumerate(elements):
        if not isinstance(element, kind):
            raise TypeError(f"{field}[{index}]: a {kind.__name__} is wanted, not {type(element).__name__}")
    return elements


def _extend(repeated: Any, field: str, value: Any) -> None:
    elements = _elements(field, value)
    with _naming(field):
        repeated.extend(elements)


def _set_field(message: Any, name: str, value: Any) -> None:
    """A scalar. None and an empty text leave the field alone."""
    if value is not None and value != "":
        with _naming(name):
            setattr(message, name, value)


def _json_text(field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, abc.Mapping):
        raise TypeError(f"{field}: a JSON object is wanted, as a dict or as text, not {type(value).__name__}")
    with _naming(field):
        return json.dumps(dict(value), ensure_ascii=False, allow_nan=False)


def _set_fields(message: Any, names: Sequence[str], source: Any) -> None:
    """The fields of the dataclass `source` that `message` has under the same names. What is empty leaves the field
    alone, so that `message` is not present for nothing."""
    hints = _hints(typing.cast(Any, type(source)))
    for name in names:
        value, kind = getattr(source, name), typing.get_origin(hints[name])
        if kind is abc.Sequence:
            if value is not None and _elements(name, value):
                _extend(getattr(message, name), name, value)
        elif kind is abc.Mapping:
            if value is not None and not isinstance(value, abc.Mapping):
                raise TypeError(f"{name}: a mapping is wanted, such as a dict, not {type(value).__name__}")
            if value:
                with _naming(name):
                    getattr(message, name).update(value)
        else:
            _set_field(message, name, value)


def _set_duration(duration: Any, field: str, seconds: float) -> None:
    if not abs(seconds) <= _MAX_DURATION_SECONDS:  # nor NaN
        raise ValueError(f"{field}: {seconds} is no number of seconds up to {_MAX_DURATION_SECONDS}")
    whole, nanoseconds = divmod(round(abs(seconds) * 1e9), 1_000_000_000)
    sign = -1 if seconds < 0 else 1
    duration.seconds, duration.nanos = sign * whole, sign * nanoseconds


def _fill_chat(chat: Chat, wire: Any) -> None:
    for index, message in enumerate(_elements_of(Message, "messages", chat.messages)):
        calls = _elements_of(ToolCall, f"messages[{index}].tool_calls", message.tool_calls)
        with _naming(f"messages[{index}]"):
            added = wire.messages.add(role=message.role, name=message.name, tool_call_id=message.tool_call_id)
            if message.content is not None:
                added.content = message.content
            if message.reasoning_content is not None:
                added.reasoning_content = message.reasoning_content
            for call in calls:
                added.tool_calls.add(id=call.id, name=call.name, arguments=_json_text("arguments", call.arguments))
    _set_fields(wire, ("add_generation_prompt", "continue_final_message"), chat)
    for name in ("tools", "documents"):
        value = getattr(chat, name)
        objects = [] if value is None else _elements(name, value)
        _extend(getattr(wire, name), name, [_json_text(f"{name}[{i}]", item) for i, item in enumerate(objects)])
    if chat.template_arguments is not None:
        _set_field(wire, "template_arguments", _json_text("template_arguments", chat.template_arguments))


def _fill_input(prompt: Prompt, request: Any) -> None:
    if isinstance(prompt, str):
        with _naming("prompt"):
            request.text = prompt
    elif isinstance(prompt, Chat):
        request.chat.SetInParent()
        _fill_chat(prompt, request.chat)
    else:
        request.token_ids.SetInParent()
        _extend(request.token_ids.ids, "prompt", prompt)


def _fill_constraint(options: GenerateOptions, request: Any) -> None:
    choices = [] if options.choices is None else _elements("choices", options.choices)
    given = [name for name in ("json_schema", "regex") if getattr(options, name) is not None]
    if choices:
        given.append("choices")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other")
    if choices:
        _extend(request.structured_output.choices.choices, "choices", choices)
    elif given:
        name, value = given[0], getattr(options, given[0])
        text = _json_text(name, value) if name == "json_schema" else value
        with _naming(name):
            setattr(request.structured_output, name, text)


def fill_capacity(policy: CapacityPolicy, wire: Any) -> None:
    if not isinstance(policy, CapacityPolicy):
        raise TypeError(f"capacity: a CapacityPolicy is wanted, not {type(policy).__name__}")
    wire.SetInParent()
    _set_fields(wire, [field.name for field in dataclasses.fields(CapacityPolicy)], policy)


def _fill_replay(replay: ReplayRouting, wire: Any) -> None:
    if not isinstance(replay, ReplayRouting):
        raise TypeError(f"replay_routing: a ReplayRouting is wanted, not {type(replay).__name__}")
    if not isinstance(replay.record, RoutedExperts):
        raise TypeError(f"replay_routing.record: a RoutedExperts is wanted, not {type(replay.record).__name__}")
    wire.SetInParent()
    with _naming("replay_routing.record"):
        _set_fields(wire.record, [field.name for field in dataclasses.fields(RoutedExperts)], replay.record)
    _set_field(wire, "weights", replay.weights)


def generate_request(prompt: Prompt, options: GenerateOptions, unary: bool) -> Any:
    request = (GENERATE_TEXT if unary else GENERATE).request_class()
    _fill_input(prompt, request)
    for group, names in _GROUPS.items():
        _set_fields(getattr(request, group), names, options)
    _fill_constraint(options, request)
    if options.time_limit is not None:
        _set_duration(request.scheduling.time_limit, "time_limit", options.time_limit)
    if options.capacity is not None:
        fill_capacity(options.capacity, request.scheduling.capacity)
    if options.replay_routing is not None:
        _fill_replay(options.replay_routing, request.replay_routing)
    _set_field(request, "model", options.model)
    _set_field(request, "request_id", options.request_id)
    return request


def tokenize_request(prompt: str | Chat, *, add_special_tokens: Optional[bool], parse_special: Optional[bool],
                     token_bytes: bool, model: str) -> Any:
    if not isinstance(prompt, (str, Chat)):
        raise TypeError(f"prompt: a str or a Chat is wanted, not {type(prompt).__name__}")
    request = TOKENIZE.request_class(model=model)
    _fill_input(prompt, request)
    _set_field(request.prompt, "add_special_tokens", add_special_tokens)
    _set_field(request.prompt, "parse_special", parse_special)
    if token_bytes:
        request.token_bytes = True
    return request


def detokenize_request(token_ids: Sequence[int], *, skip_special_tokens: Optional[bool], model: str) -> Any:
    request = DETOKENIZE.request_class(model=model)
    _extend(request.token_ids, "token_ids", token_ids)
    _set_field(request, "skip_special_tokens", skip_special_tokens)
    return request


@functools.lru_cache(maxsize=None)
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(message: Any, name: str, hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Union:  # Optional
        if not message.HasField(name):
            return None
        hint = typing.get_args(hint)[0]
    value = getattr(message, name)
    if typing.get_origin(hint) in (tuple, abc.Sequence):
        element = typing.get_args(hint)[0]
        nested = typing.cast(Any, element) if dataclasses.is_dataclass(element) else None
        return tuple(item if nested is None else from_message(nested, item) for item in value)
    if dataclasses.is_dataclass(hint):
        return from_message(typing.cast(type, hint), value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value) if value in {member.value for member in hint} else hint(0)
    if hint is float and hasattr(value, "nanos"):  # Duration, Timestamp
        return value.seconds + value.nanos / 1e9
    return value


def from_message(cls: type[T], message: Any) -> T:
    """A dataclass whose fields have the names of the message's."""
    return cls(**{name: _read(message, name, hint) for name, hint in _hints(typing.cast(Any, cls)).items()})


def event_from(response: Any) -> Optional[results.Event]:
    """None: an event that this package does not know."""
    kind = response.WhichOneof("event")
    if kind == "started":
        return from_message(results.Started, response.started)
    if kind == "delta":
        return from_message(results.Delta, response.delta)
    if kind == "finished":
        return from_message(results.Finished, response.finished)
    return None


def generation_from(response: Any) -> results.Generation:
    """From a GenerateTextResponse."""
    completions = []
    for sequence in response.sequences:
        finished = from_message(results.Finished, sequence.finished)
        completions.append(results.Completion(
            index=finished.index, text=sequence.text, token_ids=tuple(sequence.token_ids),
            details=tuple(from_message(results.TokenDetail, detail) for detail in sequence.details),
            finished=finished))
    return results.Generation(from_message(results.Started, response.started),
                              tuple(sorted(completions, key=lambda completion: completion.index)))


class Assembly:
    """Puts the events of a stream together."""

    def __init__(self) -> None:
        self.started: Optional[results.Started] = None
        #: Set when the server has ended the stream with OK.
        self.is_over = False
        self._deltas: dict[int, list[results.Delta]] = {}
        self._finished: dict[int, results.Finished] = {}

    def add(self, event: results.Event) -> None:
        if isinstance(event, results.Started):
            self.started = event
        elif isinstance(event, results.Delta):
            self._deltas.setdefault(event.index, []).append(event)
        else:
            self._finished[event.index] = event

    def result(self) -> results.Generation:
        if not self.is_over:
            raise RuntimeError("the stream is not over: read it to its end first")
        if self.started is None or not self._finished or self._deltas.keys() - self._finished.keys():
            raise RuntimeError("the server ended the stream without the end of every sequence")
        completions = []
        for index, finished in sorted(self._finished.items()):
            deltas = self._deltas.get(index, [])
            completions.append(results.Completion(
                index=index, text="".join(delta.text for delta in deltas) + finished.text,
                token_ids=tuple(token for delta in deltas for token in delta.token_ids),
                details=tuple(detail for delta in deltas for detail in delta.details), finished=finished))
        return results.Generation(self.started, tuple(completions))


def expert_stats_request(cls: Any, model: str, layers: Sequence[int], total: bool, window: bool,
                         include_experts: bool) -> Any:
    if not total and not window:
        raise ValueError("total and window cannot both be left out")
    scope = 0 if total and window else 1 if total else 2
    request = cls(model=model, scope=scope, include_experts=include_experts)
    _extend(request.layers, "layers", layers)
    return request


def watch_request(interval: float, model: str, layers: Sequence[int], total: bool, window: bool, include_experts: bool,
                  delta: bool) -> Any:
    request = expert_stats_request(WATCH_EXPERT_STATS.request_class, model, layers, total, window, include_experts)
    _set_duration(request.interval, "interval", interval)
    if delta:
        request.delta = True
    return request


HEALTH_SERVING = 1
