"""One program of a check: its command, its time limit, and what came of it."""

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

SKIPPED_EXIT_CODE = 77
# Lines of a failed program's output that the report repeats.
SHOWN_LINES = 25

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class Step:
    """`command` runs in the bundle's folder with `environment` added; `seconds` is its time limit."""

    name: str
    command: list
    seconds: int
    environment: dict = dataclasses.field(default_factory=dict)
    needs: str = ""  # a program that may be absent: then the step is skipped
    may_skip: bool = False  # whether code 77 is no failure: what it needs beyond a GPU may be missing


@dataclasses.dataclass
class StepResult:
    name: str
    status: str
    reason: str = ""  # why it was skipped or failed
    seconds: float = 0.0
    command: str = ""
    measurements: list = dataclasses.field(default_factory=list)  # the JSON objects it printed, one to a line
    output_end: list = dataclasses.field(default_factory=list)  # of a step that failed


# Where the CUDA toolkit has its programs when they are not on the PATH.
TOOLKIT_FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/nvidia/compute-sanitizer")


def find_program(name):
    """Its path, or None."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(TOOLKIT_FOLDERS))


def _end_group(process):
    """Ends the program and all that it started."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _parse_measurements(lines):
    found = []
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _last_reason(lines, otherwise):
    said = [line.strip() for line in lines if line.strip() and not line.startswith("{")]
    return said[-1] if said else otherwise


def run(step, folder: pathlib.Path, log: pathlib.Path) -> StepResult:
    """Runs `step` in `folder`; all that it says goes to `log`."""
    result = StepResult(step.name, PASSED, command=shlex.join(map(str, step.command)))
    if step.needs and find_program(step.needs) is None:
        return dataclasses.replace(result, status=SKIPPED, reason=f"{step.needs} is not on this machine")
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with open(log, "w", encoding="utf-8") as output:
        try:
            process = subprocess.Popen(list(map(str, step.command)), cwd=folder, stdout=output,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                                       env={**os.environ, **step.environment})
        except OSError as error:
            return dataclasses.replace(result, status=FAILED, reason=f"cannot be started: {error}")
        try:
            code = process.wait(step.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    result.seconds = round(time.monotonic() - begin, 2)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    result.measurements = _parse_measurements(lines)
    if code == 0:
        return result
    if code == SKIPPED_EXIT_CODE and step.may_skip:
        return dataclasses.replace(result, status=SKIPPED, reason=_last_reason(lines, "it did not say why"))
    reason = f"was ended after {step.seconds} s" if code is None else f"ended with code {code}"
    if code is not None and code < 0:
        reason = f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return dataclasses.replace(result, status=FAILED, reason=reason, output_end=lines[-SHOWN_LINES:])
