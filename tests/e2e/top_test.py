"""cadre top against a real server process: one look, JSON, and a live view in a pseudo-terminal."""

import json
import re
import signal
import subprocess
import threading
import time
import unittest

from harness import BIN, Server, clean_environment, free_port, request
from terminal import Terminal

OK, USAGE, UNREACHABLE = 0, 64, 69
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class TopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", 2, model="sim:step_ms=2,layers=40,experts=16")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def top(self, *arguments):
        return subprocess.run([str(BIN / "cadre"), "-a", self.server.address, "top", *map(str, arguments)],
                              capture_output=True, text=True, encoding="utf-8", env=clean_environment(), timeout=30,
                              check=False)

    def run_requests(self, count, seconds):
        """`count` endless requests for a while, in the background."""
        def run():
            calls = [self.server.generation.Generate(request("x", max_tokens=4000, temperature=0))
                     for _ in range(count)]
            time.sleep(seconds)
            for call in calls:
                call.cancel()
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(self.server.wait_until_idle)
        self.addCleanup(thread.join)

    def test_one_look_shows_load_and_rates(self):
        self.run_requests(3, 3)
        time.sleep(0.3)
        result = self.top("--once")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        self.assertNotIn("\x1b", result.stdout)
        self.assertRegex(result.stdout, r"running +█+ 100 %  2 of 2 sequences")
        self.assertRegex(result.stdout, r"waiting .* 1 of 256 requests, \d+ tokens, oldest [\d.]+ s")
        decode = float(re.search(r"([\d.]+) decode/s", result.stdout).group(1))
        # Two sequences, at most one token each in 2 ms.
        self.assertGreater(decode, 10)
        self.assertLessEqual(decode, 2 / 0.002 * 1.05)
        layers = re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+ ", result.stdout, re.M)
        self.assertEqual(layers, [str(i) for i in range(40)])
        self.assertIn("load of each\n", result.stdout, "a pipe has no edge")

    def test_json_has_the_messages(self):
        result = self.top("--count", 2, "--interval", "100ms", "--json")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertEqual(line["load"]["max_running_requests"], 2)
            self.assertEqual(line["model"]["name"], "sim")
            self.assertEqual(len(line["experts"]["window"]), 40)
        self.assertEqual(int(lines[0]["load"]["admitted_requests"]),
                         self.server.metric("cadre_requests_admitted_total"))

    def test_a_live_view_fits_and_leaves_the_terminal_as_it_was(self):
        terminal = Terminal("-a", self.server.address, "top", "--interval", "100ms", rows=18, columns=60)
        terminal.read_until(r"more layers")
        terminal.read_until(r"more layers")
        terminal.resize(30, 100)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.read_until(r"coldest experts")
        terminal.process.send_signal(signal.SIGINT)
        self.assertEqual(terminal.close(), OK)
        output = terminal.output
        self.assertTrue(output.startswith("\x1b[?1049h\x1b[?25l"))
        self.assertTrue(output.endswith("\x1b[?25h\x1b[?1049l"), repr(output[-50:]))
        first = output.split("\x1b[H")[1]
        lines = ESCAPE.sub("", first).replace("\r\n", "\n").rstrip("\n").split("\n")
        self.assertLessEqual(len(lines), 17)
        self.assertLessEqual(max(map(len, lines)), 60)
        self.assertRegex(first, r"\x1b\[3[123]m")

    def test_no_color_is_respected(self):
        terminal = Terminal("-a", self.server.address, "top", "--count", "1", "--interval", "50ms",
                            env={"NO_COLOR": "1"})
        self.assertEqual(terminal.close(), OK)
        self.assertIn("KV cache", terminal.output)
        self.assertNotRegex(terminal.output, r"\x1b\[[0-9]+m")

    def test_a_server_that_is_gone_is_told(self):
        result = subprocess.run([str(BIN / "cadre"), "-a", f"127.0.0.1:{free_port()}", "top"], capture_output=True,
                                text=True, env=clean_environment(), timeout=30, check=False)
        self.assertEqual(result.returncode, UNREACHABLE)
        self.assertRegex(result.stderr, "^cadre: cannot reach ")
        self.assertEqual(self.top("--interval", "1ms").returncode, USAGE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
