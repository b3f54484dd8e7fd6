"""docs/configuration.md against cadre-server: every option with its default and limits, no option that is not there,
every exit code; and the options that other pages speak of."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "release" / "bin"))
sys.path.insert(0, str(ROOT / "tools" / "manuals"))

from help_text import read_program  # noqa: E402
from option_table import BEGIN, END, option_table, with_table  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
# Pages of operators, which speak of the options of cadre-server and cadre alone, outside of their examples.
PAGES = ("configuration", "operations", "expert-cache", "metrics", "routing", "api")
# Of curl, docker and the build, as those pages name them.
OTHERS = {"--stop-timeout"}


def text_of(path):
    return path.read_text(encoding="utf-8")


class ConfigurationTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.client = read_program(BIN / "cadre-server"), read_program(BIN / "cadre")
        cls.options = {name for command in (cls.server, *cls.client.walk()) for option in command.options
                       for name in option.names}

    def test_the_table_is_what_the_server_says(self):
        page = text_of(PAGE)
        self.assertEqual(page, with_table(page, option_table(self.server)),
                         "run tools/manuals/option_table.py, with the path of cadre-server if it is no release build")

    def test_every_option_and_default_is_in_the_table(self):
        """By other means than those that made it."""
        table = text_of(PAGE).partition(BEGIN)[2].partition(END)[0]
        told = subprocess.run([str(BIN / "cadre-server"), "--help"], capture_output=True, text=True, check=True).stdout
        entries = re.findall(r"^  --([a-z0-9-]+)[^ ]* ?(.*)$", told, re.M)
        self.assertGreater(len(entries), 50)
        for name, rest in entries:
            if name == "version":
                continue
            row, = re.findall(rf"^\| `--{name}`.*$", table, re.M)
            default = re.search(r"=(\S+) \(Env", rest)
            cell = row.replace("\\|", "").split("|")[2].strip()
            self.assertEqual(cell, f"`{default.group(1)}`" if default else "", name)
        self.assertEqual(len(re.findall(r"^\| `--", table, re.M)), len(entries) - 1)

    def test_every_option_has_its_variable(self):
        for option in self.server.options:
            name = option.names[-1] if len(option.names) == 1 else option.names[0]
            if name not in ("-h", "--version"):
                self.assertEqual(option.variable, "CADRE_" + name[2:].upper().replace("-", "_"))

    def test_pages_name_options_that_exist(self):
        for page in PAGES:
            text = re.sub(r"```.*?```", "", text_of(ROOT / "docs" / f"{page}.md"), flags=re.S)
            spans = " ".join(re.findall(r"`([^`]+)`", text))
            named = {name.rstrip("-") for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", spans)}
            # A family, as in `--max-queue-...`.
            missing = {name for name in named - OTHERS if not any(o.startswith(name) for o in self.options)}
            self.assertEqual(missing, set(), page)

    def test_every_exit_code_is_documented(self):
        header = text_of(ROOT / "server" / "exit_codes.h")
        codes = {int(value) for value in re.findall(r"kExit\w+ = (\d+),", header)} - {128}
        about = re.search(r"Exit codes: (.*)\.", self.server.about, re.S).group(1)
        told = [int(number) for number in re.findall(r"\d+", about)]
        self.assertEqual(told, [*sorted(codes), 130, 143], "cadre-server --help")
        for page in (PAGE, ROOT / "server" / "README.md"):
            documented = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", text_of(page), re.M)
                          for number in row.split(",")}
            self.assertEqual(documented - {130, 143}, codes, page)


if __name__ == "__main__":
    unittest.main()
