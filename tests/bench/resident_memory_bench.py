"""Whether a server with fewer experts in memory than its model has stays within its memory plan while it runs.

    python3 tests/bench/resident_memory_bench.py --model DIR --expert-cache-gb N [--seconds 3600] [-- SERVER FLAGS]

Starts cadre-server, keeps a few requests in flight, and reads its resident memory each second: what is its own
(RssAnon and RssShmem of /proc), without the pages of program files. Prints one JSON object; ends with 1 when the server
took more than its plan and --slack-mb (code, threads, gRPC, tokenizer, requests), when a request failed, or when memory
still grew in the second half by more than 1 MB a minute.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import BIN, Server, clean_environment, models  # noqa: E402

OWN_MEMORY = ("RssAnon", "RssShmem")


def own_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in OWN_MEMORY)


def start_load(server, seconds, concurrency, results):
    command = [str(BIN / "cadre"), "-a", server.address, "bench", "--json", results, "-q",
               "--concurrency", str(concurrency), "--duration", f"{seconds}s", "--drain-timeout", "10m",
               "--prompt-tokens", "uniform:4-64", "--output-tokens", "uniform:8-64"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=clean_environment())


def megabytes_a_minute(samples):
    """The slope of the second half: (seconds, bytes)."""
    half = samples[len(samples) // 2:]
    slope, _ = statistics.linear_regression([at for at, _ in half], [size for _, size in half])
    return slope * 60 / 1e6


def measure(args, server):
    plan = server.models.GetModel(models.GetModelRequest(), timeout=10).model.memory_plan
    if plan.num_expert_slots == 0:
        raise SystemExit("all experts are in memory: give --expert-cache-gb less")
    with tempfile.NamedTemporaryFile() as results:
        load = start_load(server, args.seconds, args.concurrency, results.name)
        start, samples = time.monotonic(), []
        while load.poll() is None:
            samples.append((time.monotonic() - start, own_bytes(server.process.pid)))
            time.sleep(1)
        run, = json.load(results)["runs"]
    peak = max(size for _, size in samples)
    return {
        "seconds": round(samples[-1][0]),
        "all_experts_mb": plan.all_expert_bytes / 1e6,
        "arena_mb": plan.expert_weight_bytes / 1e6,
        "plan_mb": plan.total_bytes / 1e6,
        "peak_mb": peak / 1e6,
        "beyond_plan_mb": (peak - plan.total_bytes) / 1e6,
        "growth_mb_per_minute": megabytes_a_minute(samples),
        "requests": run["requests"],
        "hits": server.metric("cadre_expert_lookups_total", result="hit"),
        "lookups": server.metric("cadre_expert_lookups_total"),
        "loads": server.metric("cadre_expert_loads_total"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--expert-cache-gb", required=True)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--slack-mb", type=float, default=150)
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    flags = ("--expert-cache-gb", args.expert_cache_gb, "--log-level", "warn", *args.flags)
    with Server(*flags, model=args.model) as server:
        figures = measure(args, server)
    figures = {name: round(value, 2) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(figures))
    sound = figures["requests"]["failed"] == 0 and figures["requests"]["completed"] > 0
    return 0 if sound and figures["beyond_plan_mb"] <= args.slack_mb and figures["growth_mb_per_minute"] <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
