"""The commands that pages show: those of cadre-server and cadre exist, with options that they have; what is run with
make or as a script is there; and those of docs/security.md are run, to the letter, and lead to a server with TLS and
keys.

Needs the programs in build/release/bin, or in the folder named by CADRE_BIN.
"""

import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "release" / "bin"))
sys.path.insert(0, str(ROOT / "tools" / "manuals"))

from help_text import read_program  # noqa: E402

PROGRAMS = ("cadre", "cadre-server")
# What may stand before a program in one command: a container's, where it is run by another program.
BEFORE = ("server", "--", "sudo")


def pages():
    output = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "*.md"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    return [ROOT / name for name in output.split("\0") if name]


def blocks(page):
    """[text] of the page's examples for a shell."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def spans(page):
    """[text] of the page's code spans that are commands of these programs."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.findall(r"`((?:kubectl [^`\n]* -- )?cadre(?:-server)? [^`\n]+)`", text)


def commands(text):
    """[[word]] of an example for a shell; no command of a here document is wanted."""
    lines = re.sub(r"\\\n", " ", re.sub(r"<<'(\w+)'.*?^\1$", "", text, flags=re.S | re.M)).splitlines()
    found = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                found += [words] if words else []
                words = []
            else:
                words.append(word)
    return found


def program_of(words):
    """The words from cadre or cadre-server on, or None: variables may stand before it, or one of BEFORE."""
    for i, word in enumerate(words):
        if word.rpartition("/")[2] in PROGRAMS and (words[i - 1] in BEFORE or all("=" in w for w in words[:i])):
            return [word.rpartition("/")[2], *words[i + 1:]]
    return None


def documented():
    """[(page, words of a command of cadre or cadre-server)]"""
    found = []
    for page in pages():
        for text in blocks(page) + spans(page):
            found += [(page.relative_to(ROOT), program) for program in map(program_of, commands(text)) if program]
    return found


class ExistenceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.known = {command.path: command for name in PROGRAMS for command in read_program(BIN / name).walk()}

    def mistakes(self, words):
        """What is wrong with a command."""
        path, options = (words[0],), {name for option in self.known[(words[0],)].options for name in option.names}
        for word in words[1:]:
            if (*path, word) in self.known:
                path = (*path, word)
                options |= {name for option in self.known[path].options for name in option.names}
        found = [f"{' '.join(path)} has no {word}" for word in (w.partition("=")[0] for w in words[1:])
                 if re.match(r"-\w$|--\w", word) and word not in options]
        whole = len(path) > 1 or words[0] == "cadre-server" or "--help" in words
        return found if whole else [*found, f"{words} names no command"]

    def test_commands_have_their_options(self):
        shown = documented()
        self.assertGreater(len(shown), 60)
        self.assertGreater(len({page for page, _ in shown}), 10)
        self.assertEqual([(str(page), wrong) for page, words in shown for wrong in self.mistakes(words)], [])

    def test_mistakes_are_found(self):
        """Whether the test above can fail."""
        for text in ("cadre-server --mdel x", "cadre genrate x", "cadre profile export x --nothing",
                     "A=1 cadre model --max-tokens 3", "docker compose exec server cadre generte x"):
            words, = map(program_of, commands(text))
            self.assertEqual(len(self.mistakes(words)), 1, text)
        self.assertEqual(self.mistakes(program_of(commands("cadre --address a:1 generate x --max-tokens 3")[0])), [])
        self.assertIsNone(program_of(["git", "clone", "...", "cadre"]))

    def test_variables_are_options(self):
        known = {option.variable for command in self.known.values() for option in command.options}
        for page in pages():
            for text in blocks(page):
                for variable in re.findall(r"\b(CADRE_\w+)=", text):
                    self.assertIn(variable, known | {"CADRE_TLS_FOLDER", "CADRE_CUDA", "CADRE_TESTS"}, page)

    def test_targets_and_scripts_are_there(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^(\w[\w-]*):", makefile, re.M))
        for page in pages():
            for words in (words for text in blocks(page) for words in commands(text)):
                words = words[1:] if words[0] == "sudo" else words
                if words[0] == "make":
                    self.assertLessEqual({word for word in words[1:] if "=" not in word}, targets, page)
                for word in words:
                    # Of this repository: what a build or its reader makes is not there.
                    if re.match(r"(tests|tools|docker|deploy|models|proto|clients)/[\w./-]+$", word):
                        self.assertTrue((ROOT / word).exists(), f"{page}: {word}")


class SecurityTest(unittest.TestCase):
    def test_the_page_leads_to_a_server_with_tls_and_keys(self):
        call, certificates, keys, *_ = blocks(ROOT / "docs" / "security.md")
        with tempfile.TemporaryDirectory(prefix="cadre-documented-") as folder:
            port, metrics_port = self.free_port(), self.free_port()
            keys = keys.replace("/etc/cadre/keys", "keys")
            *makes_keys, _ = keys.strip().splitlines()
            script = "\n".join([certificates, *makes_keys, 'printf "%s\\n" "$secret" >my.key'])
            self.run_script(script, folder)
            server, client = call.strip().splitlines()
            for old, new in (("models/demo", "sim"), ("0.0.0.0", "127.0.0.1")):
                self.assertIn(old, server)
                server = server.replace(old, new)
            process = subprocess.Popen(["bash", "-c", f"exec {server} --port {port} --metrics-port {metrics_port}"],
                                       cwd=folder, env=self.environment(), stderr=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.assertIn("HOST:50051", client)
            client = client.replace("HOST:50051", f"localhost:{port}") + " --max-tokens 2"
            end = time.monotonic() + 60
            ready = f"cadre --address localhost:{port} --tls-ca ca.crt health"
            while subprocess.run(["bash", "-c", ready], cwd=folder, env=self.environment(), capture_output=True,
                                 check=False).returncode != 0 and time.monotonic() < end:
                time.sleep(0.1)
            self.run_script(client, folder)
            with self.assertRaises(AssertionError, msg="no key is asked for"):
                self.run_script(client.replace("--api-key-file my.key", ""), folder)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)

    @staticmethod
    def environment():
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CADRE_")}
        return {**clean, "PATH": f"{BIN.resolve()}:{os.environ['PATH']}"}

    @staticmethod
    def free_port():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def run_script(self, script, folder):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=self.environment(),
                              capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stderr}")


if __name__ == "__main__":
    unittest.main()
