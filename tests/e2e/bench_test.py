"""cadre bench against a real server process: what it says it sent is what the server counted."""

import json
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

from harness import BIN, Server, clean_environment, models
from terminal import Terminal

OK, FAILED, USAGE = 0, 1, 64


class BenchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="cadre-bench-")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.server = Server("--max-num-seqs", 8, "--max-queue-requests", 16, "--drain-delay", "0s",
                             model="sim:step_ms=2,vocab=500")
        self.addCleanup(self.server.stop)

    def file(self, name, text=""):
        path = pathlib.Path(self.folder.name) / name
        path.write_text(text, encoding="utf-8")
        return path

    def bench(self, *arguments, timeout=60):
        return subprocess.run([str(BIN / "cadre"), "-a", self.server.address, "bench", *map(str, arguments)],
                              capture_output=True, text=True, env=clean_environment(), timeout=timeout, check=False)

    def results(self, *arguments):
        result = self.bench(*arguments, "--json", "-")
        self.assertEqual(result.returncode, OK, result.stderr)
        return json.loads(result.stdout)

    def assert_server_counted(self, *runs):
        """The totals of the runs are the server's counters."""
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])
        totals = {key: sum(run["total"][key] for run in runs) for key in runs[0]["total"]}
        metric = self.server.metric
        self.assertEqual(metric("cadre_requests_received_total"), totals["sent"])
        self.assertEqual(metric("cadre_requests_rejected_total"), totals["rejected"])
        self.assertEqual(metric("cadre_requests_finished_total", outcome="ok"), totals["completed"])
        self.assertEqual(metric("cadre_generated_tokens_total"), totals["output_tokens"])
        for run in runs:
            total = run["total"]
            self.assertEqual(total["sent"], sum(total[k] for k in ("completed", "rejected", "failed", "unfinished")))

    def test_an_open_loop_keeps_its_rate(self):
        run, = self.results("--rate", 60, "--arrivals", "constant", "--duration", "3s", "--warmup", "500ms",
                            "--prompt-tokens", 16, "--output-tokens", 5)["runs"]
        # Requests are sent when they are due, whatever the machine is doing: the number does not depend on its speed.
        self.assertIn(run["requests"]["sent"], (179, 180, 181))
        self.assertEqual(run["requests"]["completed"], run["requests"]["sent"])
        self.assertIn(run["total"]["sent"], (209, 210))
        self.assertEqual(run["window_seconds"], 3.0)
        self.assertEqual(run["ttft"]["count"], run["requests"]["sent"])
        # A gap for each token behind the first delivery, which holds more than one where the client was slow to read.
        self.assertLessEqual(run["itl"]["count"], 4 * run["requests"]["sent"])
        self.assertGreater(run["itl"]["count"], 2 * run["requests"]["sent"])
        # A step takes 2 ms; a client that was late reads several tokens at once, so that single gaps may be shorter.
        self.assertGreaterEqual(run["itl"]["max_ms"], 1.9)
        self.assertGreaterEqual(run["e2e"]["min_ms"], 5 * 2)
        self.assertEqual(sum(slot["sent"] for slot in run["timeline"]), run["total"]["sent"])
        self.assert_server_counted(run)

    def test_the_same_seed_sends_the_same_requests(self):
        flags = ("--rate", 200, "--requests", 40, "--prompt-tokens", "uniform:1-20", "--output-tokens",
                 "lognormal:6,0.7,30")
        first, = self.results(*flags, "--seed", 3)["runs"]
        second, = self.results(*flags, "--seed", 3)["runs"]
        third, = self.results(*flags, "--seed", 4)["runs"]
        lengths = [(run["prompt_tokens"], run["total"]["output_tokens"]) for run in (first, second, third)]
        self.assertEqual(first["requests"]["completed"], 40)
        self.assertEqual(lengths[0], lengths[1])
        self.assertNotEqual(lengths[0], lengths[2])
        self.assert_server_counted(first, second, third)

    def test_overload_counts_rejects_by_reason_and_sweeps_rates(self):
        plot = self.file("sweep.svg")
        result = self.results("--rates", "20,1500", "--duration", "1s", "--output-tokens", 40, "--prompt-tokens", 8,
                              "--goodput", "ttft:5s", "--plot", plot)
        calm, overloaded = result["runs"]
        self.assertEqual((calm["offered_rate"], overloaded["offered_rate"]), (20, 1500))
        self.assertEqual(calm["requests"]["rejected"], 0)
        rejects = overloaded["rejects"]
        self.assertEqual(list(rejects), ["RESOURCE_EXHAUSTED QUEUE_FULL"])
        self.assertEqual(rejects["RESOURCE_EXHAUSTED QUEUE_FULL"], overloaded["requests"]["rejected"])
        self.assertEqual(overloaded["reject"]["count"], overloaded["requests"]["rejected"])
        self.assertGreater(overloaded["requests"]["rejected"], 500)
        self.assertGreater(overloaded["good"], 0)
        self.assertLessEqual(overloaded["good"], overloaded["requests"]["completed"])
        self.assert_server_counted(calm, overloaded)
        xml.etree.ElementTree.parse(plot)

    def test_a_closed_loop_keeps_so_many_in_flight(self):
        run, = self.results("--concurrency", 4, "--requests", 40, "--warmup-requests", 8, "--output-tokens", 6)["runs"]
        self.assertEqual(run["requests"]["completed"], 40)
        self.assertEqual(run["total"]["sent"], 48)
        # Four at a time, each at least 6 steps of 2 ms: not more than 4 in 12 ms.
        self.assertLessEqual(run["throughput"]["requests_per_second"], 4 / 0.012)
        self.assert_server_counted(run)

    def test_a_trace_is_sent_as_recorded(self):
        trace = self.file("trace.csv", "time,prompt_tokens,output_tokens,priority\n" + "".join(
            f"{1000 + i * 100},{5 + i},{1 + i % 3},0\n" for i in range(20)))
        run, = self.results("--trace", trace, "--trace-unit", "ms", "--trace-speed", 4)["runs"]
        self.assertEqual(run["requests"]["completed"], 20)
        self.assertEqual(run["prompt_tokens"], sum(5 + i for i in range(20)))
        self.assertEqual(run["total"]["output_tokens"], sum(1 + i % 3 for i in range(20)))
        self.assertGreaterEqual(run["total"]["seconds"], 1.9 / 4)
        self.assert_server_counted(run)
        wrong = self.bench("--trace", self.file("wrong.csv", "1,2,3\n2,x,3\n"))
        self.assertEqual(wrong.returncode, USAGE)
        self.assertRegex(wrong.stderr, r'^cadre: .*wrong\.csv: line 2: prompt tokens: "x" is not a whole number')

    def test_prompts_of_a_file_and_deadlines(self):
        prompts = self.file("prompts.txt", "ab\n\nGrüße\n")
        run, = self.results("--concurrency", 1, "--requests", 4, "--prompt-file", prompts, "--output-tokens", 2)["runs"]
        self.assertEqual(run["requests"]["completed"], 4)
        trace = self.file("lengths.jsonl", "".join(
            json.dumps({"time": 0, "prompt_tokens": 4, "output_tokens": n}) + "\n" for n in (2, 3900, 2, 3900, 2)))
        late, = self.results("--trace", trace, "--timeout", "1s")["runs"]
        self.assertEqual((late["failures"], late["rejects"]), ({"DEADLINE_EXCEEDED": 2}, {}))
        self.assertEqual((late["requests"]["completed"], late["requests"]["failed"]), (3, 2))
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

    def test_shared_prefixes_are_found_in_the_prefix_cache(self):
        flags = ("--concurrency", 1, "--requests", 10, "--prompt-tokens", 64, "--output-tokens", 2)

        def hits():
            return self.server.models.GetLoad(models.GetLoadRequest(), timeout=5).load.prefix_cache_hit_tokens

        self.results(*flags, "--seed", 1)
        self.assertEqual(hits(), 0)
        run, = self.results(*flags, "--seed", 2, "--shared-prefix", 48)["runs"]
        self.assertEqual(run["prompt_tokens"], 640)
        # All but the first find the three whole blocks of 16 tokens.
        self.assertEqual(hits(), 9 * 48)
        self.results(*flags, "--seed", 3, "--shared-prefix", 48, "--prefix-groups", 5)
        self.assertEqual(hits(), 9 * 48 + 5 * 48)

    def test_the_text_report_and_the_charts(self):
        plot, cdf, out = self.file("time.svg"), self.file("cdf.svg"), self.file("out.json")
        result = self.bench("--rate", 100, "--requests", 50, "--output-tokens", 4, "--plot", plot, "--json", out,
                            "--goodput", "ttft:10s,itl:10s")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        self.assertRegex(result.stdout, r"50 sent in [\d.]+ s: 50 completed, 0 rejected, 0 failed, 0 unfinished")
        self.assertRegex(result.stdout, r"goodput .* 100\.0 % of those sent \(ttft <= 10s, itl <= 10s\)")
        self.assertRegex(result.stdout, r"time to first token( +[\d.]+){6}\n")
        self.assertEqual(json.loads(out.read_text())["runs"][0]["good"], 50)
        self.assertEqual(self.bench("--rate", 100, "--requests", 5, "--output-tokens", 4, "--plot", cdf, "--plot-kind",
                                    "cdf").returncode, OK)
        for file in (plot, cdf):
            self.assertEqual(xml.etree.ElementTree.parse(file).getroot().tag, "{http://www.w3.org/2000/svg}svg")

    def test_an_interrupt_ends_the_run_and_still_reports(self):
        out = self.file("interrupted.json")
        process = subprocess.Popen([str(BIN / "cadre"), "-a", self.server.address, "bench", "--concurrency", "2",
                                    "--duration", "60s", "--output-tokens", "3000", "--json", str(out)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
        end = time.monotonic() + 10
        while self.server.metric("cadre_requests_running") < 2 and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        run = json.loads(out.read_text())["runs"][0]
        self.assertEqual(run["total"]["unfinished"], 2)
        self.assertLess(run["window_seconds"], 30)
        self.assertLess(self.server.wait_until_idle(), 2)

    def test_a_terminal_shows_progress_on_one_line(self):
        terminal = Terminal("-a", self.server.address, "bench", "--rate", 50, "--duration", "2s", "--warmup", "600ms",
                            "--output-tokens", 3)
        terminal.read_until(r"\r +0\.\d s  sent \d+  in flight \d+  completed \d+ .* warm-up")
        terminal.read_until(r"\r +\d\.\d s  sent \d+ ")
        terminal.read_until(r"\r\x1b\[Krequests +\d+ sent in 2\.0 s")  # the line is gone when the report comes
        self.assertEqual(terminal.close(), OK)

    def test_wrong_usage_is_told_in_one_line(self):
        for arguments, words in ((["--rate", "5", "--concurrency", "2"], "exactly one of"),
                                 ([], "exactly one of"),
                                 (["--rate", "-1"], "--rate"),
                                 (["--rate", "5", "--goodput", "ttft:soon"], "ttft:soon"),
                                 (["--rate", "5", "--output-tokens", "uniform:9-3"], "uniform:9-3"),
                                 (["--rate", "5", "--trace-unit", "h"], "--trace-unit"),
                                 (["--rate", "5", "--plot", "/nowhere/x.svg"], "/nowhere/x.svg: cannot be written"),
                                 (["--rate", "5", "--json", "/nowhere/x.json"], "/nowhere/x.json: cannot be written"),
                                 (["--trace", "/nowhere/x.csv"], "/nowhere/x.csv")):
            result = self.bench(*arguments)
            self.assertEqual((result.returncode, result.stdout), (USAGE, ""), arguments)
            self.assertIn(words, result.stderr)
            self.assertRegex(result.stderr, r"\Acadre: [^\n]*\n\Z")


if __name__ == "__main__":
    unittest.main(verbosity=2)
