"""TLS in deployments: the component `tls` of deploy/kubernetes and docker/compose.tls.yaml. Both are rendered or
merged and held to what they say, and a server is started with their settings and certificates, and probed as it
would be."""

import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from kube_shapes import object_findings
from rendered import (KEYS_COMPONENT, KUBERNETES_MARK, ROOT, SERVER_OVERLAYS, TLS_COMPONENT, RenderedCase, of_kind,
                      only, overlay, rendered, server_container, variables_of, with_component, yaml)
from settings_test import BIN, environment, free_port

PROBES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
BOTH = ("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{KUBERNETES_MARK}/overlays/cpu]\n"
        f"components: [{KUBERNETES_MARK}/components/{TLS_COMPONENT}, {KUBERNETES_MARK}/components/{KEYS_COMPONENT}]\n")


def make_certificate(folder, cert, key):
    """For 127.0.0.1, signed by itself: its own authority."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=cadre", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", folder / key, "-out", folder / cert], check=True, capture_output=True)
    (folder / key).chmod(0o400)


class ServerCase:
    """A server with variables of a deployment, whose paths are those of a folder here."""

    def start(self, variables, inside, folder):
        self.port, self.metrics_port = free_port(), free_port()
        options = {**environment({"model": "sim", "port": str(self.port), "metrics-port": str(self.metrics_port)}),
                   **{name: re.sub(f"^{re.escape(inside)}/", f"{folder}/", value) for name, value in variables.items()}}
        server = subprocess.Popen([str(BIN / "cadre-server")], env=options, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

    def page(self, path, host="127.0.0.1"):
        try:
            with urllib.request.urlopen(f"http://{host}:{self.metrics_port}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def await_page(self, path, host="127.0.0.1"):
        end = time.monotonic() + 60
        while self.page(path, host) != 200 and time.monotonic() < end:
            time.sleep(0.1)
        return self.page(path, host)

    def cadre(self, *words, address=None):
        address = address or f"127.0.0.1:{self.port}"
        return subprocess.run([str(BIN / "cadre"), "--address", address, *map(str, words)],
                              env=environment({}), capture_output=True, check=False, timeout=60).returncode


class TlsComponentTest(RenderedCase, ServerCase):
    def test_it_renders_to_known_keys_with_and_without_keys(self):
        for name in SERVER_OVERLAYS:
            self.report([f for item in with_component(name, TLS_COMPONENT) for f in object_findings(item)])
        both = rendered(BOTH)
        self.report([f for item in both for f in object_findings(item)])
        self.assertEqual(set(variables_of(server_container(both))),
                         {"CADRE_TLS_CERT", "CADRE_TLS_KEY", "CADRE_API_KEYS_FILE"})
        volumes = only(both, "Deployment")["spec"]["template"]["spec"]["volumes"]
        self.assertEqual({volume["name"] for volume in volumes}, {"model", "tls", "api-keys"})

    def test_files_come_from_a_secret(self):
        for name in SERVER_OVERLAYS:
            pod = only(with_component(name, TLS_COMPONENT), "Deployment")["spec"]["template"]["spec"]
            container, = pod["containers"]
            mount, = [entry for entry in container["volumeMounts"] if entry["name"] == "tls"]
            # A file that is mounted by itself never changes.
            self.assertNotIn("subPath", mount)
            # As Secrets of the type kubernetes.io/tls name them.
            self.assertEqual(variables_of(container), {"CADRE_TLS_CERT": f"{mount['mountPath']}/tls.crt",
                                                       "CADRE_TLS_KEY": f"{mount['mountPath']}/tls.key"})
            secret, = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "tls"]
            self.assertEqual(secret, {"secretName": "cadre-tls", "defaultMode": 0o440})
            self.assertIn("fsGroup", pod["securityContext"])

    def test_probes_ask_the_port_that_speaks_no_tls(self):
        for name in SERVER_OVERLAYS:
            container = server_container(with_component(name, TLS_COMPONENT))
            for probe, path in PROBES.items():
                before = server_container(overlay(name))[probe]
                times = {key: value for key, value in before.items() if key != "grpc"}
                self.assertEqual(container[probe], {**times, "httpGet": {"path": path, "port": "metrics"}}, name)
            self.assertIn("metrics", {port["name"] for port in container["ports"]})

    def test_nobody_is_told_that_it_is_plaintext(self):
        for name in SERVER_OVERLAYS:
            ports = [port for service in of_kind(with_component(name, TLS_COMPONENT), "Service")
                     for port in service["spec"]["ports"]]
            self.assertEqual([port["appProtocol"] for port in ports], ["https", "https"])

    def test_a_server_with_these_settings_speaks_tls_and_answers_its_probes(self):
        container = server_container(with_component("cpu", TLS_COMPONENT))
        with tempfile.TemporaryDirectory(prefix="cadre-tls-") as text:
            folder = pathlib.Path(text)
            make_certificate(folder, "tls.crt", "tls.key")
            self.start(variables_of(container), "/etc/cadre/tls", folder)
            for probe in PROBES:
                self.assertEqual(self.await_page(container[probe]["httpGet"]["path"]), 200, probe)
            self.assertEqual(self.cadre("--tls-ca", folder / "tls.crt", "health"), 0)
            self.assertNotEqual(self.cadre("health", "--timeout", "2s"), 0, "plaintext is answered")


@unittest.skipIf(yaml is None, "needs Python's yaml (Debian's package python3-yaml)")
class ComposeTlsTest(unittest.TestCase, ServerCase):
    @classmethod
    def setUpClass(cls):
        base, over = (yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8"))["services"]
                      for name in ("compose.yaml", "compose.tls.yaml"))
        cls.base, cls.services = base["server"], over
        cls.server = over["server"]
        mount, = cls.server["volumes"]
        cls.source, cls.inside, mode = re.fullmatch(r"(\$\{.*\}):([^:]+):(\w+)", mount).groups()
        assert mode == "ro"

    def test_it_adds_to_the_server_and_takes_nothing_away(self):
        self.assertEqual(set(self.services), {"server"})
        self.assertEqual(set(self.server["environment"]) & set(self.base["environment"]), set())
        for path in self.server["environment"].values():
            self.assertTrue(path.startswith(self.inside + "/"), path)
        # No folder of the build's context: keys would get into the image.
        self.assertRegex(self.source, r"^\$\{CADRE_TLS_FOLDER:\?")
        inside = self.base["environment"].get("CADRE_PORT", "50051")
        host, port = self.server["ports"][0].split(":")
        self.assertEqual(port, inside)
        self.assertNotIn(host, [entry.split(":")[1] for entry in self.base["ports"]])

    def test_its_health_check_passes_where_the_images_own_would_not(self):
        kind, program, *words = self.server["healthcheck"]["test"]
        self.assertEqual((kind, program), ("CMD", "/usr/bin/cadre"))
        with tempfile.TemporaryDirectory(prefix="cadre-tls-") as text:
            folder = pathlib.Path(text)
            make_certificate(folder, "server.crt", "server.key")
            (folder / "ca.crt").write_bytes((folder / "server.crt").read_bytes())
            keys = os.open(folder / "keys", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(keys, b"app generation a-secret-of-many-characters\n")
            os.close(keys)
            self.start(self.server["environment"], self.inside, folder)
            self.assertEqual(self.await_page("/readyz"), 200)
            words = [word.replace(self.inside, str(folder)) for word in words]
            self.assertEqual(self.cadre(*words), 0)
            self.assertNotEqual(self.cadre("health", "--timeout", "2s"), 0)
            ca = ["--tls-ca", folder / "ca.crt"]
            self.assertNotEqual(self.cadre(*ca, "generate", "--max-tokens", "1", "a"), 0, "no key is asked for")
            (folder / "own").write_text("a-secret-of-many-characters\n", encoding="utf-8")
            (folder / "own").chmod(0o600)
            self.assertEqual(self.cadre(*ca, "--api-key-file", folder / "own", "generate", "--max-tokens", "1", "a"), 0)


if __name__ == "__main__":
    unittest.main()
