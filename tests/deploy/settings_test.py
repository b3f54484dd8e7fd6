"""The settings of the manifests and of the image against the server itself: each is an option, with a value that it
takes, and probes are answered as a kubelet would ask.

Needs the programs in build/release/bin, or in the folder named by CADRE_BIN.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import unittest

from rendered import ROOT, RenderedCase, overlay, server_container, settings

BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "release" / "bin"))
MODEL_NOT_FOUND, USAGE = 66, 64


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(options):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CADRE_")}
    return {**clean, **{"CADRE_" + name.upper().replace("-", "_"): value for name, value in options.items()}}


class SettingsTest(RenderedCase):
    def test_every_setting_is_an_option(self):
        text = subprocess.run([str(BIN / "cadre-server"), "--help"], capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"--([a-z][a-z0-9-]+)", text))
        variables = set(re.findall(r"Env:CADRE_(\w+)", text))
        for name in ("cpu", "gpu", "kserve"):
            for option in settings(overlay(name)):
                self.assertIn(option, options, name)
                self.assertIn(option.upper().replace("-", "_"), variables, name)

    def test_every_value_is_taken(self):
        """With a model that does not exist: values are looked at before it."""
        for name in ("cpu", "kserve"):
            options = {**settings(overlay(name)), "model": "/nonexistent", "port": "0", "metrics-port": "0"}
            done = subprocess.run([str(BIN / "cadre-server")], env=environment(options), capture_output=True, text=True,
                                  check=False, timeout=60)
            self.assertEqual(done.returncode, MODEL_NOT_FOUND, f"{name}: {done.stderr}")
        done = subprocess.run([str(BIN / "cadre-server")], env=environment({**options, "drain-delay": "soon"}),
                              capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, USAGE, "what is no duration is refused, or this test could not fail")

    def test_a_server_with_these_settings_answers_its_probes_and_drains(self):
        port = free_port()
        options = {**settings(overlay("cpu")), "model": str(ROOT / "models" / "demo"), "port": str(port),
                   "metrics-port": "0", "threads": "1", "kv-cache-gb": "0.05", "drain-delay": "100ms"}
        server = subprocess.Popen([str(BIN / "cadre-server")], env=environment(options), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            container = server_container(overlay("cpu"))
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.assertEqual(self.health(port, container[probe]["grpc"]["service"]), 0, probe)
            self.assertNotEqual(self.health(port, "readynes", tries=1), 0, "any name is answered")
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(timeout=60), 0)
        finally:
            server.kill()
            server.wait()

    @staticmethod
    def health(port, service, tries=300):
        """The exit code of `cadre health`, once it is 0 or the tries (a tenth of a second each) are used up."""
        for _ in range(tries):
            code = subprocess.run(
                [str(BIN / "cadre"), "--address", f"127.0.0.1:{port}", "health", "--service", service],
                env=environment({}), capture_output=True, check=False, timeout=60).returncode
            if code == 0:
                break
            time.sleep(0.1)
        return code


if __name__ == "__main__":
    unittest.main()
