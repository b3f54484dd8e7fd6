"""The messages of the API, made from the descriptor set of the package in a descriptor pool of its own: no generated
code, so that one package works with every protobuf runtime, and beside any other that has google.rpc or cadre.v1."""

import importlib.resources
from typing import Any, Callable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _make_pool() -> Any:
    data = (importlib.resources.files(__package__) / "protos.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _make_pool()


def message_class(name: str) -> Any:
    """The class of the message with this full name, such as "cadre.v1.GenerateRequest"."""
    descriptor = _POOL.FindMessageTypeByName(name)
    get_class = getattr(message_factory, "GetMessageClass", None)
    if get_class is None:  # protobuf 3
        get_class = message_factory.MessageFactory(_POOL).GetPrototype
    return get_class(descriptor)


class Method:
    """One method of a service: its path, and how its messages become bytes and back."""

    def __init__(self, service: str, name: str) -> None:
        descriptor = _POOL.FindServiceByName(service).methods_by_name[name]
        self.path = f"/{service}/{name}"
        self.request_class = message_class(descriptor.input_type.full_name)
        self.response_class = message_class(descriptor.output_type.full_name)

    def bind(self, factory: Callable[..., Any]) -> Any:
        """`factory` is channel.unary_unary or channel.unary_stream."""
        return factory(self.path, request_serializer=self.request_class.SerializeToString,
                       response_deserializer=self.response_class.FromString)


_GENERATION, _EXPERTS, _MODELS = "cadre.v1.GenerationService", "cadre.v1.ExpertService", "cadre.v1.ModelService"
GENERATE = Method(_GENERATION, "Generate")
GENERATE_TEXT = Method(_GENERATION, "GenerateText")
TOKENIZE = Method(_GENERATION, "Tokenize")
DETOKENIZE = Method(_GENERATION, "Detokenize")
GET_EXPERT_STATS = Method(_EXPERTS, "GetExpertStats")
GET_TENANT_STATS = Method(_EXPERTS, "GetTenantStats")
SET_CAPACITY_POLICY = Method(_EXPERTS, "SetCapacityPolicy")
WATCH_EXPERT_STATS = Method(_EXPERTS, "WatchExpertStats")
GET_MODEL = Method(_MODELS, "GetModel")
GET_LOAD = Method(_MODELS, "GetLoad")
CHECK_HEALTH = Method("grpc.health.v1.Health", "Check")
