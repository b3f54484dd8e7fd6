"""Which parts of deploy/kubernetes go together: what can be combined leads where it should, and what cannot does not
render, in any order, rather than give pods that nobody can talk to."""

import itertools
import unittest

from kube_shapes import object_findings
from rendered import (EDGE_COMPONENT, EDGE_TLS_COMPONENT, KUBERNETES_MARK, TLS_COMPONENT, RenderedCase, of_kind, only,
                      overlay, rendered)


def combined(overlays, *components):
    return rendered("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
                    f"resources: [{', '.join(f'{KUBERNETES_MARK}/overlays/{name}' for name in overlays)}]\n"
                    f"components: [{', '.join(f'{KUBERNETES_MARK}/components/{name}' for name in components)}]\n")


def edge_of(objects):
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    return next(entry for entry in pod["initContainers"] if entry["name"] == "edge"), pod["volumes"]


class CombinedComponentsTest(RenderedCase):
    def refused(self, overlays, *components):
        with self.assertRaises(AssertionError) as caught:
            combined(overlays, *components)
        return str(caught.exception)

    def test_an_edge_in_front_of_tls_does_not_render(self):
        for order in itertools.permutations((EDGE_COMPONENT, TLS_COMPONENT)):
            self.assertIn("failed" if order[0] == EDGE_COMPONENT else "missing path", self.refused(["cpu"], *order))
        for order in itertools.permutations((EDGE_COMPONENT, EDGE_TLS_COMPONENT, TLS_COMPONENT)):
            self.refused(["cpu"], *order)

    def test_tls_behind_a_gateway_does_not_render(self):
        for overlays in (["cpu", "gateway"], ["gateway", "gpu"]):
            self.assertIn("does not go with overlays", self.refused(overlays, TLS_COMPONENT))
            self.assertIn("does not go with overlays", self.refused(overlays, EDGE_COMPONENT, EDGE_TLS_COMPONENT))

    def test_tls_at_the_edge_needs_an_edge_before_it(self):
        for components in ((EDGE_TLS_COMPONENT,), (EDGE_TLS_COMPONENT, EDGE_COMPONENT)):
            self.assertIn("targetPort failed", self.refused(["cpu"], *components))

    def test_tls_at_the_edge(self):
        for name, more in (("cpu", ()), ("gpu", ("model-init", "api-keys"))):
            objects = combined([name], *more, EDGE_COMPONENT, EDGE_TLS_COMPONENT)
            self.report([f for item in objects for f in object_findings(item)])
            edge, volumes = edge_of(objects)
            words = {entry["name"]: entry["value"] for entry in edge["env"]}["CADRE_EDGE_TLS"].split()
            self.assertEqual((words[:2], words[3:]), (["ssl", "crt"], ["alpn", "h2"]))
            mount, = [entry for entry in edge["volumeMounts"] if entry["name"] == "edge-tls"]
            secret, = [volume["secret"] for volume in volumes if volume["name"] == "edge-tls"]
            # HAProxy looks for the key beside the certificate, under this name.
            files = {entry["key"]: f"{mount['mountPath']}/{entry['path']}" for entry in secret["items"]}
            self.assertEqual(files, {"tls.crt": words[2], "tls.key": f"{words[2]}.key"})
            self.assertEqual(secret["secretName"], "cadre-tls")
            ports = [port for service in of_kind(objects, "Service") for port in service["spec"]["ports"]]
            self.assertEqual([(port["targetPort"], port["appProtocol"]) for port in ports], [("edge", "https")] * 2)

    def test_a_gateways_pool_leads_to_the_edge(self):
        objects = combined(["cpu", "gateway"], EDGE_COMPONENT)
        self.report([f for item in objects for f in object_findings(item)])
        edge, _ = edge_of(objects)
        number, = [port["containerPort"] for port in edge["ports"]]
        self.assertEqual(only(objects, "InferencePool")["spec"]["targetPorts"], [{"number": number}])
        self.assertNotEqual(only(overlay("gateway"), "InferencePool")["spec"]["targetPorts"], [{"number": number}])


if __name__ == "__main__":
    unittest.main()
