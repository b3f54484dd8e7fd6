"""The component `edge` of deploy/kubernetes, and the service `edge` of docker/compose.yaml: both run the configuration
of deploy/haproxy, and nothing leads around it."""

import re
import unittest

from kube_shapes import object_findings
from rendered import (EDGE_COMPONENT, ROOT, SERVER_OVERLAYS, RenderedCase, of_kind, only, overlay, server_container,
                      settings, with_component, yaml)

CONFIG = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
DEFAULTS = dict(re.findall(r"\$\{(CADRE_EDGE_\w+)-([^}]*)\}", CONFIG))
IMAGE = r"^(docker\.io/library/)?haproxy:\d+\.\d+(\.\d+)?$"


def pod_of(objects):
    return only(objects, "Deployment")["spec"]["template"]["spec"]


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

    def test_its_ports_are_the_servers(self):
        for name in SERVER_OVERLAYS:
            objects = with_component(name, EDGE_COMPONENT)
            edge, = pod_of(objects)["initContainers"]
            self.assertEqual(edge["ports"], [{"name": "edge", "containerPort": int(DEFAULTS["CADRE_EDGE_BIND"][1:])}])
            options = settings(objects)
            self.assertEqual((DEFAULTS["CADRE_EDGE_PORT"], DEFAULTS["CADRE_EDGE_METRICS_PORT"]),
                             (options["port"], options["metrics-port"]))
            self.assertEqual(server_container(objects), server_container(overlay(name)), "the server is as without it")

    def test_nothing_leads_around_it(self):
        for name in SERVER_OVERLAYS:
            objects = with_component(name, EDGE_COMPONENT)
            for service in of_kind(objects, "Service"):
                self.assertEqual([port["targetPort"] for port in service["spec"]["ports"]], ["edge"])
            ports = [p["port"] for rule in only(objects, "NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]]
            self.assertEqual(ports, ["edge", "metrics"])


@unittest.skipIf(yaml is None, "needs Python's yaml (Debian's package python3-yaml)")
class ComposeEdgeTest(unittest.TestCase):
    def test_it_runs_the_shipped_configuration(self):
        services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
        edge = services["edge"]
        self.assertRegex(edge["image"], IMAGE)
        self.assertEqual(edge["profiles"], ["edge"])
        mounts = [volume.split(":") for volume in edge["volumes"]]
        self.assertEqual([mode for _, _, mode in mounts], ["ro"])
        self.assertEqual((ROOT / "docker" / mounts[0][0]).resolve(), ROOT / "deploy" / "haproxy" / "haproxy.cfg")
        self.assertIn(mounts[0][1], edge["command"])
        self.assertLessEqual(set(edge["environment"]), set(DEFAULTS))
        self.assertIn(edge["environment"]["CADRE_EDGE_SERVER"], services)
        self.assertTrue(edge["ports"][0].endswith(DEFAULTS["CADRE_EDGE_BIND"]))


if __name__ == "__main__":
    unittest.main()
