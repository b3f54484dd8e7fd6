"""Manual pages, in the macros of man(7), from what help_text has read."""

import re

SERVER_SECTION, CLIENT_SECTION = 8, 1


def roff(text: str) -> str:
    """Text without a meaning for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.splitlines())


def _value(option):
    shown = "|".join(option.choices) or option.value
    return f" \\fI{roff(shown)}\\fR" if shown else ""


def _sentence(text):
    return roff(text if text.endswith(".") else text + ".")


def _option(option):
    """An entry of OPTIONS."""
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
    more = " ..." if option.is_repeated else ""
    lines = [".TP", names + _value(option) + more]
    said = [_sentence(option.text)] if option.text else []
    if option.default:
        said.append(f"Default: {roff(option.default)}.")
    if option.variable:
        said.append(f"In the environment: \\fB{option.variable}\\fR.")
    if option.needs:
        said.append(f"Needs {roff(', '.join(option.needs))}.")
    if option.excludes:
        said.append(f"Not with {roff(', '.join(option.excludes))}.")
    if option.is_required:
        said.append("Has to be given.")
    return lines + (said or ["See above."])


def _synopsis(command):
    words = [f"\\fB{roff(' '.join(command.path))}\\fR", "[\\fIoptions\\fR]"]
    for positional in command.positionals:
        name = f"\\fI{positional.names[0]}\\fR" + (" ..." if positional.is_repeated else "")
        words.append(name if positional.is_required else f"[{name}]")
    if command.commands:
        words.append("\\fIcommand\\fR")
    return " ".join(words)


def _split_exit_codes(text):
    """(the text without its sentence on exit codes, that sentence's list)."""
    match = re.search(r"Exit codes: (.*?)\.?$", text, re.S)
    return (text[:match.start()].strip(), " ".join(match.group(1).split())) if match else (text, "")


def _exit_status(codes):
    """Each code is one or more numbers, and what they mean: `64 wrong option`, `130 or 143 ended ...`."""
    lines = [".SH EXIT STATUS"]
    for entry in codes.split(", "):
        number, meaning = re.fullmatch(r"(\d+(?: or \d+)*) (.+)", entry).groups()
        lines += [".TP", f"\\fB{number}\\fR", roff(meaning)]
    return lines


def _about(command):
    """(one line, the rest) of what a command does, without the program's name and exit codes in it."""
    text, _ = _split_exit_codes(command.about)
    first, _, rest = text.partition("\n")
    first = first.removeprefix(f"{command.path[0]}: ").rstrip(".")
    return first[0].lower() + first[1:], rest


def page_name(command) -> str:
    """cadre-profile.1; commands below the second level stand on the page of that."""
    section = SERVER_SECTION if command.path == ("cadre-server",) else CLIENT_SECTION
    return f"{'-'.join(command.path[:2])}.{section}"


def _body(command):
    lines = []
    if command.positionals:
        lines += [".SH ARGUMENTS"]
        for positional in command.positionals:
            lines += _option(positional)
    lines += [".SH OPTIONS"]
    for option in command.options:
        lines += _option(option)
    return lines


def _below(command):
    """What follows of the commands below: names with a page of their own, or all of it."""
    if not command.commands:
        return []
    lines = [".SH COMMANDS"]
    for below in command.commands:
        first = below.about.splitlines()[0]
        if len(command.path) == 1:
            lines += [".TP", f"\\fB{roff('-'.join(below.path))}\\fR({CLIENT_SECTION})", roff(first)]
            continue
        lines += [".SS " + roff(" ".join(below.path[1:])), _sentence(first), ".PP", _synopsis(below)]
        for option in (*below.positionals, *below.options):
            lines += _option(option)
    return lines


def page(command, version: str, date: str, root) -> str:
    """The manual page of a command. `root` is the program's own command, `date` YYYY-MM-DD."""
    first, rest = _about(command)
    name = "-".join(command.path)
    section = page_name(command).rpartition(".")[2]
    lines = [f'.\\" Made from {" ".join(command.path)} --help.',
             f'.TH {roff(name.upper())} {section} {date} "cadre {version}" "cadre"', ".SH NAME",
             f"{roff(name)} \\- {roff(first)}", ".SH SYNOPSIS", _synopsis(command)]
    if rest:
        lines += [".SH DESCRIPTION", roff(rest)]
    lines += _body(command) + _below(command)
    codes = _split_exit_codes(command.about)[1] or _split_exit_codes(command.footer)[1]
    if codes:
        lines += _exit_status(codes)
    others = ({"-".join(c.path[:2]) for c in root.walk()} | {"cadre"}) - {name, "cadre-server"}
    pages = [f"\\fB{roff(other)}\\fR({CLIENT_SECTION})" for other in sorted(others)]
    pages += [] if name == "cadre-server" else [f"\\fBcadre\\-server\\fR({SERVER_SECTION})"]
    lines += [".SH SEE ALSO", ",\n".join(pages)]
    return "\n".join(lines) + "\n"


def pages(root, version: str, date: str) -> dict[str, str]:
    """{file name: text} of a program."""
    return {page_name(c): page(c, version, date, root) for c in root.walk() if len(c.path) <= 2}
