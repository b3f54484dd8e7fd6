"""What a check consists of: sections, each of a few programs with their time limits."""

from step import Step, find_program

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
GROUPS = {
    "tests": ["ops", "golden", "invariance"],
    "sanitizer": list(SANITIZERS),
}
NAMES = ["ops", "golden", "invariance", *SANITIZERS]


def select(only, skip):
    """The names that --only and --skip leave, in the order of NAMES. ValueError names a word that is no section."""
    def names_of(text):
        words = [word.strip() for word in text.split(",") if word.strip()]
        for word in words:
            if word not in NAMES and word not in GROUPS:
                raise ValueError(f"there is no section or group {word!r}: {', '.join([*NAMES, *GROUPS])}")
        return {name for word in words for name in GROUPS.get(word, [word])}

    chosen = names_of(only) if only is not None else set(NAMES)
    chosen -= names_of(skip) if skip is not None else set()
    if not chosen:
        raise ValueError("no section is left to run")
    return [name for name in NAMES if name in chosen]


def _sanitizer(tool):
    # The tests of what goes wrong start processes of their own and stop the GPU on purpose. Those of long sequences
    # take too long under a tool that watches every access.
    tests = "-*Lost*:*Checks*:*Refuse*:*Long*:*AllocatesZeros*"
    if tool == "racecheck":  # by far the slowest
        tests += ":*Invariance*"
    # initcheck knows no managed memory, in which these tests have theirs: it sees the scratch of the verbs.
    command = [find_program("compute-sanitizer") or "compute-sanitizer", f"--tool={tool}", "--error-exitcode=9",
               "--print-limit=20", "bin/cuda_ops_test", f"--gtest_filter={tests}"]
    return Step(tool, command, 580, needs="compute-sanitizer")


def steps_of(name, options):
    """The programs of section `name`. `options`: out, scratch (folders) and quick."""
    del options
    if name == "ops":
        return [Step("ops", ["bin/cuda_ops_test"], 300)]
    if name == "golden":
        return [Step("golden", ["bin/cuda_model_test", "--gtest_filter=*Golden*"], 400)]
    if name == "invariance":
        return [Step("invariance", ["bin/cuda_model_test", "--gtest_filter=-*Golden*"], 500)]
    if name in SANITIZERS:
        return [_sanitizer(name)]
    raise ValueError(name)
