"""What a request asks for. Whatever is left None is decided by the server: the model's default, else the API's."""

from __future__ import annotations

import dataclasses
from typing import Mapping, Optional, Sequence, Union


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A function that the model called; `arguments` is a JSON object as text."""

    name: str
    arguments: str = "{}"
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
    """A prompt as a conversation. `tools`, `documents` and `template_arguments` are JSON objects as text."""

    messages: Sequence[Message]
    add_generation_prompt: Optional[bool] = None
    continue_final_message: Optional[bool] = None
    tools: Sequence[str] = ()
    documents: Sequence[str] = ()
    template_arguments: str = ""


#: Text, token ids, or a conversation.
Prompt = Union[str, Sequence[int], Chat]


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
    # A formal language for the output; at most one. `json_schema` is JSON as text.
    json_schema: Optional[str] = None
    regex: Optional[str] = None
    choices: Sequence[str] = ()
    # How it is treated among others.
    priority: Optional[int] = None
    #: Seconds after which the text so far is the answer.
    time_limit: Optional[float] = None
    tenant: str = ""
    cache_salt: str = ""
    # Whom and what it is about.
    model: str = ""
    request_id: str = ""
