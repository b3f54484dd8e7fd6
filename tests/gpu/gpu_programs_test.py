"""gpu_calibrate and gpu_kernel_bench on the emulated GPU: their lines are whole, and their arithmetic is right. What
they measure there means nothing.

    gpu_programs_test.py BIN_FOLDER
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path("build/release/bin")


def lines_of(*command, expect=0):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=200)
    assert result.returncode == expect, f"{command}: {result.returncode}\n{result.stdout}{result.stderr}"
    return [json.loads(line) for line in result.stdout.splitlines()]


class GpuProgramsTest(unittest.TestCase):
    def test_calibration_measures_everything(self):
        found = lines_of(BIN / "emulated_gpu_calibrate", "--stream-mib", 1, "--link-mib", 1, "--dense-size", 0,
                         "--launches", 3, "--samples", 2)
        by_name = {line["name"]: line for line in found}
        self.assertEqual(list(by_name), ["gpu", "read", "copy", "h2d_pinned", "h2d_pinned_expert", "h2d_pageable",
                                         "d2h_pinned", "launch", "node", "replay"])
        for name, line in by_name.items():
            if name == "gpu":
                continue
            self.assertGreater(line["value"], 0)
            self.assertLessEqual(line["low"], line["value"])
            self.assertLessEqual(line["value"], line["high"])
            self.assertEqual(line["unit"], "us" if name in ("launch", "node", "replay") else "GB/s")

    def test_kernels_are_measured_against_the_ceilings(self):
        with tempfile.TemporaryDirectory() as folder:
            calibration = pathlib.Path(folder) / "calibration"
            calibration.write_text('{"name": "read", "value": 2.0}\n{"name": "dense", "value": 0.001}\n')
            found = lines_of(BIN / "emulated_gpu_kernel_bench", "--shapes", "tiny", "--tokens", "1,5", "--sequences", 3,
                             "--prompts", 17, "--context", 32, "--cold-mib", 0, "--seconds", 0, "--calibration",
                             calibration)[1:]
        kernels = [(line["kernel"], line["tokens"]) for line in found]
        self.assertEqual(kernels, [("moe", 1), ("moe", 5), ("q", 1), ("o", 1), ("head", 1), ("q", 5), ("o", 5),
                                   ("head", 5), ("decode", 3), ("decode", 1), ("prefill", 17), ("sample", 3),
                                   ("sample", 3)])
        by_kernel = dict(zip(kernels, found))
        for line in found:
            self.assertAlmostEqual(line["share"], line["bound_us"] / line["us"], delta=1e-3 * line["share"])
            self.assertAlmostEqual(line["of_read"], line["gb_s"] / 2.0, delta=1e-3 * line["of_read"])
            self.assertAlmostEqual(line["of_dense"], line["tflop_s"] / 0.001, delta=1e-3 * line["of_dense"])
            self.assertAlmostEqual(line["share"], max(line["of_read"], line["of_dense"]), delta=1e-3 * line["share"])
        # q is [128, 64] in bfloat16: 16,384 bytes, at 2 GB/s 8.192 us; one row does 16,384 operations.
        self.assertAlmostEqual(by_kernel["q", 1]["bound_us"], 16.384, places=3)  # by the products
        self.assertAlmostEqual(by_kernel["q", 1]["gb_s"] * by_kernel["q", 1]["us"], 16.384, delta=0.01)
        self.assertAlmostEqual(by_kernel["q", 5]["bound_us"], 5 * 16.384, places=3)
        # One row chooses two of four experts, 3 * 64 * 32 values each; the router has 4 * 64.
        moe = by_kernel["moe", 1]
        self.assertEqual(moe["experts"], 2)
        self.assertAlmostEqual(moe["gb_s"] * moe["us"], (2 * 3 * 64 * 32 + 4 * 64) * 2 * 1e-3, delta=0.03)
        # Keys and values of 3 sequences of 32 positions, 2 heads of 32 values.
        decode = by_kernel["decode", 3]
        self.assertAlmostEqual(decode["gb_s"] * decode["us"], 3 * 32 * 2 * 32 * 2 * 2 * 1e-3, delta=0.03)
        # The logits of 3 rows of 96, once.
        sample = by_kernel["sample", 3]
        self.assertAlmostEqual(sample["gb_s"] * sample["us"], 3 * 96 * 4 * 1e-3, delta=0.03)
        # Each of 4 heads of 32 values: 17 rows see 1 to 17 positions, two products of each.
        self.assertAlmostEqual(by_kernel["prefill", 17]["tflop_s"] * by_kernel["prefill", 17]["us"],
                               4 * 4 * 32 * 17 * 18 / 2 * 1e-6, delta=1e-4)

    def test_what_was_not_calibrated_is_null(self):
        with tempfile.TemporaryDirectory() as folder:
            calibration = pathlib.Path(folder) / "calibration"
            calibration.write_text('{"name": "read", "value": 2.0}\n{"name": "dense", "skipped": "no cuBLAS"}\n')
            line = lines_of(BIN / "emulated_gpu_kernel_bench", "--shapes", "tiny", "--kernels", "o", "--tokens", 1,
                            "--cold-mib", 0, "--seconds", 0, "--calibration", calibration)[1]
        self.assertGreater(line["of_read"], 0)
        self.assertEqual([line[key] for key in ("of_dense", "bound_us", "share")], [None, None, None])

    def test_a_calibration_that_is_none_is_an_error(self):
        lines_of(BIN / "emulated_gpu_kernel_bench", "--calibration", "/dev/null", expect=1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        BIN = pathlib.Path(sys.argv.pop(1))
    unittest.main()
