"""gpu-check.sh around programs that only pretend: what it makes of their answers, codes and delays."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "scripts"))

import sections  # noqa: E402
import step  # noqa: E402

GOOD = "echo 'GPU: Some card, sm_90, 132 SMs'; exit 0"


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name) / "some where"  # blanks in a path are the script's business
        (self.root / "bin").mkdir(parents=True)
        shutil.copy(HERE / "gpu-check.sh", self.root)
        shutil.copytree(HERE / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.out = self.root / "out"
        self.program("cadre-server", "echo cadre-server 0.0.0")
        self.program("cuda_ops_test", GOOD)
        self.program("cuda_model_test", "exit 0")

    def program(self, name, script):
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def check(self, *arguments, expect=0):
        result = subprocess.run([self.root / "gpu-check.sh", "--out", self.out, *arguments], capture_output=True,
                                text=True, timeout=60, env={**os.environ, "PATH": "/usr/bin:/bin"})
        self.assertEqual(result.returncode, expect, result.stdout + result.stderr)
        return result

    def report(self):
        return json.loads((self.out / "report.json").read_text(encoding="utf-8"))

    def statuses(self):
        return {section["name"]: section["status"] for section in self.report()["sections"]}

    def test_help_tells_sections_and_exit_codes(self):
        said = self.check("--help").stdout
        for word in (*sections.NAMES, "77", "--only", "--out"):
            self.assertIn(word, said)

    def test_without_a_gpu_it_ends_at_once_with_its_own_code(self):
        self.program("cuda_ops_test", "echo 'cuda_ops_test: not run, there is no GPU: no driver' >&2; exit 77")
        begin = time.monotonic()
        result = self.check(expect=77)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertIn("no GPU", result.stderr)
        self.assertIn("no driver", result.stderr)
        self.assertFalse((self.out / "report.json").exists())

    def test_a_gpu_that_cannot_be_used_is_no_gpu_either(self):
        self.program("cuda_ops_test", "echo 'something broke'; exit 1")
        self.assertIn("something broke", self.check(expect=77).stderr)

    def test_what_passes_is_reported(self):
        result = self.check("--only", "tests")
        self.assertEqual(self.statuses(), {"ops": "passed", "golden": "passed", "invariance": "passed"})
        self.assertEqual(self.report()["machine"]["gpu"], "Some card, sm_90, 132 SMs")
        text = (self.out / "report.txt").read_text(encoding="utf-8")
        self.assertIn("[passed] golden", text)
        self.assertIn("verdict: 3 passed", text)
        self.assertIn("verdict: 3 passed", result.stdout)

    def test_a_failure_is_the_exit_code_and_its_words_are_in_the_report(self):
        self.program("cuda_model_test", 'case "$1" in *=-*) exit 0;; esac; echo "logits differ"; exit 3')
        self.check("--only", "golden,invariance", expect=1)
        self.assertEqual(self.statuses(), {"golden": "failed", "invariance": "passed"})
        text = (self.out / "report.txt").read_text(encoding="utf-8")
        self.assertIn("| logits differ", text)
        self.assertIn("1 failed (golden)", text)

    def test_a_crash_is_told_by_its_signal(self):
        self.program("cuda_model_test", "kill -SEGV $$")
        self.check("--only", "golden", expect=1)
        self.assertIn("SIGSEGV", self.report()["sections"][0]["steps"][0]["reason"])

    def test_tests_that_were_not_run_did_not_pass(self):
        self.program("cuda_model_test", "exit 77")
        self.check("--only", "golden", expect=1)

    def test_a_tool_that_is_missing_is_skipped_by_name(self):
        self.check("--only", "memcheck")
        self.assertEqual(self.statuses(), {"memcheck": "skipped"})
        self.assertIn("compute-sanitizer is not", self.report()["sections"][0]["steps"][0]["reason"])

    def test_an_earlier_report_of_this_machine_is_kept(self):
        self.check("--only", "ops")
        self.check("--only", "golden")
        self.assertEqual(self.statuses(), {"ops": "passed", "golden": "passed"})
        self.program("cadre-server", "echo cadre-server 0.0.1")
        self.check("--only", "golden")
        self.assertEqual(self.statuses(), {"golden": "passed"}, "of another build nothing is kept")

    def test_an_earlier_failure_that_is_kept_is_told_but_is_not_this_run_s(self):
        self.program("cuda_model_test", "exit 3")
        self.check("--only", "golden", expect=1)
        self.check("--only", "ops")
        self.assertIn("1 failed (golden)", self.report()["verdict"])

    def test_only_and_skip(self):
        self.assertEqual(sections.select("tests", "golden"), ["ops", "invariance"])
        self.assertNotIn("racecheck", sections.select(None, "sanitizer"))
        self.assertIn("no section or group 'opps'", self.check("--only", "opps", expect=64).stderr)
        self.assertIn("no section is left", self.check("--only", "ops", "--skip", "tests", expect=64).stderr)

    def test_a_dry_run_tells_every_command_and_runs_none(self):
        self.program("cuda_ops_test", "exit 77")
        said = self.check("--dry-run").stdout
        for name in sections.NAMES:
            self.assertIn(f"{name}:\n", said)
        self.assertFalse(self.out.exists())

    def test_measurements_are_the_lines_of_json(self):
        self.program("bench", """echo '{"name": "read", "gb_s": 3012.25}'; echo '{broken'; echo words""")
        result = step.run(step.Step("s", ["bin/bench"], 10), self.root, self.out / "log")
        self.assertEqual((result.status, result.measurements), ("passed", [{"name": "read", "gb_s": 3012.25}]))

    def test_goals_stand_beside_what_was_measured(self):
        self.program("gpu_kernel_bench", """case "$2" in qwen3*)
            echo '{"kernel": "moe", "shape": "qwen3-30b-a3b", "tokens": 8, "share": 0.7512}'
            echo '{"kernel": "moe", "shape": "qwen3-30b-a3b", "tokens": 32, "share": 0.5}'
            echo '{"kernel": "moe", "shape": "qwen3-30b-a3b", "tokens": 64, "share": null}';;
        esac""")
        self.check("--only", "kernels")
        rows = {row["what"]: (row["measured"], row["met"]) for row in self.report()["goals"]}
        layer = "MoE layer, qwen3-30b-a3b, %d tokens: share of its bound"
        self.assertEqual([rows[layer % n] for n in (8, 32, 64)], [(0.7512, True), (0.5, False), (None, None)])
        text = (self.out / "report.txt").read_text(encoding="utf-8")
        self.assertIn(f"met    0.751 of 0.75  {layer % 8}", text)
        self.assertIn(f"missed 0.5 of 0.82  {layer % 32}", text)
        self.assertNotIn(layer % 64, text)

    def test_a_program_that_hangs_is_ended_with_its_children(self):
        self.program("bench", "sleep 600 & echo $!; wait")
        result = step.run(step.Step("s", ["bin/bench"], 1), self.root, self.out / "log")
        self.assertEqual(result.status, "failed")
        self.assertIn("after 1 s", result.reason)
        child = int((self.out / "log").read_text(encoding="utf-8").split()[0])
        for _ in range(50):
            if not pathlib.Path(f"/proc/{child}").exists():
                return
            time.sleep(0.1)
        self.assertIn(") Z ", pathlib.Path(f"/proc/{child}/stat").read_text(encoding="utf-8"), "the child still runs")

    def test_a_program_that_is_missing_is_a_failure(self):
        result = step.run(step.Step("s", ["bin/none"], 10), self.root, self.out / "log")
        self.assertEqual(result.status, "failed")
        self.assertIn("cannot be started", result.reason)


if __name__ == "__main__":
    unittest.main()
