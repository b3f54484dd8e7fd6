"""What a server answers. Times are seconds; times of day are seconds since 1970."""

from __future__ import annotations

import dataclasses
import enum
from typing import Optional, Union

from cadre_client.options import CapacityPolicy, RoutedExperts


class FinishReason(enum.Enum):
    """Why a sequence ended; the names of the API without FINISH_REASON_. A server newer than this package may know
    more: those are UNSPECIFIED."""

    UNSPECIFIED = 0
    END_OF_SEQUENCE = 1
    STOP_TOKEN = 2
    STOP_STRING = 3
    LENGTH = 4
    TIME_LIMIT = 5
    CONSTRAINT_END = 6


class ModelState(enum.Enum):
    UNSPECIFIED = 0
    LOADING = 1
    READY = 2
    DRAINING = 3


@dataclasses.dataclass(frozen=True)
class TokenAlternative:
    token_id: int
    logprob: float
    token_bytes: bytes


@dataclasses.dataclass(frozen=True)
class TokenDetail:
    token_id: int
    logprob: float
    rank: int
    token_bytes: bytes
    alternatives: tuple[TokenAlternative, ...]


@dataclasses.dataclass(frozen=True)
class Started:
    """First event of a stream."""

    request_id: str
    model: str
    seed: int
    prompt_tokens: int
    cached_prompt_tokens: int
    prompt_details: tuple[TokenDetail, ...]


@dataclasses.dataclass(frozen=True)
class Delta:
    """New text and tokens of one sequence."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    details: tuple[TokenDetail, ...]


@dataclasses.dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    cached_prompt_tokens: int
    generated_tokens: int


@dataclasses.dataclass(frozen=True)
class Timings:
    queue: float
    prefill: float
    decode: float
    total: float
    preemptions: int


@dataclasses.dataclass(frozen=True)
class RoutingReport:
    """What became of the assignments of the request's tokens to experts."""

    processed: int
    rerouted: int
    reweighted: int
    dropped: int
    lost_gate_weight: float
    expert_cache_hits: int
    expert_cache_misses: int
    expert_bytes_loaded: int
    expert_wait: float
    fidelity: float
    gate_weight: float
    capacity: CapacityPolicy


@dataclasses.dataclass(frozen=True)
class Finished:
    """Last event of one sequence. `text` was held back until the end and belongs behind the last delta."""

    index: int
    reason: FinishReason
    text: str
    matched_token_id: Optional[int]
    matched_stop_string: Optional[str]
    usage: Usage
    timings: Timings
    routing: RoutingReport
    routed_experts: Optional[RoutedExperts]


Event = Union[Started, Delta, Finished]


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished sequence."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    details: tuple[TokenDetail, ...]
    finished: Finished


@dataclasses.dataclass(frozen=True)
class Generation:
    """A whole answer."""

    started: Started
    completions: tuple[Completion, ...]

    @property
    def text(self) -> str:
        """Of the first sequence."""
        return self.completions[0].text

    @property
    def reason(self) -> FinishReason:
        """Of the first sequence."""
        return self.completions[0].finished.reason


@dataclasses.dataclass(frozen=True)
class Tokenization:
    token_ids: tuple[int, ...]
    token_bytes: tuple[bytes, ...]
    max_model_len: int


@dataclasses.dataclass(frozen=True)
class RouterHealth:
    load_entropy: float
    gate_entropy: float
    load_imbalance: float
    load_variation: float
    balance_loss: float
    z_loss: float
    unused_experts: int


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """The tuples have an entry for each expert, or none when experts were not asked for."""

    layer: int
    tokens: int
    processed: tuple[int, ...]
    rerouted: tuple[int, ...]
    reweighted: tuple[int, ...]
    dropped: tuple[int, ...]
    gate_weight: tuple[float, ...]
    health: RouterHealth
    lost_gate_weight: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ExpertStats:
    time: float
    model: str
    num_experts: int
    top_k: int
    window_tokens: int
    total: tuple[LayerStats, ...]
    window: tuple[LayerStats, ...]


@dataclasses.dataclass(frozen=True)
class TenantStats:
    """What became of a tenant's assignments since the start of the server. Empty: requests without a tenant."""

    tenant: str
    processed: int
    rerouted: int
    reweighted: int
    dropped: int
    gate_weight: float
    lost_gate_weight: float


@dataclasses.dataclass(frozen=True)
class Load:
    """How busy the model is; see ModelLoad in the API for what is a counter."""

    time: float
    state: ModelState
    running_requests: int
    waiting_requests: int
    waiting_tokens: int
    oldest_wait: float
    max_running_requests: int
    max_waiting_requests: int
    kv_blocks_free: int
    kv_blocks_in_use: int
    kv_blocks_cached: int
    kv_blocks_total: int
    admitted_requests: int
    finished_requests: int
    cancelled_requests: int
    deadline_exceeded_requests: int
    failed_requests: int
    prompt_tokens: int
    generated_tokens: int
    prefill_tokens: int
    decode_tokens: int
    preemptions: int
    steps: int
    prefix_cache_query_tokens: int
    prefix_cache_hit_tokens: int


@dataclasses.dataclass(frozen=True)
class Architecture:
    family: str
    num_layers: int
    moe_layers: tuple[int, ...]
    num_experts: int
    top_k: int
    hidden_size: int
    vocab_size: int
    has_shared_expert: bool


@dataclasses.dataclass(frozen=True)
class Limits:
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_queue_requests: int
    max_prompt_bytes: int
    max_stop_strings: int
    max_stop_string_bytes: int
    max_stop_token_ids: int
    max_temperature: float
    max_request_bytes: int


@dataclasses.dataclass(frozen=True)
class ModelCapacity:
    """How much an expert takes of requests that say nothing, and whether they may."""

    policy: CapacityPolicy
    allows_override: bool
    is_supported: bool


@dataclasses.dataclass(frozen=True)
class Model:
    """What is served. All but the first three is empty while the model is loading."""

    name: str
    state: ModelState
    load_progress: float
    architecture: Architecture
    limits: Limits
    eos_token_ids: tuple[int, ...]
    supported_fields: tuple[str, ...]
    capacity: ModelCapacity
