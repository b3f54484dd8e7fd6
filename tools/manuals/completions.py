"""Completions for bash, zsh and fish, from what help_text has read. Each shell gets every command, every option, the
values of options that have a list of them, and file names where a value may be one."""

from help_text import Command, Option


def _function(root: Command) -> str:
    return "_" + root.path[0].replace("-", "_")


def _names(command: Command, root: Command) -> list[str]:
    """Every option that may stand behind a command: its own, and those of the program."""
    own = [name for option in command.options for name in option.names]
    general = [name for option in root.options for name in option.names if name not in own]
    return own + general


def _valued(command: Command, root: Command) -> list[Option]:
    """The options behind a command that take a value."""
    own = {name for option in command.options for name in option.names}
    return [o for o in command.options if o.value] + [
        o for o in root.options if o.value and command is not root and not own & set(o.names)]


def _kind(option: Option) -> str:
    """The words a value may be; "file" for file names, "none" for anything else."""
    return " ".join(option.choices) or ("@file" if option.takes_text else "@none")


BASH = """\
# bash completion for {program}. Made from its --help.
{function}_words() {{
  case "$1" in
{words}  esac
}}

# What the value of option $2 of command $1 may be: words, @file, @none; nothing if it takes none.
{function}_value() {{
  case "$1 $2" in
{values}  esac
}}

{function}() {{
  local current previous path kind index
  COMPREPLY=()
  current=${{COMP_WORDS[COMP_CWORD]}}
  previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  # --option=value comes as three words.
  if [[ $current == "=" ]]; then
    current=
  elif [[ $previous == "=" ]]; then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  path={program}
  for ((index = 1; index < COMP_CWORD; index++)); do
    [[ " $({function}_words "$path") " == *" ${{COMP_WORDS[index]}} "* && ${{COMP_WORDS[index]}} != -* ]] || continue
    [[ -n $({function}_value "$path" "${{COMP_WORDS[index - 1]}}") ]] || path+=" ${{COMP_WORDS[index]}}"
  done
  kind=$({function}_value "$path" "$previous")
  case "$kind" in
    @file) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    @none) ;;
    "") mapfile -t COMPREPLY < <(compgen -W "$({function}_words "$path")" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$current") ;;
  esac
}}
complete -o default -F {function} {program}
"""


def bash(root: Command) -> str:
    words, values = [], []
    for command in root.walk():
        below = [c.path[-1] for c in command.commands]
        words.append(f'    "{command.name}") echo "{" ".join(below + _names(command, root))}" ;;\n')
        for option in _valued(command, root):
            patterns = "|".join(f'"{command.name} {name}"' for name in option.names)
            values.append(f'    {patterns}) echo "{_kind(option)}" ;;\n')
    return BASH.format(program=root.path[0], function=_function(root), words="".join(words), values="".join(values))


def _zsh_text(text: str) -> str:
    """Inside of single quotes and of _arguments' own brackets and colons."""
    for sign in "\\[]:":
        text = text.replace(sign, "\\" + sign)
    return text.replace("'", "'\\''")


def _zsh_action(option: Option) -> str:
    if not option.value:
        return ""
    message = _zsh_text(option.value if not option.choices else "value")
    if option.choices:
        return f":{message}:({' '.join(option.choices)})"
    return f":{message}:_files" if option.takes_text else f":{message}: "


def _zsh_options(command: Command, root: Command) -> list[str]:
    own = {name for option in command.options for name in option.names}
    options = list(command.options) + [o for o in root.options if command is not root and not own & set(o.names)]
    found = []
    for option in options:
        for name in option.names:
            again = "*" if option.is_repeated else ""
            sign = "=" if option.value and name.startswith("--") else "+" if option.value else ""
            found.append(f"    '{again}{name}{sign}[{_zsh_text(option.text)}]{_zsh_action(option)}'")
    return found


def _zsh_function(command: Command, root: Command) -> str:
    name = "_" + "_".join(command.path).replace("-", "_")
    lines = _zsh_options(command, root)
    if not command.commands:
        lines += ["    '*:argument:_files'"] if command.positionals else []
        return f"{name}() {{\n  _arguments -s -S \\\n" + " \\\n".join(lines) + "\n}\n"
    lines += ["    '1: :->command'", "    '*:: :->rest'"]
    told = "\n".join(f"      '{c.path[-1]}:{_zsh_text(c.about.splitlines()[0])}'" for c in command.commands)
    cases = "\n".join(f"        {c.path[-1]}) _{'_'.join(c.path).replace('-', '_')} ;;" for c in command.commands)
    return (f"{name}() {{\n  local context state state_descr line\n  typeset -A opt_args\n"
            f"  local -a commands=(\n{told}\n"
            "  )\n  _arguments -C -s -S \\\n" + " \\\n".join(lines) + "\n  case $state in\n"
            "    command) _describe command commands ;;\n    rest)\n      case $line[1] in\n"
            f"{cases}\n      esac\n      ;;\n  esac\n}}\n")


def zsh(root: Command) -> str:
    parts = [_zsh_function(command, root) for command in root.walk()]
    return f"#compdef {root.path[0]}\n# Made from {root.path[0]} --help.\n\n" + "\n".join(parts) + \
        f'\n{_function(root)} "$@"\n'


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _fish_condition(command: Command) -> str:
    if len(command.path) == 1:
        return "-n __fish_use_subcommand " if command.commands else ""
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path[1:])
    below = " ".join(c.path[-1] for c in command.commands)
    return f"-n '{seen}{f'; and not __fish_seen_subcommand_from {below}' if below else ''}' "


def _fish_option(program: str, condition: str, option: Option) -> str:
    parts = [f"complete -c {program} {condition}".rstrip()]
    for name in option.names:
        parts.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    if option.choices:
        parts.append(f"-x -a '{' '.join(option.choices)}'")
    elif option.value:
        parts.append("-r -F" if option.takes_text else "-x")
    return " ".join(parts) + f" -d '{_fish_text(option.text)}'\n"


def fish(root: Command) -> str:
    program = root.path[0]
    lines = [f"# fish completion for {program}. Made from its --help.\n"]
    # Options of the program hold behind every command.
    lines += [_fish_option(program, "", option) for option in root.options]
    for command in root.walk():
        condition = _fish_condition(command)
        for below in command.commands:
            about = _fish_text(below.about.splitlines()[0])
            lines.append(f"complete -c {program} {condition}-f -a {below.path[-1]} -d '{about}'\n")
        if command is not root:
            lines += [_fish_option(program, condition, o) for o in command.options if o not in root.options]
    return "".join(lines)


def completions(root: Command) -> dict[str, str]:
    """{path below share/: text} of a program, where each shell looks for it."""
    program = root.path[0]
    return {
        f"bash-completion/completions/{program}": bash(root),
        f"zsh/site-functions/_{program}": zsh(root),
        f"fish/vendor_completions.d/{program}.fish": fish(root),
    }
