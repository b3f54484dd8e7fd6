"""The examples of clients/examples: Python is run against a server, C++ is checked against the distribution's headers,
JavaScript is parsed, and run where tools/install_grpc_js.sh could install its packages (or where CADRE_GRPC_JS names a
folder with such node_modules)."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import harness
from harness import ROOT, Server, clean_environment

EXAMPLES = ROOT / "clients" / "examples"
GRPC_JS = pathlib.Path(os.environ.get("CADRE_GRPC_JS", ROOT / "build" / "grpc-js"))


class ExamplesTest(unittest.TestCase):
    def run_python(self, *arguments):
        # The harness has made the stubs as the example says.
        environment = {**clean_environment(), "PYTHONPATH": harness._stub_folder.name}
        return subprocess.run([sys.executable, str(EXAMPLES / "stream.py"), *arguments], capture_output=True, text=True,
                              timeout=60, check=False, env=environment)

    def test_python_streams_and_tells_errors(self):
        with Server() as server:
            done = self.run_python("Once upon a time", server.address)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"(?s)\w.*\n\[\d+ tokens\]\n$")
            done = self.run_python("x" * 5000, server.address)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"^INVALID_ARGUMENT CONTEXT_LENGTH_EXCEEDED: ")

    def test_cpp_is_of_this_api(self):
        protos = [str(path.relative_to(ROOT / "proto")) for folder in ("cadre", "google")
                  for path in sorted((ROOT / "proto" / folder).rglob("*.proto"))]
        with tempfile.TemporaryDirectory(prefix="cadre-example-") as made:
            subprocess.run(["protoc", f"-I{ROOT / 'proto'}", f"--cpp_out={made}", f"--grpc_out={made}",
                            "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin", *protos], check=True)
            source = EXAMPLES / "stream.cc"

            def check(text):
                file = pathlib.Path(made) / "stream.cc"
                file.write_text(text, encoding="utf-8")
                return subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra",
                                       "-Werror", f"-I{made}", str(file)], capture_output=True, text=True, check=False)

            done = check(source.read_text(encoding="utf-8"))
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("node"), "node is not installed")
    def test_javascript_is_javascript(self):
        done = subprocess.run(["node", "--check", str(EXAMPLES / "stream.mjs")], capture_output=True, text=True,
                              check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        text = (EXAMPLES / "stream.mjs").read_text(encoding="utf-8")
        self.assertTrue((ROOT / "proto" / "cadre/v1/generation_service.proto").is_file())
        for name in ("delta", "finished", "usage", "generated_tokens", "max_tokens", "text"):
            self.assertIn(name, text)

    @unittest.skipUnless(shutil.which("node"), "node is not installed")
    @unittest.skipUnless((GRPC_JS / "installed").exists(), "tools/install_grpc_js.sh could not install grpc-js")
    def test_javascript_streams_and_tells_errors(self):
        # Node looks for packages in the folders above a module: this is a tree of the same shape below them.
        with tempfile.TemporaryDirectory(prefix="run-", dir=GRPC_JS) as tree, Server() as server:
            place = pathlib.Path(tree) / "clients" / "examples"
            place.mkdir(parents=True)
            shutil.copy(EXAMPLES / "stream.mjs", place)
            (pathlib.Path(tree) / "proto").symlink_to(ROOT / "proto")

            def run(*arguments):
                return subprocess.run(["node", str(place / "stream.mjs"), *arguments], capture_output=True, text=True,
                                      timeout=60, check=False, env=clean_environment())

            done = run("Once upon a time", server.address)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"(?s)\w.*\n\[\d+ tokens\]\n$")
            self.assertNotIn("undefined", done.stdout)
            done = run("x" * 5000, server.address)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"^INVALID_ARGUMENT: text: ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
