"""What `make install` installs, from the build folder CADRE_BUILD, into a folder that is thrown away."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CADRE_BUILD", ROOT / "build" / "release"))


class InstallTest(unittest.TestCase):
    def test_everything_has_its_place_and_runs(self):
        with tempfile.TemporaryDirectory(prefix="cadre-install-") as folder:
            subprocess.run(["cmake", "--install", str(BUILD), "--component", "cadre", "--prefix", "/opt/cadre"],
                           check=True, capture_output=True, env={**os.environ, "DESTDIR": folder})
            prefix = pathlib.Path(folder) / "opt" / "cadre"
            found = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
            self.assertLessEqual({
                "bin/cadre", "bin/cadre-server", "share/man/man1/cadre.1", "share/man/man1/cadre-generate.1",
                "share/man/man8/cadre-server.8", "share/bash-completion/completions/cadre",
                "share/zsh/site-functions/_cadre-server", "share/fish/vendor_completions.d/cadre.fish",
                "share/doc/cadre/LICENSE", "share/doc/cadre/docs/configuration.md",
                "share/doc/cadre/server.env", "lib/systemd/system/cadre.service",
                "share/cadre/proto/cadre/v1/generation_service.proto", "share/cadre/proto/service_config.json",
            }, found)
            self.assertEqual({path.name for path in pathlib.Path(folder).iterdir()}, {"opt"}, "outside of the prefix")
            self.assertFalse([name for name in found if name.endswith((".a", ".cc", ".py"))])
            unit = (prefix / "lib" / "systemd" / "system" / "cadre.service").read_text(encoding="utf-8")
            self.assertIn("\nExecStart=/opt/cadre/bin/cadre-server\n", unit)
            for program in ("cadre", "cadre-server"):
                done = subprocess.run([str(prefix / "bin" / program), "--version"], capture_output=True, text=True,
                                      check=True)
                self.assertIn("cadre", done.stdout)


if __name__ == "__main__":
    unittest.main()
