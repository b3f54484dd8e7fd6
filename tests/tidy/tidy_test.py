"""The house rules that a machine can check, over the files that git knows.

Run from anywhere: python3 tests/tidy/tidy_test.py. Needs Python's standard library and git.
"""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mutants"))

from mutants import MUTANTS  # noqa: E402
CODE = {".cc", ".h", ".cu", ".cuh"}
MAX_FILE_LINES = 450
MAX_LINE_COLUMNS = 120
# Python files that hold texts for test data: their lines are as long as the texts.
DATA_SUFFIX = "_texts.py"

# What each folder may include of the others. A folder without an entry takes its parent's.
LAYERS = {
    "kernels": ["kernels"],
    "engine/base": ["engine/base", "kernels/check.h"],
    "engine/text": ["engine/text", "engine/base"],
    "engine/text/jinja": ["engine/text/jinja", "engine/text/text_span.h", "engine/text/utf8.h", "engine/base"],
    "engine/sample": ["engine/sample", "engine/request", "engine/structured/token_constraint.h", "engine/base",
                      "kernels/ops.h", "kernels/philox.h"],
    "engine/structured": ["engine/structured", "engine/text", "engine/base"],
    "engine/request": ["engine/request", "engine/base", "kernels/capacity.h"],
    "engine/schedule": ["engine/schedule", "engine/request", "engine/base"],
    "engine/experts": ["engine/experts", "engine/base", "kernels/api"],
    "engine/model": ["engine/model", "engine/experts", "engine/base", "kernels/api"],
    "engine": ["engine", "kernels/api"],
    "server": ["server", "engine", "proto", "kernels/api"],
    "tools": ["tools", "proto"],
}
KERNELS_API = {"kernels/capacity.h", "kernels/dtype.h", "kernels/view.h", "kernels/device.h", "kernels/ops.h",
               "kernels/quantized.h", "kernels/check.h"}
# The only file that picks a device.
DEVICE_PICKERS = {"server/main.cc"}
# Third-party headers that belong to one floor of the house only.
SERVER_ONLY_HEADERS = re.compile(r"^(grpc|grpcpp|google|prometheus|spdlog|boost|CLI)/|\.pb\.h$")

BANNED_PATTERNS = {
    "std::regex overflows the stack on long input": re.compile(r"std::regex|#include <regex>"),
    "unfinished mark": re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"),
    "using namespace": re.compile(r"^\s*using namespace ", re.M),
}


def tracked_files():
    # Trust the tree whoever owns it: in containers the owner is often somebody else.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    return [pathlib.PurePosixPath(name) for name in output.decode().split("\0") if name and (ROOT / name).is_file()]


FILES = tracked_files()
CODE_FILES = [f for f in FILES if f.suffix in CODE]


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def layer_of(path):
    for folder in [path.parent, *path.parent.parents]:
        if str(folder) in LAYERS:
            return str(folder)
    return None


def may_include(path, header):
    """Whether `path` may name the project header `header`."""
    if str(path) in DEVICE_PICKERS and header.startswith(("kernels/cpu/", "kernels/cuda/")):
        return True
    for allowed in LAYERS[layer_of(path)]:
        if allowed == "kernels/api":
            if header in KERNELS_API:
                return True
        elif header == allowed or header.startswith(allowed + "/"):
            return True
    return False


