"""Streams a continuation with stubs that protoc made:

    protoc -Iproto --python_out=stubs --grpc_python_out=stubs \\
        --plugin=protoc-gen-grpc_python=$(which grpc_python_plugin) $(cd proto && find cadre google -name '*.proto')
    PYTHONPATH=stubs python3 clients/examples/stream.py "Once upon a time" [address]
"""

import sys

import grpc
from cadre.v1 import generation_service_pb2 as pb
from cadre.v1 import generation_service_pb2_grpc as rpc
from google.rpc import error_details_pb2, status_pb2


def reason_of(error: grpc.RpcError) -> str:
    """The server's own name for what went wrong, such as CONTEXT_LENGTH_EXCEEDED."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.type_url.endswith("google.rpc.ErrorInfo"):
                    return error_details_pb2.ErrorInfo.FromString(detail.value).reason
    return ""


def main() -> int:
    prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
    address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"
    request = pb.GenerateRequest(text=prompt)
    request.stopping.max_tokens = 64
    with grpc.insecure_channel(address) as channel:
        try:
            for event in rpc.GenerationServiceStub(channel).Generate(request, timeout=60):
                if event.HasField("delta"):
                    print(event.delta.text, end="", flush=True)
                elif event.HasField("finished"):
                    usage = event.finished.usage
                    print(event.finished.text + f"\n[{usage.generated_tokens} tokens]")
        except grpc.RpcError as error:
            print(f"{error.code().name} {reason_of(error)}: {error.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
