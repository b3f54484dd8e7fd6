"""Checks proto/ against the STANDARD and COMMENTS rules of buf that matter here, from what protoc itself understood.

Run from anywhere: python3 tests/tidy/proto_lint.py. Needs protoc and Python's protobuf package. The packages in
IMPORTED_PACKAGES repeat published definitions and keep their published style.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
IMPORTED_PACKAGES = {"google.rpc", "grpc.health.v1", "opentelemetry.proto.collector.trace.v1", "smg.grpc.common",
                     "vllm.grpc.engine"}
# Messages moved out of these, and clients go on naming them there (buf.yaml says the same).
HAND_ON_THEIR_IMPORTS = {"cadre/v1/generation_service.proto"}

LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")

# Field numbers of descriptor.proto, which make the paths of comments.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE, SERVICE_METHOD = 2, 2


def upper_snake(pascal):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", pascal).upper()


def load(proto_root):
    """The files below `proto_root` as protoc describes them, comments included."""
    names = sorted(str(p.relative_to(proto_root)) for p in proto_root.rglob("*.proto"))
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(
            ["protoc", f"-I{proto_root}", f"--descriptor_set_out={out.name}", "--include_source_info", *names],
            check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes()).file


class Linter:
    """Collects findings over one file."""

    def __init__(self, file):
        self.file = file
        self.findings = []
        self.commented = {tuple(l.path) for l in file.source_code_info.location if l.leading_comments.strip()}

    def expect(self, condition, what):
        if not condition:
            self.findings.append(f"{self.file.name}: {what}")

    def expect_comment(self, path, name):
        self.expect(tuple(path) in self.commented, f"{name} has no comment")

    def run(self):
        package = self.file.package
        self.expect(self.file.syntax == "proto3", "syntax is not proto3")
        self.expect(re.fullmatch(r"[a-z][a-z0-9.]*\.v[0-9]+", package), f"package {package} has no version suffix")
        self.expect(str(pathlib.PurePosixPath(self.file.name).parent) == package.replace(".", "/"),
                    f"package {package} is not its folder")
        self.expect(LOWER_SNAKE.fullmatch(pathlib.PurePosixPath(self.file.name).stem), "file name is not lower_snake")
        self.expect(not self.file.public_dependency or self.file.name in HAND_ON_THEIR_IMPORTS, "has a public import")
        for i, message in enumerate(self.file.message_type):
            self.check_message(message, [FILE_MESSAGE, i])
        for i, enum in enumerate(self.file.enum_type):
            self.check_enum(enum, [FILE_ENUM, i])
        for i, service in enumerate(self.file.service):
            self.check_service(service, [FILE_SERVICE, i])
        return self.findings

    def check_message(self, message, path):
        if message.options.map_entry:
            return
        self.expect(PASCAL.fullmatch(message.name), f"message {message.name} is not PascalCase")
        self.expect_comment(path, message.name)
        for i, field in enumerate(message.field):
            self.expect(LOWER_SNAKE.fullmatch(field.name), f"{message.name}.{field.name} is not lower_snake")
            self.expect_comment([*path, MESSAGE_FIELD, i], f"{message.name}.{field.name}")
        synthetic = {f.oneof_index for f in message.field if f.proto3_optional}
        for i, oneof in enumerate(message.oneof_decl):
            if i in synthetic:
                continue
            self.expect(LOWER_SNAKE.fullmatch(oneof.name), f"oneof {message.name}.{oneof.name} is not lower_snake")
            self.expect_comment([*path, MESSAGE_ONEOF, i], f"oneof {message.name}.{oneof.name}")
        for i, nested in enumerate(message.nested_type):
            self.check_message(nested, [*path, MESSAGE_NESTED, i])
        for i, enum in enumerate(message.enum_type):
            self.check_enum(enum, [*path, MESSAGE_ENUM, i])

    def check_enum(self, enum, path):
        self.expect(PASCAL.fullmatch(enum.name), f"enum {enum.name} is not PascalCase")
        self.expect_comment(path, enum.name)
        self.expect(not enum.options.allow_alias, f"enum {enum.name} allows aliases")
        prefix = upper_snake(enum.name) + "_"
        self.expect(enum.value[0].number == 0 and enum.value[0].name == prefix + "UNSPECIFIED",
                    f"enum {enum.name} does not begin with {prefix}UNSPECIFIED = 0")
        for i, value in enumerate(enum.value):
            self.expect(UPPER_SNAKE.fullmatch(value.name), f"{value.name} is not UPPER_SNAKE")
            self.expect(value.name.startswith(prefix), f"{value.name} does not begin with {prefix}")
            self.expect_comment([*path, ENUM_VALUE, i], value.name)

    def check_service(self, service, path):
        self.expect(PASCAL.fullmatch(service.name) and service.name.endswith("Service"),
                    f"service {service.name} is not PascalCase with the suffix Service")
        self.expect_comment(path, service.name)
        for i, method in enumerate(service.method):
            name = f"{service.name}.{method.name}"
            self.expect(PASCAL.fullmatch(method.name), f"{name} is not PascalCase")
            self.expect_comment([*path, SERVICE_METHOD, i], name)
            for kind, type_name in (("Request", method.input_type), ("Response", method.output_type)):
                self.expect(type_name.rsplit(".", 1)[-1] in (method.name + kind, service.name + method.name + kind),
                            f"{name} does not use {method.name}{kind} but {type_name}")


def lint(proto_root):
    files = [f for f in load(proto_root) if f.package not in IMPORTED_PACKAGES]
    findings = [finding for file in files for finding in Linter(file).run()]
    used = {}
    for file in files:
        for service in file.service:
            for method in service.method:
                for type_name in (method.input_type, method.output_type):
                    used.setdefault(type_name, []).append(f"{service.name}.{method.name}")
    findings += [f"{name} is used by {methods}" for name, methods in used.items() if len(methods) > 1]
    return findings


class ProtoLintTest(unittest.TestCase):
    def test_the_api_is_clean(self):
        self.assertEqual(lint(PROTO), [])

    def test_the_linter_sees_each_fault(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bad" / "v1" / "BadName.proto"
            path.parent.mkdir(parents=True)
            path.write_text(
                'syntax = "proto3";\npackage other;\n'
                "enum Color { RED = 0; }\n"
                "message lower { string BadField = 1; oneof Choice { int32 a = 2; } }\n"
                "service Thing { rpc get(lower) returns (lower); }\n")
            report = "\n".join(lint(pathlib.Path(folder)))
        for fault in ("no version suffix", "is not its folder", "file name is not lower_snake", "COLOR_UNSPECIFIED",
                      "RED does not begin with COLOR_", "message lower is not PascalCase", "lower.BadField is not",
                      "oneof lower.Choice is not", "suffix Service", "Thing.get is not PascalCase",
                      "does not use getRequest", "lower has no comment", "is used by"):
            self.assertIn(fault, report)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