class TidyTest(unittest.TestCase):
    def report(self, findings):
        self.assertFalse(findings, "\n" + "\n".join(findings))

    def test_includes_respect_the_layers(self):
        findings = []
        for path in CODE_FILES:
            if layer_of(path) is None:
                continue
            for header in re.findall(r'^#include "([^"]+)"', text_of(path), re.M):
                is_generated = header.endswith(".pb.h")
                if is_generated:
                    if layer_of(path) not in ("server", "tools"):
                        findings.append(f"{path} includes {header}: only server and tools know the wire")
                elif (ROOT / header).is_file() and not may_include(path, header):
                    findings.append(f"{path} includes {header}, which its layer may not")
        self.report(findings)

    def test_third_party_headers_stay_on_their_floor(self):
        findings = []
        for path in CODE_FILES:
            if layer_of(path) in ("server", "tools", None):
                continue
            for header in re.findall(r"^#include [<\"]([^>\"]+)[>\"]", text_of(path), re.M):
                if SERVER_ONLY_HEADERS.search(header):
                    findings.append(f"{path} includes {header}: that belongs to server/")
        self.report(findings)

    def test_cuda_headers_stay_in_their_room(self):
        findings = [
            f"{path} includes a CUDA header"
            for path in CODE_FILES
            if not str(path).startswith("kernels/cuda/") and re.search(r"#include <(cuda|cublas)", text_of(path))
        ]
        self.report(findings)

    def test_calls_of_cuda_are_checked(self):
        unchecked = re.compile(r"^\s*cuda[A-Z]\w*\(", re.M)
        findings = []
        for path in CODE_FILES:
            if not str(path).startswith(("kernels/cuda/", "tests/gpu/")):
                continue
            for call in unchecked.finditer(text_of(path)):
                # A call that goes on an expression of the line before is part of it.
                before = text_of(path)[: call.start()].rstrip()
                if before.endswith((";", "{", "}", ")", ":")):
                    findings.append(f"{path}: {call.group().strip()} ... is not checked: use cuda_check.h")
        self.report(findings)

    def test_files_and_lines_are_short(self):
        findings = []
        for path in CODE_FILES + [f for f in FILES if f.suffix in {".py", ".proto", ".sh"}]:
            lines = text_of(path).splitlines()
            if len(lines) > MAX_FILE_LINES:
                findings.append(f"{path} has {len(lines)} lines, the limit is {MAX_FILE_LINES}: split it by noun")
            for number, line in enumerate(lines, 1):
                if len(line) > MAX_LINE_COLUMNS and not path.name.endswith(DATA_SUFFIX):
                    findings.append(f"{path}:{number} has {len(line)} columns, the limit is {MAX_LINE_COLUMNS}")
        self.report(findings)

    def test_no_banned_patterns(self):
        findings = []
        for path in CODE_FILES:
            for why, pattern in BANNED_PATTERNS.items():
                for match in pattern.finditer(text_of(path)):
                    findings.append(f"{path}: {why}: {match.group(0).strip()}")
        self.report(findings)

    def test_headers_are_guarded_by_their_path(self):
        findings = []
        for path in CODE_FILES:
            if path.suffix != ".h":
                continue
            guard = "CADRE_" + re.sub(r"[^A-Za-z0-9]", "_", str(path)).upper() + "_"
            if f"#ifndef {guard}\n#define {guard}\n" not in text_of(path):
                findings.append(f"{path} must be guarded by {guard}")
        self.report(findings)

    def test_every_folder_of_code_has_a_readme(self):
        folders = {str(f.parent) for f in CODE_FILES if not str(f).startswith("tests/")} | {"tests", "proto", "tools"}
        findings = [f"{f} has no README.md" for f in sorted(folders) if not (ROOT / f / "README.md").is_file()]
        self.report(findings)

    def test_no_source_is_left_out_of_the_build(self):
        lists = {str(f.parent): text_of(f) for f in FILES if f.name == "CMakeLists.txt"}
        helpers = text_of("cmake/helpers.cmake")
        findings = []
        for path in CODE_FILES:
            if path.suffix not in (".cc", ".cu"):
                continue
            listed = str(path) in helpers
            for folder in [path.parent, *path.parent.parents]:
                key = "." if str(folder) == "" else str(folder)
                if key in lists and str(path.relative_to(folder)) in lists[key]:
                    listed = True
            if not listed:
                findings.append(f"{path} is in no CMakeLists.txt")
        self.report(findings)

    def test_every_metric_is_documented(self):
        documented = set(re.findall(r"`((?:cadre|process)_\w+)`", text_of("docs/metrics.md")))
        declared = set(re.findall(r'"((?:cadre|process)_\w+)"', text_of("server/metric_names.h")))
        self.report([f"docs/metrics.md lacks {name}" for name in sorted(declared - documented)])

    def test_every_seeded_bug_has_its_place_and_its_tests(self):
        findings = [f"two are called: {name}" for name in {m.name for m in MUTANTS}
                    if sum(m.name == name for m in MUTANTS) > 1]
        programs = re.findall(r"cadre_test\((\w+)", text_of("tests/CMakeLists.txt"))
        for mutant in MUTANTS:
            count = text_of(mutant.file).count(mutant.old)
            if count != 1:
                findings.append(f"{mutant.name}: its text is in {mutant.file} {count} times")
            if mutant.program not in programs:
                findings.append(f"{mutant.name}: there is no test program {mutant.program}")
        self.report(findings)

    def test_the_tree_is_small_enough_to_travel(self):
        total = sum((ROOT / f).stat().st_size for f in FILES)
        self.assertLess(total, 40 << 20)


if __name__ == "__main__":
    unittest.main()
