"""What a check consists of: sections, each of a few programs with their time limits."""

import glob
import os
import sys

from step import Step, find_program

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
ENGINE_SHAPES = {  # layers: as many as leave room for the KV cache of 128 sequences on a GPU of 80 GB
    "olmoe-1b-7b": 16,
    "qwen3-30b-a3b": 32,
    "mixtral-8x7b": 12,
}
# Shares of the experts that the GPU holds, of the shape of a model with many small ones.
EXPERT_SHARES = ("0.5", "0.8", "0.95", "1")
EXPERT_SHAPE = "qwen3-30b-a3b"
# layers: what is written to the disk and read twice, once in float32
CHECKPOINT_SHAPES = {"olmoe-1b-7b": 16, "qwen3-30b-a3b": 12}
GROUPS = {
    "tests": ["ops", "golden", "invariance"],
    "sanitizer": list(SANITIZERS),
    "bench": ["kernels", "engine", "experts"],
}
NAMES = ["calibrate", "ops", "golden", "invariance", "kernels", "engine", "experts", "server", "transformers",
         *SANITIZERS]


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


def _cublas_environment():
    """LD_LIBRARY_PATH with the folder of a cuBLAS: of the toolkit, or of a Python package."""
    patterns = ["/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib"]
    for folder in _site_folders():
        patterns += [f"{folder}/nvidia/*/lib", f"{folder}/nvidia/*/lib64"]
    for pattern in patterns:
        for folder in sorted(glob.glob(pattern), reverse=True):
            if glob.glob(f"{folder}/libcublas.so.1[23]"):
                return {"LD_LIBRARY_PATH": ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), folder]))}
    return {}


def _site_folders():
    return [folder for folder in sys.path if folder.endswith("-packages")]


def _calibration(options):
    """What the section calibrate printed, now or in an earlier run into the same folder."""
    log = options.out / "logs" / "calibrate.calibrate.log"
    # A dry run shows the command of a run of everything.
    return ["--calibration", log] if log.exists() or options.dry_run else []


def _engine(shape, layers, options):
    decode = ["--batches", "1,8" if options.quick else "1,8,32,128", "--context", "1024", "--steps", "16"]
    prefill = ["--prefill", "512" if options.quick else "512,2048,8192", "--repeats", "2" if options.quick else "3"]
    return Step(shape, ["bin/engine_bench", "--device", "cuda", "--model", f"shapes/{shape}", "--random-weights",
                        "--layers", "2" if options.quick else layers, *decode, *prefill, *_calibration(options),
                        "--json"], 400)


def _experts(share, options):
    """Decode steps and a prompt while the GPU holds some of the experts, and reads the others in the host's memory."""
    return Step(share, ["bin/engine_bench", "--device", "cuda", "--model", f"shapes/{EXPERT_SHAPE}", "--random-weights",
                        "--layers", "2" if options.quick else ENGINE_SHAPES[EXPERT_SHAPE], "--resident-experts", share,
                        "--batches", "1,4" if options.quick else "1,4,32", "--context", "256", "--steps", "32",
                        "--prefill", "512", "--repeats", "2", *_calibration(options), "--json"], 300)


def _script(name, shape, layers, options):
    if not options.dry_run:
        options.scratch.mkdir(parents=True, exist_ok=True)
    return [sys.executable, f"scripts/{name}.py", f"shapes/{shape}", "--layers", "2" if options.quick else layers,
            "--scratch", options.scratch]


def steps_of(name, options):
    """The programs of section `name`. `options`: out and scratch (folders), quick, dry_run."""
    if name == "calibrate":
        return [Step("calibrate", ["bin/gpu_calibrate"], 120, _cublas_environment())]
    if name == "ops":
        return [Step("ops", ["bin/cuda_ops_test"], 300)]
    if name == "golden":
        return [Step("golden", ["bin/cuda_model_test", "--gtest_filter=*Golden*"], 400)]
    if name == "invariance":
        return [Step("invariance", ["bin/cuda_model_test", "--gtest_filter=-*Golden*"], 500)]
    if name == "kernels":
        few = ["--tokens", "1,32", "--prompts", "512", "--seconds", "0.2"] if options.quick else []
        return [Step(shape, ["bin/gpu_kernel_bench", "--shapes", shape, *few, *_calibration(options)], 300)
                for shape in ENGINE_SHAPES]
    if name == "engine":
        return [_engine(shape, layers, options) for shape, layers in ENGINE_SHAPES.items()]
    if name == "experts":
        return [_experts(share, options) for share in EXPERT_SHARES]
    if name == "server":
        return [Step(shape, [*_script("serve_check", shape, layers, options),
                             "--requests", "64" if options.quick else "256"], 550)
                for shape, layers in CHECKPOINT_SHAPES.items()]
    if name == "transformers":
        return [Step(shape, _script("transformers_check", shape, layers, options), 550, may_skip=True)
                for shape, layers in CHECKPOINT_SHAPES.items()]
    if name in SANITIZERS:
        return [_sanitizer(name)]
    raise ValueError(name)
