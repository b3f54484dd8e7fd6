"""The bundle that `make gpu-bundle` makes, staged from the build and moved elsewhere: it is small, whole, and runs.

    gpu_bundle_test.py BUILD_FOLDER        after a build with tests
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = pathlib.Path("build/release")
LIMIT_BYTES = 60 << 20
# The bundle itself has no weights.
DEMO_MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "demo"
# What the machine has: glibc, its loader, and CUDA's.
OF_THE_MACHINE = re.compile(r"^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv))\.so")
CUDA = re.compile(r"^lib(cuda|cudart|cublas|cublasLt|nv\w+)\.so")


def environment():
    """Nothing that would help a program to find what the bundle lacks."""
    return {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "", "HOME": os.environ.get("HOME", "/")}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class GpuBundleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        made = pathlib.Path(cls.folder.name) / "made"
        subprocess.run(["cmake", "--install", BUILD, "--component", "gpu_bundle", "--prefix", made, "--strip"],
                       check=True, capture_output=True)
        cls.root = pathlib.Path(cls.folder.name) / "moved" / "gpu-bundle"
        cls.root.parent.mkdir()
        shutil.move(made, cls.root)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_in_bundle(self, *command, timeout=60):
        return subprocess.run(command, cwd=self.root, env=environment(), capture_output=True, text=True,
                              timeout=timeout)

    def programs(self):
        return sorted(path for path in (self.root / "bin").iterdir())

    def test_it_is_small_enough_to_travel(self):
        total = sum(path.lstat().st_size for path in self.root.rglob("*") if not path.is_dir())
        self.assertLess(total, LIMIT_BYTES)

    def test_every_library_is_beside_it_or_the_machine_s(self):
        self.assertGreaterEqual(len(self.programs()), 5)
        libraries = [path for path in (self.root / "lib").iterdir() if not path.is_symlink()]
        self.assertGreater(len(libraries), 10)
        for path in self.programs():
            for line in self.run_in_bundle("ldd", path).stdout.splitlines():
                name, _, rest = line.strip().partition(" => ")
                name = pathlib.PurePath(name.split()[0]).name
                if OF_THE_MACHINE.match(name) or CUDA.match(name):
                    continue
                found = pathlib.Path(rest.split(" (")[0]).resolve()
                self.assertEqual(found.parent, (self.root / "lib").resolve(), f"{path.name}: {line.strip()}")

    def test_no_cuda_library_travels(self):
        found = [path.name for path in (self.root / "lib").iterdir() if CUDA.match(path.name)]
        self.assertEqual(found, [])

    def test_programs_are_stripped(self):
        for path in self.programs():
            self.assertNotIn(".symtab", self.run_in_bundle("readelf", "-SW", path).stdout, path.name)

    def test_the_server_in_it_answers(self):
        port, metrics_port = free_port(), free_port()
        server = subprocess.Popen(["bin/cadre-server", "--model", DEMO_MODEL, "--device=cpu", "--port", str(port),
                                   "--metrics-port", str(metrics_port)], cwd=self.root, env=environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            address = f"127.0.0.1:{port}"
            end = time.monotonic() + 60
            while self.run_in_bundle("bin/cadre", "-a", address, "health").returncode != 0:
                self.assertIsNone(server.poll(), "the server ended")
                self.assertLess(time.monotonic(), end, "the server is not ready")
                time.sleep(0.2)
            answer = self.run_in_bundle("bin/cadre", "-a", address, "generate", "Once upon a time", "--max-tokens", "8",
                                        "--temperature", "0")
            self.assertEqual(answer.returncode, 0, answer.stderr)
            self.assertTrue(answer.stdout.strip())
        finally:
            server.terminate()
            said, _ = server.communicate(timeout=60)
        self.assertEqual(server.returncode, 0, said)

    def serve_check(self, *flags):
        return self.run_in_bundle(sys.executable, "scripts/serve_check.py", "shapes/tiny", "--layers", "2", "--scratch",
                                  self.folder.name, "--requests", "16", *flags, timeout=120)

    def test_a_server_of_random_weights_is_checked_over_grpc(self):
        result = self.serve_check("--device=cpu")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        self.assertEqual(lines[0]["layers"], 2)
        self.assertEqual(lines[-1]["answers_equal_alone_and_beside_others"], 4)
        self.assertEqual([line["concurrency"] for line in lines if "concurrency" in line], [1, 32])
        self.assertFalse((pathlib.Path(self.folder.name) / "tiny").exists(), "the checkpoint is left behind")

    def test_a_server_that_does_not_start_fails_the_check_with_its_words(self):
        result = self.serve_check("--device=none")
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("--device", result.stdout)

    def test_transformers_are_skipped_where_there_is_no_pytorch(self):
        # Isolated from what is installed beside Python's own library.
        result = self.run_in_bundle(sys.executable, "-S", "scripts/transformers_check.py", "shapes/tiny")
        self.assertEqual(result.returncode, 77, result.stdout + result.stderr)
        self.assertIn("No module named", result.stdout)

    def test_the_tests_in_it_find_their_data(self):
        listed = self.run_in_bundle("bin/cuda_model_test", "--gtest_list_tests").stdout
        self.assertGreater(len(re.findall(r"MatchesTransformers\w*/|olmoe_mha", listed)), 0, listed[:2000])

    def test_the_check_starts_here(self):
        self.assertEqual(self.run_in_bundle("./gpu-check.sh", "--help").returncode, 0)
        self.assertEqual(self.run_in_bundle("./gpu-check.sh", "--dry-run").returncode, 0)

    def test_without_a_gpu_everything_says_so_at_once(self):
        # A machine that has one is made to look as if it had none.
        hidden = {**environment(), "CUDA_VISIBLE_DEVICES": ""}
        for command in (["./gpu-check.sh", "--out", "out"], ["bin/cuda_ops_test"], ["bin/cuda_model_test"]):
            begin = time.monotonic()
            result = subprocess.run(command, cwd=self.root, env=hidden, capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 77, result.stdout + result.stderr)
            self.assertRegex(result.stderr, "no GPU")
            self.assertLess(time.monotonic() - begin, 30)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
