#!/usr/bin/env python3
"""Seeds one bug after the other into a copy of the tree and sees the tests find it: who watches the tests.

    tests/mutants/run.py [--list] [--share N] [WORD...]     only mutants whose name has one of the words

The copy and its build lie in build/mutants. Exits with 1 if a test is red without a bug, or green with one.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

from mutants import MUTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants" / "tree"
BUILD = COPY / "build" / "release"  # as deep as the real one, so that the compiler's cache knows the unchanged files
TEST_SECONDS = 120
FOUND = "found"


def update_copy():
    """Makes the copy equal to the tree. Equal files keep their times, so that they are not built again."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True).stdout.decode()
    wanted = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for path in COPY.rglob("*"):
        if path.is_file() and not path.is_relative_to(BUILD) and str(path.relative_to(COPY)) not in wanted:
            path.unlink()
    for name in wanted:
        target = COPY / name
        if target.is_file() and target.read_bytes() == (ROOT / name).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)


def build(*programs):
    return subprocess.run(["cmake", "--build", BUILD, "-j", str(os.cpu_count()), "--target", *programs],
                          capture_output=True, text=True)


def run_tests(program, tests):
    """Whether they pass; never hangs, and filters that name no test do not pass."""
    command = [BUILD / "tests" / program, f"--gtest_filter={tests}", "--gtest_fail_fast", "--gtest_brief=1"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0 and "0 tests from 0 test suites ran" not in result.stdout


def failed(step, result):
    print(f"{step} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
    return 1


def commit_number():
    """A number that every commit has another of."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return int(found.stdout, 16)


def seed(mutant):
    """What becomes of the bug: FOUND, or what is wrong with it or the tests."""
    path = COPY / mutant.file
    original = path.read_text(encoding="utf-8")
    if original.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: the text to change is there {original.count(mutant.old)} times")
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        built = build(mutant.program)
        if built.returncode != 0:
            failed(f"{mutant.name}: the build", built)
            return "NO BUILD"
        return "NOT FOUND" if run_tests(mutant.program, mutant.tests) else FOUND
    finally:
        path.write_text(original, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument("--share", type=int, default=1, metavar="N", help="one in N of them; which, the commit decides")
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.words or any(word in m.name for word in arguments.words)]
    chosen = chosen[commit_number() % arguments.share::arguments.share]
    if arguments.list:
        print("\n".join(f"{m.name}: {m.program} {m.tests}" for m in chosen))
        return 0
    update_copy()
    configured = subprocess.run(["cmake", "--preset", "release", "-DCADRE_TESTS=ON"], cwd=COPY,
                                capture_output=True, text=True)
    if configured.returncode != 0:
        return failed("cmake", configured)
    built = build(*{m.program for m in chosen})
    if built.returncode != 0:
        return failed("the build without a bug", built)
    red = [m for m in chosen if not run_tests(m.program, m.tests)]
    for mutant in red:
        print(f"RED WITHOUT THE BUG  {mutant.program} {mutant.tests}")
    survivors = []
    for mutant in chosen:
        begin = time.monotonic()
        outcome = seed(mutant)
        print(f"{outcome:10} {time.monotonic() - begin:5.1f} s  {mutant.name}", flush=True)
        if outcome != FOUND:
            survivors.append(mutant)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} bugs found")
    return 1 if red or survivors else 0


if __name__ == "__main__":
    sys.exit(main())
