"""deploy/systemd: units that systemd accepts and finds little exposed, times and exit codes that are the server's, and
settings that it knows. Nothing is started."""

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
FOLDER = ROOT / "deploy" / "systemd"
# systemd's own measure, 0 to 10. A service without any of the settings has 9.6.
MAX_EXPOSURE = 1.5
sys.path.insert(0, str(ROOT / "tools" / "manuals"))

from help_text import read_program  # noqa: E402


def unit_text():
    return (FOLDER / "cadre.service.in").read_text(encoding="utf-8").replace("@CADRE_BINDIR@", str(BIN))


def said(text):
    """{key: value} of a unit, or of a file of variables."""
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def seconds(text):
    return float(re.fullmatch(r"(\d+)s", text).group(1))


class UnitTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.unit = said(unit_text())
        cls.settings = said((FOLDER / "server.env").read_text(encoding="utf-8"))

    def analyze(self, *arguments, text):
        with tempfile.TemporaryDirectory(prefix="cadre-unit-") as folder:
            path = pathlib.Path(folder) / "cadre.service"
            path.write_text(text, encoding="utf-8")
            return subprocess.run(["systemd-analyze", *arguments, str(path)], capture_output=True, text=True,
                                  check=False)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_systemd_accepts_it(self):
        def complaints(text):
            done = self.analyze("verify", "--man=no", "--recursive-errors=no", text=text)
            return done.stdout + done.stderr

        self.assertEqual(complaints(unit_text()), "")
        self.assertIn("ProtectSytem", complaints(unit_text().replace("ProtectSystem", "ProtectSytem")))
        self.assertIn("not executable", complaints(unit_text().replace("/cadre-server", "/cadre-serber")))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_it_is_little_exposed(self):
        def exposure(text):
            done = self.analyze("security", "--offline=true", "--no-pager", text=text)
            if "--offline" in done.stderr:
                self.skipTest("this systemd looks at units that run only")
            return float(re.search(r"exposure level for cadre.service: ([\d.]+)", done.stdout).group(1))

        self.assertLessEqual(exposure(unit_text()), MAX_EXPOSURE)
        self.assertGreater(exposure(unit_text().replace("CapabilityBoundingSet=", "#")), MAX_EXPOSURE)

    def test_a_drain_ends_before_it_is_killed(self):
        needed = sum(seconds(self.settings[f"CADRE_DRAIN_{name}"]) for name in ("DELAY", "TIMEOUT"))
        self.assertGreaterEqual(seconds(self.unit["TimeoutStopSec"]), needed + 10)

    def test_only_mistakes_that_stay_are_not_repeated(self):
        header = (ROOT / "server" / "exit_codes.h").read_text(encoding="utf-8")
        codes = dict(re.findall(r"(kExit\w+) = (\d+),", header))
        lasting = {codes[name] for name in ("kExitUsage", "kExitNoModel", "kExitNoDevice", "kExitBadModel")}
        self.assertEqual(set(self.unit["RestartPreventExitStatus"].split()), lasting)

    def test_settings_are_options(self):
        known = {option.variable for option in read_program(BIN / "cadre-server").options}
        self.assertLessEqual(set(self.settings), known)
        self.assertEqual(self.settings["CADRE_HOST"], "127.0.0.1")


if __name__ == "__main__":
    unittest.main()
