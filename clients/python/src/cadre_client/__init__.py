"""A typed client for cadre, a server for Mixture-of-Experts language models."""

from cadre_client.aio import AsyncClient, AsyncGenerateStream
from cadre_client.client import Client, GenerateStream
from cadre_client.errors import (
    CadreError, CallCancelledError, DeadlineExceededError, FieldViolation, InvalidRequestError, NotFoundError,
    OverloadedError, ServerError, UnavailableError, UnreachableError, UnsupportedError)
from cadre_client.options import (
    DROPLESS, CapacityPolicy, CapacityScope, Chat, GenerateOptions, Message, OverflowPolicy, Prompt, ReplayRouting,
    ReplayWeights, RoutedExperts, ToolCall)
from cadre_client.results import (
    Completion, Delta, Event, ExpertStats, Finished, FinishReason, Generation, LayerStats, Load, Model, ModelState,
    Started, TenantStats, TokenDetail, Tokenization)
from cadre_client.retry import RetryPolicy

__all__ = [
    "AsyncClient", "AsyncGenerateStream", "CadreError", "CallCancelledError", "CapacityPolicy", "CapacityScope",
    "Chat", "Client", "Completion", "DROPLESS", "DeadlineExceededError", "Delta", "Event", "ExpertStats",
    "FieldViolation", "FinishReason", "Finished", "GenerateOptions", "GenerateStream", "Generation",
    "InvalidRequestError", "LayerStats", "Load", "Message", "Model", "ModelState", "NotFoundError", "OverflowPolicy",
    "OverloadedError", "Prompt", "ReplayRouting", "ReplayWeights", "RetryPolicy", "RoutedExperts", "ServerError",
    "Started", "TenantStats", "TokenDetail", "Tokenization", "ToolCall", "UnavailableError", "UnreachableError",
    "UnsupportedError",
]
