"""cadre's engine through engine_bench, a process for each question."""

import json
import subprocess


class Cadre:
    def __init__(self, engine_bench, folder, threads, quantize, parts, extra):
        self.command = [engine_bench, "--model", str(folder), "--threads", str(threads)]
        if quantize != "none":
            self.command += ["--quantize", quantize, "--quantize-parts", parts]
        self.extra = extra

    def run(self, *flags):
        process = subprocess.run([*self.command, *flags, *self.extra], capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(process.args)}\nexits with {process.returncode}: {process.stderr.strip()}")
        return process.stdout

    def greedy(self, prompts, steps):
        answers = (self.run("--greedy", ",".join(map(str, p)), "--steps", str(steps)) for p in prompts)
        return [[int(token) for token in answer.split()] for answer in answers]

    def rates(self, prefill, batches, context, steps, repeats):
        """Tokens per second of the median step, by (phase, batch)."""
        output = self.run("--json", "--prefill", str(prefill), "--batches", ",".join(map(str, batches)), "--context",
                          str(context), "--steps", str(steps), "--repeats", str(repeats))
        rows = map(json.loads, output.splitlines())
        return {(row["phase"], row["batch"]): row["tokens_per_second"] for row in rows}
