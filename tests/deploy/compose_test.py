"""docker/compose.yaml and compose.tls.yaml as composers read them: keys and types by the specification's schema, which
they carry, and the two files merged. Nothing is started.

Needs `docker compose`, or Debian's package docker-compose; skipped, with the reason, without either.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

try:
    import yaml
except ImportError:
    yaml = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BASE, TLS = "compose.yaml", "compose.tls.yaml"


def composer():
    """The words that begin a composer's command, or None."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and subprocess.run([*words, "version"], capture_output=True,
                                                     check=False).returncode == 0:
            return words
    return None


@unittest.skipIf(yaml is None, "needs Python's yaml (Debian's package python3-yaml)")
class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.composer = composer()
        if cls.composer is None:
            raise unittest.SkipTest("needs docker compose, or docker-compose (Debian's package of that name)")
        version = subprocess.run([*cls.composer, "version", "--short"], capture_output=True, text=True,
                                 check=True).stdout
        # The specification has it since 2021, and docker-compose 1.29 does not know it yet.
        cls.knows_names = not version.strip().startswith("1.")
        folder = tempfile.TemporaryDirectory(prefix="cadre-compose-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def config(self, *names, change=lambda text: text, **variables):
        """(exit code, services after merging, what is said of mistakes)"""
        files = []
        for name in names:
            text = (DOCKER / name).read_text(encoding="utf-8")
            if not self.knows_names:
                text = re.sub(r"^name: .*\n", "", text, flags=re.M)
            (self.folder / name).write_text(change(text), encoding="utf-8")
            files += ["-f", str(self.folder / name)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CADRE_", "COMPOSE_"))}
        done = subprocess.run([*self.composer, *files, "--profile", "edge", "config"], env={**clean, **variables},
                              capture_output=True, text=True, check=False, timeout=60)
        services = yaml.safe_load(done.stdout)["services"] if done.returncode == 0 else {}
        for service in services.values():
            for key in {"ports", "volumes"} & set(service):
                service[key].sort(key=str)  # docker-compose has them in any order
        return done.returncode, services, done.stderr

    def test_it_is_of_the_specification(self):
        code, services, said = self.config(BASE)
        self.assertEqual((code, said), (0, ""))
        kept = yaml.safe_load((DOCKER / BASE).read_text(encoding="utf-8"))["services"]
        self.assertEqual(set(services), set(kept))

    def test_mistakes_are_found(self):
        """Whether the test above can fail."""
        for old, new in (("cap_drop", "cap_drip"), ("read_only: true", "read_only: [1]"), ("depends_on", "depend_on"),
                         ("depends_on: [prometheus]", "depends_on: [prometheuse]"), ("services:", "servises:")):
            code, _, said = self.config(BASE, change=lambda text, o=old, n=new: text.replace(o, n))
            self.assertNotEqual(code, 0, f"{old!r} -> {new!r}")
            self.assertNotEqual(said, "")

    def test_tls_is_added_to_the_server_alone(self):
        _, before, _ = self.config(BASE)
        code, after, said = self.config(BASE, TLS, CADRE_TLS_FOLDER="/etc/cadre/tls")
        self.assertEqual((code, said), (0, ""))
        self.assertEqual({name: service for name, service in after.items() if name != "server"},
                         {name: service for name, service in before.items() if name != "server"})
        added = yaml.safe_load((DOCKER / TLS).read_text(encoding="utf-8"))["services"]["server"]
        self.assertEqual(after["server"]["environment"], {**before["server"]["environment"], **added["environment"]})
        self.assertEqual(after["server"]["healthcheck"]["test"], added["healthcheck"]["test"])
        for key in ("ports", "volumes"):
            self.assertEqual(len(after["server"][key]), len(before["server"][key]) + 1, key)
        for key in ("cap_drop", "security_opt", "read_only", "mem_limit", "stop_grace_period"):
            self.assertEqual(after["server"][key], before["server"][key], key)

    def test_tls_without_a_folder_says_what_belongs_into_it(self):
        code, _, said = self.config(BASE, TLS)
        self.assertNotEqual(code, 0)
        self.assertIn("the folder of server.crt, server.key, ca.crt and keys", said)


if __name__ == "__main__":
    unittest.main()
