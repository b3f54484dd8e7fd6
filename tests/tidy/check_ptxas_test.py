"""cmake/check_ptxas.sh, with compilers that say this or that: what it lets pass and what it stops."""

import pathlib
import subprocess
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "cmake" / "check_ptxas.sh"

CLEAN = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1kv' for 'sm_90a'
ptxas info    : Function properties for _Z1kv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 26 registers, used 0 barriers, 10240 bytes smem
"""
SPILL = CLEAN.replace("0 bytes spill stores", "16 bytes spill stores")
TEN = CLEAN.replace("0 bytes spill loads", "10 bytes spill loads")
C7508 = CLEAN + "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to determine it\n"
C7510 = CLEAN + "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n"


class CheckPtxasTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.object = pathlib.Path(folder.name) / "k.cu.o"

    def compile(self, says, status=0):
        compiler = f'printf "%s" "$0" >&2; echo code > {self.object}; exit {status}'
        return subprocess.run([CHECK, "sh", "-c", compiler, says, "-c", "k.cu", "-o", str(self.object)],
                              capture_output=True, text=True)

    def test_a_clean_report_is_kept_and_not_shown(self):
        result = self.compile(CLEAN)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(pathlib.Path(f"{self.object}.ptxas").read_text(), CLEAN)
        self.assertTrue(self.object.exists())

    def test_what_makes_slow_code_stops_the_build(self):
        for says in (SPILL, TEN, C7508, C7510):
            result = self.compile(says)
            self.assertEqual(result.returncode, 1, says)
            self.assertIn("made slow code", result.stderr)
            self.assertFalse(self.object.exists(), "an object that is left would be linked by the next build")

    def test_an_error_stays_what_it_is(self):
        result = self.compile("k.cu(1): error: expected a declaration\n", status=2)
        self.assertEqual(result.returncode, 2)
        self.assertIn("expected a declaration", result.stderr)

    def test_warnings_are_shown(self):
        result = self.compile(CLEAN + "k.cu(3): warning: something\n")
        self.assertEqual((result.returncode, result.stderr), (0, "k.cu(3): warning: something\n"))

    def test_a_call_without_an_object_is_passed_on(self):
        result = subprocess.run([CHECK, "echo", "version"], capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stdout), (0, "version\n"))


if __name__ == "__main__":
    unittest.main()
