"""What a request asks for. Whatever is left None is decided by the server: the model's default, else the API's."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Mapping, Optional, Sequence, Union

#: A JSON object: as text, which goes as it is, or as a dict.
JsonObject = Union[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A function that the model called."""

    name: str
    arguments: JsonObject = "{}"
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    content: Optional[str] = None
    name: str = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""
    reasoning_content: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Chat:
    """A prompt as a conversation."""

    messages: Sequence[Message]
    add_generation_prompt: Optional[bool] = None
    continue_final_message: Optional[bool] = None
    tools: Optional[Sequence[JsonObject]] = ()
    documents: Optional[Sequence[JsonObject]] = ()
    template_arguments: Optional[JsonObject] = ""


#: Text, token ids, or a conversation.
Prompt = Union[str, Sequence[int], Chat]


class CapacityScope(enum.IntEnum):
    """Whose tokens share the places of an expert."""

    UNSPECIFIED = 0
    OFF = 1
    REQUEST = 2
    BATCH = 3


class OverflowPolicy(enum.IntEnum):
    """What becomes of a token that finds no place."""

    UNSPECIFIED = 0
    DROP = 1
    REWEIGHT = 2
    REROUTE = 3


@dataclasses.dataclass(frozen=True)
class CapacityPolicy:
    """How much an expert takes. What is left alone is the server's own."""

    scope: CapacityScope = CapacityScope.UNSPECIFIED
    overflow: OverflowPolicy = OverflowPolicy.UNSPECIFIED
    capacity_factor: Optional[float] = None
    min_capacity: Optional[int] = None
    group_tokens: Optional[int] = None


#: Demands that no token is lost, whatever holds for others.
DROPLESS = CapacityPolicy(scope=CapacityScope.OFF)


@dataclasses.dataclass(frozen=True)
class RoutedExperts:
    """The experts of each token and MoE layer, and their weights: [positions, layers, K], the best first."""

    first_position: int
    num_layers: int
    top_k: int
    expert_ids: Sequence[int]
    weights: Sequence[float] = ()


class ReplayWeights(enum.IntEnum):
    """What recorded experts weigh: what the router gives them now, or what was recorded."""

    UNSPECIFIED = 0
    ROUTER = 1
    RECORDED = 2


@dataclasses.dataclass(frozen=True)
class ReplayRouting:
    """Routes tokens to recorded experts, such as `finished.routed_experts` of an earlier answer."""

    record: RoutedExperts
    weights: ReplayWeights = ReplayWeights.UNSPECIFIED


@dataclasses.dataclass(frozen=True)
class GenerateOptions:
    """The fields of GenerateRequest, flat, under their names in the API."""

    # How the prompt is read.
    add_special_tokens: Optional[bool] = None
    parse_special: Optional[bool] = None
    truncate_prompt_tokens: Optional[int] = None
    # How tokens are chosen.
    temperature: Optional[float] = None
    top_k: Optional[int] = None
    top_p: Optional[float] = None
    min_p: Optional[float] = None
    presence_penalty: Optional[float] = None
    frequency_penalty: Optional[float] = None
    repetition_penalty: Optional[float] = None
    seed: Optional[int] = None
    n: Optional[int] = None
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    allowed_token_ids: Sequence[int] = ()
    # When to end.
    max_tokens: Optional[int] = None
    min_tokens: Optional[int] = None
    stop_strings: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: Optional[bool] = None
    include_stop_string: Optional[bool] = None
    # What to tell.
    skip_special_tokens: Optional[bool] = None
    text: Optional[bool] = None
    logprobs: Optional[bool] = None
    top_logprobs: Optional[int] = None
    prompt_logprobs: Optional[int] = None
    echo: Optional[bool] = None
    token_bytes: Optional[bool] = None
    routed_experts: Optional[bool] = None
    # A formal language for the output; at most one.
    json_schema: Optional[JsonObject] = None
    regex: Optional[str] = None
    choices: Sequence[str] = ()
    # How it is treated among others.
    priority: Optional[int] = None
    #: Seconds after which the text so far is the answer.
    time_limit: Optional[float] = None
    tenant: str = ""
    cache_salt: str = ""
    #: Such as DROPLESS.
    capacity: Optional[CapacityPolicy] = None
    #: By which experts it is routed.
    replay_routing: Optional[ReplayRouting] = None
    # Whom and what it is about.
    model: str = ""
    request_id: str = ""
