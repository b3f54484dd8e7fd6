"""Manual pages and completions: well formed, and no option of the programs is missing.

What must be there is read from --help by other means than those that made it. mandoc, man, zsh and fish are asked
where they are installed; bash is everywhere.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "release" / "bin"))
SCRIPT = ROOT / "tools" / "manuals" / "write_manuals.py"
sys.path.insert(0, str(SCRIPT.parent))

from help_text import HelpError, parse_help, parse_option  # noqa: E402

# A file of each shell, which is also how it checks syntax.
SHELLS = {"bash": "bash-completion/completions/{}", "zsh": "zsh/site-functions/_{}",
          "fish": "fish/vendor_completions.d/{}.fish"}
ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def help_of(*words):
    return subprocess.run([str(BIN / words[0]), *words[1:], "--help"], capture_output=True, text=True,
                          check=True).stdout


def commands_of(*words):
    """Every command, as its words."""
    below = re.search(r"^Subcommands:\n((?:  .*\n)+)", help_of(*words), re.M)
    yield words
    for name in re.findall(r"^  (\w+)", below.group(1), re.M) if below else []:
        yield from commands_of(*words, name)


def flags_of(*words):
    """Every name of an option in the left column."""
    lines = re.findall(r"^  (-\S+)", help_of(*words), re.M)
    return {name for line in lines for name in line.split(",")}


COMMANDS = [*commands_of("cadre"), ("cadre-server",)]


def write_manuals(folder, **environment):
    subprocess.run([sys.executable, str(SCRIPT), folder, str(BIN / "cadre"), str(BIN / "cadre-server")], check=True,
                   env={**os.environ, **environment})
    return {str(path.relative_to(folder)): path for path in pathlib.Path(folder).rglob("*") if path.is_file()}


class ManualsCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="cadre-manuals-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.files = write_manuals(cls.folder.name)
        cls.pages = [path for name, path in cls.files.items() if name.startswith("man/")]

    def completion(self, shell, program):
        return self.files[SHELLS[shell].format(program)]


class PagesTest(ManualsCase):
    def test_there_is_a_page_for_each_command(self):
        expected = {"man/man8/cadre-server.8"}
        expected |= {f"man/man1/{'-'.join(words)}.1" for words in COMMANDS[:-1] if len(words) < 3}
        self.assertEqual({name for name in self.files if name.startswith("man/")}, expected)

    def test_every_option_is_on_its_page(self):
        for words in COMMANDS:
            name = "-".join(words[:2])
            text = next(p for p in self.pages if p.stem == name).read_text(encoding="utf-8").replace("\\-", "-")
            for flag in flags_of(*words):
                self.assertRegex(text, rf"(?m)^(.*, )?\\fB{flag}\\fR", f"{words}")
            for variable in re.findall(r"\(Env:(\w+)\)", help_of(*words)):
                self.assertIn(f"\\fB{variable}\\fR", text)

    def test_limits_and_defaults_are_told(self):
        page = next(p for p in self.pages if p.stem == "cadre-server").read_text(encoding="utf-8")
        entry = page[page.index("\\-\\-max\\-num\\-seqs"):].split(".TP")[0]
        self.assertIn("\\fIINT in [1 \\- 4096]\\fR", entry)
        self.assertIn("Default: 64.", entry)
        self.assertRegex(page, r"(?s)SH EXIT STATUS.*\\fB75\\fR\nnot enough memory")

    @unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
    def test_mandoc_finds_nothing(self):
        for page in self.pages:
            done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True,
                                  check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("man") and shutil.which("groff"), "man or groff is not installed")
    def test_man_shows_them_without_warnings(self):
        for page in self.pages:
            done = subprocess.run(["man", "--warnings", "-l", "-Tutf8", str(page)], capture_output=True, text=True,
                                  check=False, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"})
            self.assertEqual((done.returncode, done.stderr), (0, ""), page)
            self.assertIn("SEE ALSO", re.sub(".\b", "", done.stdout))  # bold is a letter, a step back, the letter

    def test_the_same_programs_give_the_same_pages(self):
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            texts = [{name: path.read_text(encoding="utf-8") for name, path in
                      write_manuals(folder, SOURCE_DATE_EPOCH="1700000000").items()} for folder in (first, second)]
        self.assertEqual(*texts)
        self.assertIn(" 2023-11-14 ", texts[0]["man/man1/cadre.1"])


class CompletionsTest(ManualsCase):
    def ask_bash(self, *words):
        """What bash offers for the last word."""
        script = ASK_BASH.format(function="_" + words[0].replace("-", "_"))
        done = subprocess.run(["bash", "-c", script, "bash", str(self.completion("bash", words[0])), *words],
                              capture_output=True, text=True, check=True, cwd=self.folder.name)
        self.assertEqual(done.stderr, "")
        return set(done.stdout.split())

    def test_every_shell_reads_its_own(self):
        for shell in SHELLS:
            if shutil.which(shell) is None:
                continue
            for program in ("cadre", "cadre-server"):
                done = subprocess.run([shell, "-n", str(self.completion(shell, program))], capture_output=True,
                                      text=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""), shell)

    def test_bash_knows_every_command_and_option(self):
        for words in COMMANDS:
            known = flags_of(*words)
            self.assertGreater(len(known), 0)
            offered = self.ask_bash(*words, "")
            self.assertLessEqual(known, offered, words)
            # And those of the program itself, which may stand behind a command.
            below = {other[-1] for other in COMMANDS if other[:-1] == words}
            self.assertEqual(offered - below, known | flags_of(words[0]), words)
            self.assertLessEqual(below, offered)

    def test_the_others_know_every_option(self):
        for words in COMMANDS:
            for flag in flags_of(*words):
                zsh = self.completion("zsh", words[0]).read_text(encoding="utf-8")
                function = zsh[zsh.index("\n_" + "_".join(words).replace("-", "_") + "() {"):].split("\n}\n")[0]
                self.assertRegex(function, rf"'\*?{flag}[=+]?\[", words)
                fish = self.completion("fish", words[0]).read_text(encoding="utf-8").splitlines()
                option = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                self.assertTrue([line for line in fish if re.search(rf" {option}( |$)", line)], f"{words} {flag}")

    def test_bash_offers_values(self):
        self.assertEqual(self.ask_bash("cadre-server", "--dtype", ""), {"auto", "float32", "bfloat16", "float16"})
        self.assertEqual(self.ask_bash("cadre-server", "--dtype", "=", "b"), {"bfloat16"})
        self.assertEqual(self.ask_bash("cadre-server", "--dtype", "="), {"auto", "float32", "bfloat16", "float16"})
        self.assertEqual(self.ask_bash("cadre", "generate", "--replay-weights", "r"), {"router", "recorded"})
        self.assertEqual(self.ask_bash("cadre", "profile", "e"), {"export"})
        self.assertEqual(self.ask_bash("cadre", "gen"), {"generate"})
        # A value that is called like a command is none.
        self.assertIn("generate", self.ask_bash("cadre", "--address", "chat", ""))
        self.assertEqual(self.ask_bash("cadre-server", "--config", "ma"), {"man"})
        self.assertEqual(self.ask_bash("cadre-server", "--port", ""), set())
        # The same name is another option behind another command.
        self.assertIn("--json", self.ask_bash("cadre", "--js"))
        self.assertEqual(self.ask_bash("cadre", "bench", "--json", "ma"), {"man"})


class HelpTextTest(unittest.TestCase):
    def test_an_option_is_taken_apart(self):
        option = parse_option("--a-b,--c INT:INT in [1 - 9] ...=3 REQUIRED (Env:CADRE_A) Needs: --x Excludes: --y z",
                              "Does")
        self.assertEqual((option.names, option.variable, option.needs, option.excludes, option.is_required),
                         (("--a-b", "--c"), "CADRE_A", ("--x",), ("--y", "z"), True))
        option = parse_option("--x TEXT:{a,b}=a", "Does")
        self.assertEqual((option.choices, option.default, option.takes_text), (("a", "b"), "a", False))
        self.assertEqual(parse_option("--bias ID=BIAS ...", "").default, "")
        self.assertEqual(parse_option("--y FLOAT:FLOAT in [0 - 1e+06]=0", "").default, "0")
        self.assertEqual(parse_option("--flag", "").value, "")

    def test_what_is_not_understood_is_an_error(self):
        def no_command(path):
            raise AssertionError(path)

        for text in ("", "About\nUsage: x\n", "About\n\nOptions:\n --x  oddly indented\n",
                     "About\n\nOptions:\n  --x_y INT             a name\n",
                     "About\n\nOptions:\n                              explains nothing\n"):
            with self.assertRaises(HelpError, msg=text):
                parse_help(("x",), text, no_command)


if __name__ == "__main__":
    unittest.main()
