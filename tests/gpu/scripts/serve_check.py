"""A server with random weights of a model's shape, end to end over gRPC on the loopback interface: it loads, answers
the same alone and beside others, bears load, counts every assignment of a token to an expert, and ends in order.

    serve_check.py SHAPE_FOLDER [--layers N] [--device cuda] [--scratch FOLDER]

Prints its measurements as lines of JSON. Exit codes: 0 all of that is so, 1 something is not.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import random_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOAD_SECONDS = 300
CALL_SECONDS = 120
STOP_SECONDS = 60
NUM_PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 4, 48, 32


class CheckFailed(Exception):
    pass


def expect(holds, what):
    if not holds:
        raise CheckFailed(what)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, programs, checkpoint, device, log):
        self.programs, self.port, self.metrics_port = programs, free_port(), free_port()
        self.log = open(log, "w+", encoding="utf-8")
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [programs / "cadre-server", "--model", checkpoint, f"--device={device}", "--port", str(self.port),
             "--metrics-port", str(self.metrics_port), "--max-model-len", "2048"],
            stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def client(self, *arguments):
        return [self.programs / "cadre", "-a", f"127.0.0.1:{self.port}", *map(str, arguments)]

    def wait_until_ready(self):
        """Seconds from its start to its being ready."""
        while subprocess.run(self.client("health"), capture_output=True, check=False).returncode != 0:
            expect(self.process.poll() is None, f"the server ended with code {self.process.returncode}")
            expect(time.monotonic() - self.begin < LOAD_SECONDS, f"it was not ready after {LOAD_SECONDS} s")
            time.sleep(0.1)
        return time.monotonic() - self.begin

    def answer(self, prompt):
        """Every token of the most likely continuation, with its probability."""
        command = self.client("generate", "--token-ids", ",".join(map(str, prompt)), "-n", ANSWER_TOKENS, "-t", 0,
                              "--ignore-eos", "--logprobs", "--quiet")
        result = subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
        expect(result.returncode == 0, f"a call failed: {result.stderr.strip()}")
        tokens = re.findall(r"^ *\d+ +\S+% +\S+ +\d+", result.stdout, re.M)
        expect(len(tokens) == ANSWER_TOKENS, f"{len(tokens)} tokens were told, not {ANSWER_TOKENS}")
        return tokens

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def stop(self):
        """Its exit code after SIGTERM; None if it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def log_end(self):
        self.log.seek(0)
        return "".join(f"server: {line}" for line in self.log.readlines()[-20:])


def start_load(server, concurrency, requests):
    return subprocess.Popen(
        server.client("bench", "-c", concurrency, "--requests", requests, "--prompt-tokens", 128, "--output-tokens", 64,
                      "--json", "-", "--quiet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_load(name, load, concurrency):
    output, errors = load.communicate(timeout=300)
    expect(load.returncode == 0, f"the load of {concurrency} calls failed: {errors.strip()[-500:]}")
    run = json.loads(output)["runs"][0]
    expect(run["requests"]["completed"] == run["requests"]["sent"], f"not all were answered: {run['requests']}")
    print(json.dumps({"model": name, "concurrency": concurrency,
                      "output_tokens_per_second": round(run["throughput"]["output_tokens_per_second"], 1),
                      "ttft_p50_ms": round(run["ttft"]["p50_ms"], 2), "ttft_p99_ms": round(run["ttft"]["p99_ms"], 2),
                      "tpot_p50_ms": round(run["tpot"]["p50_ms"], 3)}), flush=True)
    return run["output_tokens"]


def check_counts(server, config, told):
    """What clients were told is what was counted, and every assignment was processed."""
    counted = server.metrics()
    expect(counted["cadre_generated_tokens_total"] == told,
           f"{told} tokens were told, {counted['cadre_generated_tokens_total']:.0f} counted")
    states = {state: counted[f'cadre_routing_assignments_total{{state="{state}"}}']
              for state in ("processed", "rerouted", "reweighted", "dropped")}
    expected = counted["cadre_routing_tokens_total"] * config["num_experts_per_tok"]
    expect(states["processed"] == expected and sum(states.values()) == expected,
           f"{expected:.0f} assignments were made, counted are {states}")


def check(server, name, config, size, requests):
    seconds = server.wait_until_ready()
    print(json.dumps({"model": name, "layers": config["num_hidden_layers"], "weights_gb": round(size / 1e9, 2),
                      "ready_s": round(seconds, 2), "load_gb_s": round(size / 1e9 / seconds, 2)}), flush=True)
    draw = random.Random(5)
    prompts = [[draw.randrange(config["vocab_size"]) for _ in range(PROMPT_TOKENS)] for _ in range(NUM_PROMPTS)]
    alone = [server.answer(prompt) for prompt in prompts]
    expect(len({tuple(answer) for answer in alone}) == NUM_PROMPTS, "different prompts have the same answer")
    told = NUM_PROMPTS * ANSWER_TOKENS
    told += finish_load(name, start_load(server, 1, max(requests // 16, 2)), 1)
    load = start_load(server, 32, requests)
    with concurrent.futures.ThreadPoolExecutor(NUM_PROMPTS) as pool:
        beside = list(pool.map(server.answer, prompts))
    outlasted = load.poll() is None
    told += NUM_PROMPTS * ANSWER_TOKENS
    told += finish_load(name, load, 32)
    expect(beside == alone, "an answer beside others differs from the answer alone")
    print(json.dumps({"model": name, "answers_equal_alone_and_beside_others": NUM_PROMPTS,
                      "load_outlasted_them": outlasted}), flush=True)
    check_counts(server, config, told)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=pathlib.Path, help="a folder with config.json")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "bin")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=ROOT / "models" / "demo")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--requests", type=int, default=128, help="of the load of 32 calls at once")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint for the next check")
    options = parser.parse_args()
    checkpoint = options.scratch / options.shape.name
    begin = time.monotonic()
    size = random_checkpoint.write(options.shape, checkpoint, options.layers, options.tokenizer)
    print(f"{checkpoint}: {size / 1e9:.2f} GB written in {time.monotonic() - begin:.1f} s", flush=True)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    server = Server(options.programs, checkpoint, options.device, options.scratch / f"{options.shape.name}.log")
    try:
        check(server, options.shape.name, config, size, options.requests)
        failure = None
    except (CheckFailed, subprocess.TimeoutExpired, OSError, KeyError) as error:
        failure = f"{type(error).__name__}: {error}"
    code = server.stop()
    if failure is None and code != 0:
        failure = f"after SIGTERM the server ended with code {code}"
    if not options.keep:
        shutil.rmtree(checkpoint, ignore_errors=True)
    if failure is None:
        return 0
    print(f"{server.log_end()}{failure}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
