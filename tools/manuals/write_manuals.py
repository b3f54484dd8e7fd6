#!/usr/bin/env python3
"""Writes manual pages and completions of programs, from their own --help, as they go below share/:

    tools/manuals/write_manuals.py FOLDER PROGRAM...

The build runs it (target `manuals`). Pages are dated by SOURCE_DATE_EPOCH, or today.
"""

import datetime
import os
import pathlib
import shutil
import sys

from completions import completions
from help_text import HelpError, read_program, read_version
from man_pages import pages


def page_date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.datetime.now(datetime.timezone.utc) if epoch is None else datetime.datetime.fromtimestamp(
        int(epoch), datetime.timezone.utc)
    return day.strftime("%Y-%m-%d")


def files(program: pathlib.Path) -> dict[str, str]:
    """{path below share/: text}"""
    root = read_program(program)
    manual = pages(root, read_version(program), page_date())
    return {f"man/man{name.rpartition('.')[2]}/{name}": text for name, text in manual.items()} | completions(root)


def main(arguments) -> int:
    if len(arguments) < 2:
        print(f"usage: {sys.argv[0]} FOLDER PROGRAM...", file=sys.stderr)
        return 64
    folder = pathlib.Path(arguments[0])
    try:
        found = {name: text for program in arguments[1:] for name, text in files(pathlib.Path(program)).items()}
    except HelpError as error:
        print(f"write_manuals: {error}", file=sys.stderr)
        return 65
    # What an earlier run left may be of commands that are gone.
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
