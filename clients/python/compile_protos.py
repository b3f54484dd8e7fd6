"""Writes the protos as one descriptor set, which the package reads when it is imported.

    python3 compile_protos.py [OUTPUT]     default: src/cadre_client/protos.binpb

Needs `grpcio-tools`, or `protoc` on the path. Any version will do: a descriptor set, unlike generated
code, is not bound to the version of the protobuf package that reads it.
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FILES = [
    "cadre/v1/generation_service.proto",
    "cadre/v1/expert_service.proto",
    "cadre/v1/model_service.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
    "grpc/health/v1/health.proto",
]


def find_protos():
    """The folder `proto` of the checkout that this file is in, or None."""
    folder = HERE.parents[1] / "proto" if len(HERE.parents) > 1 else None
    return folder if folder and (folder / FILES[0]).is_file() else None


def compile_protos(target):
    protos = find_protos()
    if protos is None:
        raise SystemExit("compile_protos: there is no folder proto/ beside clients/")
    arguments = [f"-I{protos}", f"--descriptor_set_out={target}", "--include_imports", *FILES]
    try:
        import grpc_tools
        from grpc_tools import protoc
    except ImportError:
        subprocess.run(["protoc", *arguments], check=True)
        return
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{include}", *arguments]) != 0:
        raise SystemExit("compile_protos: protoc failed")


def provide_protos(target):
    """Compiles the protos of a checkout. A source archive has none but carries the file; without it there is no
    package to build."""
    if find_protos() or not pathlib.Path(target).is_file():
        compile_protos(target)


if __name__ == "__main__":
    compile_protos(sys.argv[1] if len(sys.argv) > 1 else HERE / "src" / "cadre_client" / "protos.binpb")
