#!/usr/bin/env python3
"""Writes the table of all options into docs/configuration.md, from cadre-server --help: run it after a change of them.

    tools/manuals/option_table.py [build/release/bin/cadre-server]
"""

import pathlib
import sys

from help_text import read_program

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
BEGIN = "<!-- made by tools/manuals/option_table.py: change --help, and run it -->\n"
END = "<!-- end -->\n"
# They are not settings.
LEFT_OUT = {"--help", "--version"}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def option_table(root) -> str:
    """The options of a program in the order of its help, as Markdown between BEGIN and END."""
    lines = ["| option | default | values | |", "|---|---|---|---|"]
    for option in root.options:
        if LEFT_OUT & set(option.names):
            continue
        names = ", ".join(f"`{name}`" for name in option.names)
        values = ", ".join(f"`{choice}`" for choice in option.choices) or _cell(option.value) or "flag"
        default = f"`{option.default}`" if option.default else ""
        lines.append(f"| {names} | {default} | {values} | {_cell(option.text)} |")
    return BEGIN + "\n".join(lines) + "\n" + END


def with_table(page: str, table: str) -> str:
    """The page with its table replaced."""
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} lacks the place of the table: {BEGIN.strip()} ... {END.strip()}")
    return head + table + tail


def main(arguments) -> int:
    program = pathlib.Path(arguments[0] if arguments else ROOT / "build" / "release" / "bin" / "cadre-server")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), option_table(read_program(program))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
