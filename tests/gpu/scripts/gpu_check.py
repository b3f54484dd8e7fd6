"""Proves a bundle of cadre on the GPU of this machine, measures it, and writes one report.

Exit codes: 0 all selected sections passed or were skipped with a reason; 1 something failed; 64 wrong arguments;
77 there is no GPU that can be used.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import report
import sections
import step

EXIT_FAILED, EXIT_USAGE, EXIT_NO_GPU = 1, 64, 77
PROBE_SECONDS = 60


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"gpu-check: {message}\n")


def parse_arguments(arguments):
    parser = Parser(prog="gpu-check.sh", description="Proves this cadre on the GPU of this machine, and measures it.",
                    epilog="sections: " + ", ".join(sections.NAMES) + "; groups: " +
                    ", ".join(f"{group} ({', '.join(names)})" for group, names in sections.GROUPS.items()) +
                    ". Exit codes: 0 passed, 1 something failed, 64 wrong arguments, 77 no GPU that can be used.")
    parser.add_argument("--only", metavar="SECTIONS", help="run these alone, separated by commas")
    parser.add_argument("--skip", metavar="SECTIONS", help="run all but these")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-report"), metavar="FOLDER",
                        help="where report.txt, report.json and the logs go (gpu-report). Sections that an earlier "
                        "report there has of the same GPU and build are kept")
    parser.add_argument("--scratch", type=pathlib.Path, metavar="FOLDER",
                        help="where checkpoints with random weights are made, up to 20 GB (FOLDER of --out)")
    parser.add_argument("--quick", action="store_true", help="fewer layers and repeats: to see that everything runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(arguments)
    try:
        options.selected = sections.select(options.only, options.skip)
    except ValueError as error:
        parser.error(str(error))
    options.out = options.out.resolve()
    options.scratch = (options.scratch or options.out / "scratch").resolve()
    return options


def probe(root, out):
    """What the bundle's programs say of the GPU. None, with the reason printed, if they cannot use one."""
    check = step.Step("probe", ["bin/cuda_ops_test", "--gtest_filter=CudaDeviceTest.CopiesThereAndBack"],
                      PROBE_SECONDS, may_skip=True)
    result = step.run(check, root, out / "logs" / "probe.log")
    if result.status == step.PASSED:
        log = (out / "logs" / "probe.log").read_text(encoding="utf-8")
        return next((line[len("GPU: "):] for line in log.splitlines() if line.startswith("GPU: ")), "unknown")
    if result.status == step.SKIPPED:
        print(f"gpu-check: no GPU: {result.reason}", file=sys.stderr)
        return None
    print(f"gpu-check: the GPU cannot be used: {result.reason}\n" + "\n".join(result.output_end), file=sys.stderr)
    return None


def describe_machine(root, gpu):
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        driver = "nvidia-smi is missing"
    build = subprocess.run([root / "bin" / "cadre-server", "--version"], capture_output=True, text=True, timeout=30,
                           check=False).stdout.strip()
    return {"gpu": gpu, "driver": driver, "cpus": os.cpu_count(), "system": platform.platform(), "build": build}


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def run_section(name, steps, root, out):
    results = []
    for each in steps:
        print(f"  {each.name} ...", end=" ", flush=True)
        results.append(step.run(each, root, out / "logs" / f"{name}.{each.name}.log"))
        last = results[-1]
        print(last.status, f"({last.seconds:.1f} s)", last.reason, flush=True)
    return report.SectionResult(name, now(), results)


def main(arguments=None):
    options = parse_arguments(arguments)
    root = pathlib.Path(__file__).resolve().parents[1]
    if options.dry_run:
        for name in options.selected:
            print(f"{name}:")
            for each in sections.steps_of(name, options):
                environment = "".join(f"{key}={shlex.quote(value)} " for key, value in each.environment.items())
                print(f"  [{each.seconds} s] {environment}{shlex.join(map(str, each.command))}")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    gpu = probe(root, options.out)
    if gpu is None:
        return EXIT_NO_GPU
    machine = describe_machine(root, gpu)
    for key, value in machine.items():
        print(f"{key}: {value}", flush=True)
    done = report.read_sections(options.out / "report.json", machine)
    summary = ""
    for name in options.selected:
        print(name, flush=True)
        done[name] = run_section(name, sections.steps_of(name, options), root, options.out)
        # After each section: whoever ends us in the middle still finds a report.
        in_order = [done[each] for each in sections.NAMES if each in done]
        summary = report.write(options.out, machine, in_order, sections.NAMES)
    print(f"verdict: {summary}\nreport: {options.out / 'report.txt'}")
    return EXIT_FAILED if any(done[name].status == step.FAILED for name in options.selected) else 0


if __name__ == "__main__":
    sys.exit(main())
