"""Which parts of deploy/kubernetes go together: what can be combined leads where it should, and what cannot does not
render, in any order, rather than give pods that nobody can talk to."""

import itertools
import os
import pathlib
import tempfile
import unittest

from kube_shapes import object_findings
from rendered import (EDGE_COMPONENT, EDGE_TLS_COMPONENT, KEYS_COMPONENT, KSERVE_KEYS_COMPONENT, KUBERNETES_MARK,
                      MODEL_COMPONENTS, OTHER_OVERLAYS, TLS_COMPONENT, RenderedCase, of_kind, only, overlay, rendered,
                      server_container, settings)
from tls_component_test import ServerCase

# Those that change the Deployment, and nothing of KServe's.
DEPLOYMENT_COMPONENTS = (TLS_COMPONENT, EDGE_COMPONENT, EDGE_TLS_COMPONENT, KEYS_COMPONENT, *MODEL_COMPONENTS)


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
            self.assertEqual([(port["targetPort"], port["appProtocol"]) for port in ports], [(50051, "https")] * 2)

    def test_a_gateways_pool_leads_to_the_edge(self):
        objects = combined(["cpu", "gateway"], EDGE_COMPONENT)
        self.report([f for item in objects for f in object_findings(item)])
        edge, _ = edge_of(objects)
        number, = [port["containerPort"] for port in edge["ports"]]
        self.assertEqual(only(objects, "InferencePool")["spec"]["targetPorts"], [{"number": number}])
        # Applied by itself, too.
        self.assertEqual(only(overlay("gateway"), "InferencePool")["spec"]["targetPorts"], [{"number": number}])

    def test_what_changes_a_deployment_does_not_render_beside_kserve(self):
        """It would leave KServe's runtime as it was: open, say."""
        for component in DEPLOYMENT_COMPONENTS:
            for overlays in (["kserve"], ["kserve", "cpu"]):
                self.assertIn(f"the component {component} does not go with overlays/kserve",
                              self.refused(overlays, component))
        for components in ((EDGE_COMPONENT, EDGE_TLS_COMPONENT), (KSERVE_KEYS_COMPONENT, TLS_COMPONENT),
                           (TLS_COMPONENT, KSERVE_KEYS_COMPONENT)):
            self.assertIn("does not go with overlays/kserve", self.refused(["kserve"], *components))

    def test_what_changes_a_deployment_does_not_render_without_one(self):
        for name in OTHER_OVERLAYS:
            for component in DEPLOYMENT_COMPONENTS:
                said = self.refused([name], component)
                self.assertRegex(said, "nothing selected by Deployment|does not go with overlays")

    def test_keys_for_kserve_do_not_render_without_its_runtime(self):
        for overlays in (["cpu"], ["monitoring"]):
            self.assertIn("nothing selected by ServingRuntime", self.refused(overlays, KSERVE_KEYS_COMPONENT))


class KserveKeysTest(RenderedCase, ServerCase):
    def test_keys_come_from_a_secret(self):
        objects = combined(["kserve"], KSERVE_KEYS_COMPONENT)
        self.report([f for item in objects for f in object_findings(item)])
        container, before = server_container(objects), server_container(overlay("kserve"))
        path = settings(objects)["api-keys-file"]
        self.assertEqual(container["args"], [*before["args"], f"--api-keys-file={path}"])
        mount, = container["volumeMounts"]
        self.assertEqual(mount, {"name": mount["name"], "mountPath": str(pathlib.PurePosixPath(path).parent),
                                 "readOnly": True})
        volume, = only(objects, "ServingRuntime")["spec"]["volumes"]
        self.assertEqual(volume, {"name": mount["name"],
                                  "secret": {"secretName": "cadre-api-keys", "defaultMode": 0o440}})
        group = only(objects, "InferenceService")["spec"]["predictor"]["securityContext"]["fsGroup"]
        self.assertEqual(group, container["securityContext"]["runAsGroup"], "who may read the Secret")

    def test_it_does_not_overwrite_lists_of_somebody_else(self):
        for spec in ("{containers: [{args: [a]}], volumes: [{name: own, emptyDir: {}}]}",
                     "{containers: [{args: [a], volumeMounts: [{name: own, mountPath: /own}]}]}"):
            with self.assertRaisesRegex(AssertionError, "testing value .* failed"):
                rendered("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [own.yaml]\n"
                         f"components: [{KUBERNETES_MARK}/components/{KSERVE_KEYS_COMPONENT}]\n",
                         **{"own.yaml": "apiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\n"
                                        f"metadata: {{name: cadre}}\nspec: {spec}\n"})

    def test_a_server_with_these_arguments_asks_for_a_key(self):
        path = settings(combined(["kserve"], KSERVE_KEYS_COMPONENT))["api-keys-file"]
        with tempfile.TemporaryDirectory(prefix="cadre-kserve-") as folder:
            keys = os.open(f"{folder}/keys", os.O_WRONLY | os.O_CREAT, 0o440)
            os.write(keys, b"app generation a-secret-of-many-characters\n")
            os.close(keys)
            self.start({"CADRE_API_KEYS_FILE": path}, str(pathlib.PurePosixPath(path).parent), folder)
            self.assertEqual(self.await_page("/readyz"), 200)
            self.assertEqual(self.cadre("health"), 0)
            words = ("generate", "--max-tokens", "1", "a")
            self.assertNotEqual(self.cadre(*words), 0, "no key is asked for")
            own = pathlib.Path(folder) / "own"
            own.write_text("a-secret-of-many-characters\n", encoding="utf-8")
            own.chmod(0o600)
            self.assertEqual(self.cadre("--api-key-file", own, *words), 0)


if __name__ == "__main__":
    unittest.main()
