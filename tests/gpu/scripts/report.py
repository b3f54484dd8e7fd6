"""The report of a check: report.json for programs, report.txt for people."""

import dataclasses
import json
import pathlib

import goals
from step import FAILED, PASSED, SKIPPED, StepResult

NOT_RUN = "not run"


@dataclasses.dataclass
class SectionResult:
    name: str
    date: str  # when it ran, UTC
    steps: list

    @property
    def status(self):
        """failed if a step failed, else skipped if a step was, else passed."""
        found = {step.status for step in self.steps}
        for status in (FAILED, SKIPPED):
            if status in found:
                return status
        return PASSED


def read_sections(path: pathlib.Path, machine: dict) -> dict:
    """The sections of an earlier report on the same machine and build, by name; none if it is of another."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["machine"] != machine:
            return {}
        return {entry["name"]: SectionResult(entry["name"], entry["date"],
                                             [StepResult(**step) for step in entry["steps"]])
                for entry in document["sections"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _format_value(value):
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _format_measurement(entry):
    return "    " + "  ".join(f"{key} {_format_value(value)}" for key, value in entry.items())


def _section_lines(section):
    yield f"[{section.status}] {section.name}  ({section.date})"
    for step in section.steps:
        yield f"  {step.status:8} {step.name}  {step.seconds:.1f} s" + (f": {step.reason}" if step.reason else "")
        for entry in step.measurements:
            yield _format_measurement(entry)
        if step.output_end:
            yield f"    $ {step.command}"
            yield from (f"    | {line}" for line in step.output_end)


def _goal_lines(rows):
    for row in rows:
        if row["measured"] is not None:
            mark = "met   " if row["met"] else "missed"
            yield f"  {mark} {row['measured']:.3g} of {row['least']:.3g}  {row['what']}"


def verdict(sections, all_names):
    """One line that tells everything: what failed, what was skipped, what was not run."""
    by_status = {status: [s.name for s in sections if s.status == status] for status in (PASSED, FAILED, SKIPPED)}
    by_status[NOT_RUN] = [name for name in all_names if name not in {s.name for s in sections}]
    parts = []
    for status, names in by_status.items():
        if names:
            parts.append(f"{len(names)} {status}" + ("" if status == PASSED else f" ({', '.join(names)})"))
    return "; ".join(parts) or "nothing was run"


def write(folder: pathlib.Path, machine: dict, sections: list, all_names: list) -> str:
    """Writes both files into `folder`, and returns the verdict."""
    summary = verdict(sections, all_names)
    goal_rows = goals.table(sections)
    document = {"machine": machine, "verdict": summary, "goals": goal_rows,
                "sections": [{"name": s.name, "status": s.status, "date": s.date,
                              "steps": [dataclasses.asdict(step) for step in s.steps]} for s in sections]}
    (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = [f"{key}: {value}" for key, value in machine.items()]
    for section in sections:
        lines += ["", *_section_lines(section)]
    if any(row["measured"] is not None for row in goal_rows):
        lines += ["", "goals (a goal that is missed fails no check)", *_goal_lines(goal_rows)]
    lines += ["", f"verdict: {summary}"]
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return summary
