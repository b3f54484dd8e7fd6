"""The component `edge` of deploy/kubernetes, and the service `edge` of docker/compose.yaml: both run the configuration
of deploy/haproxy, and nothing leads around it."""

import os
import pathlib
import re
import shutil
import subprocess
import time
import unittest

from kube_shapes import object_findings
from rendered import (EDGE_COMPONENT, EDGE_TLS_COMPONENT, KUBERNETES_MARK, ROOT, SERVER_OVERLAYS, TLS_COMPONENT,
                      RenderedCase, of_kind, only, overlay, rendered, server_container, settings, variables_of,
                      with_component, yaml)
from settings_test import free_port
from tls_component_test import ServerCase

CONFIG_PATH = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
CONFIG = CONFIG_PATH.read_text(encoding="utf-8")
DEFAULTS = dict(re.findall(r"\$\{(CADRE_EDGE_\w+)-([^}]*)\}", CONFIG))
# The exit code of `cadre` where nobody answers.
UNAVAILABLE = 69
OTHER_SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: cadre-endpoint-picker, namespace: cadre}
spec:
  selector: {app: picker}
  ports: [{name: grpc, port: 9002, targetPort: picker, appProtocol: kubernetes.io/h2c}]
"""
IMAGE = r"^(docker\.io/library/)?haproxy:\d+\.\d+(\.\d+)?$"


def pod_of(objects):
    return only(objects, "Deployment")["spec"]["template"]["spec"]


def option_of(variable):
    return variable.removeprefix("CADRE_").lower().replace("_", "-")


class EdgeComponentTest(RenderedCase):
    def test_it_renders_to_known_keys(self):
        for name in SERVER_OVERLAYS:
            self.report([f for item in with_component(name, EDGE_COMPONENT) for f in object_findings(item)])

    def test_the_sidecar_starts_first_and_ends_last(self):
        for name in SERVER_OVERLAYS:
            edge, = pod_of(with_component(name, EDGE_COMPONENT))["initContainers"]
            self.assertEqual((edge["name"], edge["restartPolicy"]), ("edge", "Always"))
            self.assertRegex(edge["image"], IMAGE)
            self.assertEqual(edge["securityContext"], {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
            self.assertEqual(edge["resources"]["requests"]["memory"], edge["resources"]["limits"]["memory"])

    def test_it_runs_the_shipped_configuration(self):
        objects = with_component("cpu", EDGE_COMPONENT)
        pod = pod_of(objects)
        edge, = pod["initContainers"]
        mount, = edge["volumeMounts"]
        name, = [v["configMap"]["name"] for v in pod["volumes"] if v["name"] == mount["name"]]
        data, = [i["data"] for i in of_kind(objects, "ConfigMap") if i["metadata"]["name"] == name]
        self.assertEqual(data, {"haproxy.cfg": CONFIG})
        self.assertIn(f"{mount['mountPath']}/haproxy.cfg", edge["args"])

    def test_it_takes_over_the_servers_port(self):
        """Clients of a headless service put its port to the addresses of pods: targetPort is nothing to them."""
        for name in SERVER_OVERLAYS:
            objects = with_component(name, EDGE_COMPONENT)
            edge, = pod_of(objects)["initContainers"]
            port = int(settings(overlay(name))["port"])
            self.assertEqual(edge["ports"], [{"name": "edge", "containerPort": port}])
            self.assertEqual(variables_of(edge)["CADRE_EDGE_BIND"], f":{port}")
            services = of_kind(objects, "Service")
            self.assertEqual({service["metadata"]["name"] for service in services}, {"cadre", "cadre-headless"})
            for service in services:
                # Numbers: Kubernetes 1.29 to 1.31 find no names of a sidecar's ports.
                self.assertEqual([(p["port"], p["targetPort"]) for p in service["spec"]["ports"]], [(port, port)])
            ports = [p["port"] for rule in only(objects, "NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]]
            self.assertEqual(ports, [port, "metrics"])

    def test_the_server_is_reached_through_it_alone(self):
        for name in SERVER_OVERLAYS:
            objects = with_component(name, EDGE_COMPONENT)
            edge, = pod_of(objects)["initContainers"]
            server, said, before = server_container(objects), settings(objects), settings(overlay(name))
            own = {**said, **{option_of(key): value for key, value in variables_of(server).items()}}
            self.assertEqual((own["host"], own["metrics-host"]), ("127.0.0.1", "0.0.0.0"))
            self.assertNotEqual(own["port"], before["port"])
            self.assertEqual((variables_of(edge)["CADRE_EDGE_PORT"], DEFAULTS["CADRE_EDGE_METRICS_PORT"]),
                             (own["port"], own["metrics-port"]))
            self.assertEqual(DEFAULTS["CADRE_EDGE_SERVER"], own["host"])
            self.assertEqual(variables_of(server)["CADRE_ADDRESS"], f"{own['host']}:{own['port']}")
            self.assertEqual([port["name"] for port in server["ports"]], ["metrics"])
            # The kubelet asks the pod's address, where nothing else of the server listens.
            for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
                found = {key: server[f"{probe}Probe"].get(key) for key in ("grpc", "httpGet")}
                self.assertEqual(found, {"grpc": None, "httpGet": {"path": path, "port": "metrics"}})
            changed = {"env", "ports", "startupProbe", "readinessProbe", "livenessProbe"}
            self.assertEqual({k: v for k, v in server.items() if k not in changed},
                             {k: v for k, v in server_container(overlay(name)).items() if k not in changed})

    def test_services_of_others_are_left_alone(self):
        for components in (EDGE_COMPONENT,), (EDGE_COMPONENT, EDGE_TLS_COMPONENT), (TLS_COMPONENT,):
            objects = rendered(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
                f"resources: [{KUBERNETES_MARK}/overlays/cpu, other.yaml]\n"
                f"components: [{', '.join(f'{KUBERNETES_MARK}/components/{name}' for name in components)}]\n",
                **{"other.yaml": OTHER_SERVICE})
            other, = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == "cadre-endpoint-picker"]
            self.assertEqual(other["spec"], yaml.safe_load(OTHER_SERVICE)["spec"])


@unittest.skipUnless(shutil.which("haproxy"), "haproxy is not installed")
class RunningPodTest(RenderedCase, ServerCase):
    def test_every_address_of_the_pod_leads_to_the_edge(self):
        """Both programs with what the pod gives them. 127.0.0.2 plays the pod's address: who listens on all addresses
        is reached there, who listens on 127.0.0.1 is not."""
        objects = with_component("cpu", EDGE_COMPONENT)
        server = variables_of(server_container(objects))
        edge, = pod_of(objects)["initContainers"]
        self.start({name: server[name] for name in ("CADRE_HOST", "CADRE_METRICS_HOST")}, "/", pathlib.Path("/"))
        self.assertEqual(self.await_page("/readyz", "127.0.0.2"), 200)
        port = free_port()
        process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(CONFIG_PATH)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **variables_of(edge), "CADRE_EDGE_BIND": f":{port}", "CADRE_EDGE_PORT": str(self.port),
                 "CADRE_EDGE_METRICS_PORT": str(self.metrics_port)})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        end = time.monotonic() + 30
        while (code := self.cadre("health", address=f"127.0.0.2:{port}")) != 0 and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(code, 0)
        self.assertEqual(self.cadre("experts", address=f"127.0.0.1:{self.port}"), 0, "an operator inside the pod")
        self.assertNotEqual(self.cadre("experts", address=f"127.0.0.2:{port}"), 0, "the edge lets operators' calls in")
        self.assertEqual(self.cadre("health", "--timeout", "2s", address=f"127.0.0.2:{self.port}"), UNAVAILABLE,
                         "the server is reached past the edge")


@unittest.skipIf(yaml is None, "needs Python's yaml (Debian's package python3-yaml)")
class ComposeEdgeTest(unittest.TestCase):
    def test_it_runs_the_shipped_configuration(self):
        services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
        edge = services["edge"]
        self.assertRegex(edge["image"], IMAGE)
        self.assertEqual(edge["profiles"], ["edge"])
        mounts = [volume.split(":") for volume in edge["volumes"]]
        self.assertEqual([mode for _, _, mode in mounts], ["ro"])
        self.assertEqual((ROOT / "docker" / mounts[0][0]).resolve(), CONFIG_PATH)
        self.assertIn(mounts[0][1], edge["command"])
        self.assertLessEqual(set(edge["environment"]), set(DEFAULTS))
        self.assertIn(edge["environment"]["CADRE_EDGE_SERVER"], services)
        self.assertTrue(edge["ports"][0].endswith(DEFAULTS["CADRE_EDGE_BIND"]))


if __name__ == "__main__":
    unittest.main()
