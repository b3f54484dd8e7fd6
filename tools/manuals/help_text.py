"""What the programs say of themselves with --help, as data.

The programs are the one place where options, their limits, defaults and explanations stand; manual pages, completions
and tests are made from what is read here. A line that is not understood is an error: nothing is left out unseen.
"""

import dataclasses
import re
import subprocess

# Where explanations begin in CLI11's help. Longer names have theirs on the next line.
COLUMN = 30
# CLI11 says of every option but that of the config file that it takes a value.
VALUE_UNSAID = {"--config": "FILE"}


class HelpError(ValueError):
    """A help text is not as it was expected."""


@dataclasses.dataclass(frozen=True)
class Option:
    names: tuple[str, ...]  # "-a", "--address"; of a positional its name alone
    value: str  # such as "TEXT", "INT in [0 - 4096]" or "router|recorded"; empty: a flag
    default: str  # empty: none is told
    variable: str  # in the environment; empty: none
    is_repeated: bool
    is_required: bool
    needs: tuple[str, ...]
    excludes: tuple[str, ...]
    text: str  # what it is for

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values that it takes; empty if they are not listed."""
        listed = re.fullmatch(r"\{(.*)\}", self.value)
        parts = listed.group(1).split(",") if listed else self.value.split("|")
        return tuple(parts) if len(parts) > 1 else ()

    @property
    def takes_text(self) -> bool:
        """Whether its value is any text, which may be the name of a file."""
        return self.value in ("TEXT", "FILE")


@dataclasses.dataclass(frozen=True)
class Command:
    path: tuple[str, ...]  # ("cadre", "profile", "export")
    about: str  # what it does, in one or more lines
    footer: str
    positionals: tuple[Option, ...]
    options: tuple[Option, ...]
    commands: tuple["Command", ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    def walk(self):
        """This command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def _cut(text, pattern):
    """(what `pattern` captures at the end of the text, the text before it); ("", text) without a match."""
    match = re.search(pattern + "$", text)
    return (match.group(1), text[:match.start()]) if match else ("", text)


def parse_option(left: str, text: str) -> Option:
    """Of the left column, such as `-a,--address TEXT=127.0.0.1:50051 (Env:CADRE_ADDRESS)`, and the explanation."""
    rest = left
    excludes, rest = _cut(rest, r" Excludes: (.+)")
    needs, rest = _cut(rest, r" Needs: (.+)")
    variable, rest = _cut(rest, r" \(Env:(\w+)\)")
    required, rest = _cut(rest, r"( REQUIRED)")
    repeated, rest = _cut(rest, r"( \.\.\.)")
    names, _, value = rest.partition(" ")
    # In capitals it is the shape of a value, as in ID=BIAS.
    default, value = _cut(value, r"=((?![A-Z]+$)[^={}]*)")
    # "INT:INT in [1 - 9]", "TEXT:{a,b}", "TEXT:DURATION in [0, 1h]", "ENUM:a|b": what follows the type says more.
    value = value.partition(":")[2] or value or VALUE_UNSAID.get(names, "")
    found = Option(tuple(names.split(",")), value, default, variable, bool(repeated), bool(required),
                   tuple(needs.split()), tuple(excludes.split()), text)
    for name in found.names:
        if not re.fullmatch(r"-\w|--[a-z][a-z0-9-]*|[a-z]+", name):
            raise HelpError(f"{left!r}: {name!r} is no name of an option")
    return found


def _entries(lines):
    """[(left column, explanation)] of a section."""
    found = []
    for number, line in enumerate(lines):
        if line.startswith(" " * COLUMN):
            if number == 0:
                raise HelpError(f"{line!r} explains nothing")
            continue
        if not re.match(r"  \S", line):
            raise HelpError(f"{line!r} is no entry")
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if following.startswith(" " * COLUMN):
            found.append((line.strip(), following.strip()))
        elif len(line) > COLUMN and line[COLUMN - 1] == " " and line[COLUMN] != " ":
            found.append((line[:COLUMN].strip(), line[COLUMN:].strip()))
        else:
            found.append((line.strip(), ""))
    return found


def parse_help(path, text, read_command) -> Command:
    """`read_command(path)` gives the Command of a subcommand."""
    sections, about, footer, current = {}, [], [], None
    for line in text.splitlines():
        if match := re.fullmatch(r"(Options|Positionals|Subcommands):", line):
            current = sections.setdefault(match.group(1), [])
        elif not line.strip():
            if sections and current is not None:
                current = None
        elif line.startswith("Usage: "):
            current = None
        elif current is not None:
            current.append(line)
        else:
            # Above the first section or below the last. CLI11 parts the version's entry from others by an empty line.
            (footer if sections else about).append(line)
    if "Options" not in sections or not about:
        raise HelpError(f"{' '.join(path)} --help is not understood")
    options = tuple(parse_option(*entry) for entry in _entries(sections["Options"]))
    positionals = tuple(parse_option(*entry) for entry in _entries(sections.get("Positionals", [])))
    below = tuple(read_command((*path, left)) for left, _ in _entries(sections.get("Subcommands", [])))
    return Command(tuple(path), "\n".join(about), "\n".join(footer), positionals, options, below)


def read_program(program) -> Command:
    """The whole tree of commands of a program, by running it with --help."""
    def read(path):
        done = subprocess.run([str(program), *path[1:], "--help"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HelpError(f"{program} {' '.join(path[1:])} --help ended with {done.returncode}: {done.stderr}")
        return parse_help(path, done.stdout, read)
    return read((program.name,))


def read_version(program) -> str:
    """Such as "0.1.0"."""
    text = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+\.\d+\.\d+", text)
    if match is None:
        raise HelpError(f"{program} --version: {text!r} has no version")
    return match.group()
