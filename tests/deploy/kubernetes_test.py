"""The manifests of deploy/kubernetes: every overlay renders, every key is one that Kubernetes knows, and what has to
agree does: labels, ports, probes, times, settings, names of metrics.

Needs kubectl 1.27 or newer (no cluster) and Python's yaml; skipped, with the reason, where one is missing.
"""

import json
import re
import subprocess
import sys
import unittest

from kube_shapes import object_findings
from rendered import (EDGE_COMPONENT, EDGE_TLS_COMPONENT, KEYS_COMPONENT, KSERVE_KEYS_COMPONENT, KUBERNETES,
                      KUBERNETES_MARK, MODEL_COMPONENTS, OTHER_OVERLAYS, ROOT, SERVER_OVERLAYS, TLS_COMPONENT,
                      RenderedCase, of_kind, only, overlay, rendered, seconds, server_container, settings,
                      with_component)

SERVING = (*SERVER_OVERLAYS, "kserve")


def declared_metrics():
    text = (ROOT / "server" / "metric_names.h").read_text(encoding="utf-8")
    names = set()
    for kind, name in re.findall(r'CADRE_(COUNTER|GAUGE|HISTOGRAM)_\(\w+,\s*"(\w+)"', text):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "HISTOGRAM" else {name}
    return names


def health_services():
    text = (ROOT / "server" / "health.cc").read_text(encoding="utf-8")
    return set(re.findall(r'"([\w.]*)"', text[text.index("kReadinessNames"):]))


def expressions(objects):
    """[(where, PromQL or the name of a metric)]"""
    found = []
    for item in of_kind(objects, "HorizontalPodAutoscaler"):
        found += [("HorizontalPodAutoscaler", metric["pods"]["metric"]["name"]) for metric in item["spec"]["metrics"]]
    for item in of_kind(objects, "ScaledObject"):
        found += [(trigger["name"], trigger["metadata"]["query"]) for trigger in item["spec"]["triggers"]]
    for item in of_kind(objects, "PrometheusRule"):
        found += [(rule["alert"], rule["expr"]) for group in item["spec"]["groups"] for rule in group["rules"]]
    return found


def selectors(item):
    """[labels] by which an object chooses pods of the server."""
    spec = item.get("spec", {})
    if item["kind"] == "Service":
        return [spec["selector"]]
    own = [spec[key]["matchLabels"] for key in ("selector", "podSelector") if key in spec]
    if item["kind"] == "Deployment":
        own += [c["labelSelector"]["matchLabels"] for c in spec["template"]["spec"]["topologySpreadConstraints"]]
    return own


class StructureTest(RenderedCase):
    def test_every_overlay_renders_to_known_keys(self):
        found = []
        for name in (*SERVER_OVERLAYS, *OTHER_OVERLAYS):
            found += [f"{name}: {finding}" for item in overlay(name) for finding in object_findings(item)]
        self.report(found)

    def test_every_component_renders_to_known_keys(self):
        for component in MODEL_COMPONENTS:
            for name in SERVER_OVERLAYS:
                objects = with_component(name, component)
                self.report([f"{name}+{component}: {f}" for item in objects for f in object_findings(item)])
                volume, = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
                self.assertEqual(len(volume), 2, f"{name}+{component}: the model comes from two places: {volume}")
                self.assertNotIn("persistentVolumeClaim", volume)

    def test_keys_come_from_a_secret(self):
        for name in SERVER_OVERLAYS:
            objects = with_component(name, KEYS_COMPONENT)
            self.report([f"{name}: {finding}" for item in objects for finding in object_findings(item)])
            pod = only(objects, "Deployment")["spec"]["template"]["spec"]
            container, = pod["containers"]
            path, = [entry["value"] for entry in container["env"] if entry["name"] == "CADRE_API_KEYS_FILE"]
            mount, = [entry for entry in container["volumeMounts"] if path.startswith(entry["mountPath"] + "/")]
            # A file that is mounted by itself never changes.
            self.assertNotIn("subPath", mount)
            secret, = [volume["secret"] for volume in pod["volumes"] if volume["name"] == mount["name"]]
            # The server reads it as the pod's group, and refuses one that the group may write.
            self.assertEqual(secret["defaultMode"], 0o440)
            self.assertIn("fsGroup", pod["securityContext"])

    def test_no_folder_is_left_out(self):
        components = (*MODEL_COMPONENTS, EDGE_COMPONENT, EDGE_TLS_COMPONENT, KEYS_COMPONENT, KSERVE_KEYS_COMPONENT,
                      TLS_COMPONENT)
        for kind, listed in (("overlays", SERVER_OVERLAYS + OTHER_OVERLAYS), ("components", components)):
            there = {str(path.parent.relative_to(KUBERNETES / kind))
                     for path in (KUBERNETES / kind).rglob("kustomization.yaml")}
            self.assertEqual(there, set(listed))

    def test_examples_of_the_documentation_render(self):
        examples = []
        for page in (ROOT / "docs" / "deploy.md", KUBERNETES / "README.md"):
            for text in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
                examples += [text] if "kind: Kustomization" in text else []
        self.assertEqual(len(examples), 2)
        for text in examples:
            with self.subTest(text=text):
                objects = rendered(re.sub(r"(?:\.\.|path/to)/cadre/deploy/kubernetes", KUBERNETES_MARK, text))
                self.report([f for item in objects for f in object_findings(item)])
                self.assertRegex(server_container(objects)["image"], "^YOUR/REGISTRY/cadre:")
                self.assertNotEqual(settings(objects)["served-model-name"], "model", "the example's own setting")
                self.assertEqual(settings(objects)["port"], "50051", "a setting of the base")

    def test_the_shapes_find_mistakes(self):
        """Whether the test above can fail."""
        good = overlay("cpu")
        spoilers = [
            lambda pod: pod["containers"][0]["startupProbe"].update(grcp={}),
            lambda pod: pod["containers"][0]["readinessProbe"]["grpc"].update(port="grpc"),
            lambda pod: pod["containers"][0]["resources"]["limits"].update(cpu=8),
            lambda pod: pod["containers"][0].pop("image"),
            lambda pod: pod.update(terminationGracePeriod=3),
            lambda pod: pod.update(automountServiceAccountToken="false"),
            lambda pod: pod.update(securityContext={"runAsUser": 0}),
        ]
        for number, spoil in enumerate(spoilers):
            copy = json.loads(json.dumps(only(good, "Deployment")))
            self.assertEqual(object_findings(copy), [])
            spoil(copy["spec"]["template"]["spec"])
            self.assertEqual(len(object_findings(copy)), 1, f"mistake {number}: {object_findings(copy)}")


class AgreementTest(RenderedCase):
    def test_selectors_find_the_pods_of_the_server(self):
        for name in SERVER_OVERLAYS:
            labels = only(overlay(name), "Deployment")["spec"]["template"]["metadata"]["labels"].items()
            for other in (name, "monitoring", "gateway"):
                for item in overlay(other):
                    for selector in selectors(item):
                        self.assertTrue(selector, f"{other}: {item['kind']} selects every pod")
                        self.assertLessEqual(selector.items(), labels, f"{other}: {item['kind']}")

    def test_ports_are_those_that_the_server_listens_on(self):
        for name in SERVING:
            options = settings(overlay(name))
            self.assertEqual(options["host"], "0.0.0.0", "the loopback interface of a pod is reached by nobody")
            container = server_container(overlay(name))
            ports = {port["containerPort"] for port in container["ports"]}
            self.assertIn(int(options["port"]), ports)
            self.assertLessEqual(ports, {int(options["port"]), int(options["metrics-port"])})
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.assertEqual(container[probe]["grpc"]["port"], int(options["port"]), f"{name}: {probe}")
        pool = only(overlay("gateway"), "InferencePool")["spec"]
        self.assertEqual(pool["targetPorts"], [{"number": int(settings(overlay("cpu"))["port"])}])
        annotations = only(overlay("kserve"), "ServingRuntime")["spec"]["annotations"]
        self.assertEqual(annotations["prometheus.kserve.io/port"], settings(overlay("kserve"))["metrics-port"])

    def test_names_of_ports_exist(self):
        for name in SERVER_OVERLAYS:
            ports = {p["name"]: p["containerPort"] for p in server_container(overlay(name))["ports"]}
            services = of_kind(overlay(name), "Service")
            self.assertEqual(len(services), 2)
            for port in (port for service in services for port in service["spec"]["ports"]):
                self.assertEqual(ports[port["targetPort"]], port["port"])
                self.assertEqual(port["appProtocol"], "kubernetes.io/h2c", "gRPC without TLS")
            for item in of_kind(overlay(name), "NetworkPolicy") + of_kind(overlay("gateway"), "NetworkPolicy"):
                for rule in item["spec"]["ingress"]:
                    self.assertLessEqual({port["port"] for port in rule["ports"]}, set(ports))
            for endpoint in only(overlay("monitoring"), "PodMonitor")["spec"]["podMetricsEndpoints"]:
                self.assertEqual(endpoint["port"], "metrics")
        rules = only(overlay("gateway"), "GRPCRoute")["spec"]["rules"]
        for ref in (ref for rule in rules for ref in rule["backendRefs"]):
            kind = ref.get("kind", "Service")
            names = [i["metadata"]["name"] for i in of_kind(overlay("cpu") + overlay("gateway"), kind)]
            self.assertIn(ref["name"], names)

    def test_probes_ask_what_the_server_answers(self):
        known = health_services()
        self.assertLessEqual({"", "readiness", "liveness"}, known)
        for name in SERVING:
            container = server_container(overlay(name))
            asked = {probe: container[f"{probe}Probe"]["grpc"]["service"]
                     for probe in ("startup", "readiness", "liveness")}
            self.assertLessEqual(set(asked.values()), known, name)
            # While it drains or loads a pod is not ready, and must not be restarted for it.
            self.assertEqual(asked, {"startup": "readiness", "readiness": "readiness", "liveness": "liveness"}, name)

    def test_a_drain_ends_before_the_pod_is_killed(self):
        for name in SERVING:
            options = settings(overlay(name))
            needed = seconds(options["drain-delay"]) + seconds(options["drain-timeout"])
            if name == "kserve":
                grace = only(overlay(name), "InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"]
            else:
                grace = only(overlay(name), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            self.assertGreaterEqual(grace, needed + 10, f"{name}: {needed} s to drain")
            probe = server_container(overlay(name))["readinessProbe"]
            self.assertGreaterEqual(seconds(options["drain-delay"]), probe["periodSeconds"] * probe["failureThreshold"],
                                    f"{name}: refuses before it is seen to be unready")
            self.assertNotIn("lifecycle", server_container(overlay(name)))

    def test_the_model_is_where_the_server_looks(self):
        for name in SERVER_OVERLAYS:
            for objects in (overlay(name), *(with_component(name, c) for c in MODEL_COMPONENTS)):
                mount, = server_container(objects)["volumeMounts"]
                self.assertEqual(mount["mountPath"], settings(objects)["model"])
                self.assertIs(mount["readOnly"], True)
        self.assertEqual(settings(overlay("kserve"))["model"], "/mnt/models")

    def test_scalers_name_the_deployment(self):
        name = only(overlay("cpu"), "Deployment")["metadata"]["name"]
        for target in ("HorizontalPodAutoscaler", "autoscale/hpa"), ("ScaledObject", "autoscale/keda"):
            self.assertEqual(only(overlay(target[1]), target[0])["spec"]["scaleTargetRef"]["name"], name)
        self.assertNotIn("replicas", only(overlay("cpu"), "Deployment")["spec"], "would be set back by each apply")

    def test_metrics_exist(self):
        known = declared_metrics()
        self.assertGreater(len(known), 50)
        for name in OTHER_OVERLAYS:
            for where, expression in expressions(overlay(name)):
                used = set(re.findall(r"\bcadre_\w+|\bprocess_\w+|\bup\b", expression))
                self.assertTrue(used, f"{name}: {where} asks for nothing of cadre")
                self.assertLessEqual(used, known | {"up"}, f"{name}: {where}")
        self.assertTrue(expressions(overlay("autoscale/hpa")) and expressions(overlay("autoscale/keda")))
        readme = (KUBERNETES / "README.md").read_text(encoding="utf-8")
        self.assertLessEqual(set(re.findall(r"`(cadre_\w+)`", readme)), known)

    def test_queries_name_the_jobs_and_the_namespace(self):
        endpoints = only(overlay("monitoring"), "PodMonitor")["spec"]["podMetricsEndpoints"]
        jobs = {relabel["replacement"]: e["path"] for e in endpoints for relabel in e["relabelings"]}
        self.assertEqual(jobs, {"cadre": "/metrics", "cadre-experts": "/metrics/experts"})
        scaled = only(overlay("autoscale/keda"), "ScaledObject")
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            self.assertIn(f'namespace="{scaled["metadata"]["namespace"]}"', query)
            self.assertLessEqual(set(re.findall(r'job="([^"]*)"', query)), set(jobs))

    def test_the_rules_are_those_of_prometheus(self):
        script = ROOT / "deploy" / "prometheus" / "make_prometheus_rule.py"
        made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
        kept = (KUBERNETES / "overlays" / "monitoring" / "prometheus-rule.yaml").read_text(encoding="utf-8")
        self.assertEqual(kept, made, "run deploy/prometheus/make_prometheus_rule.py")

    def test_the_dashboards_are_those_of_grafana(self):
        data = only(overlay("monitoring"), "ConfigMap")["data"]
        kept = {path.name: json.loads(path.read_text(encoding="utf-8"))
                for path in (ROOT / "deploy" / "grafana").glob("*.json")}
        self.assertEqual({name: json.loads(text) for name, text in data.items()}, kept)


class SecurityTest(RenderedCase):
    def test_containers_may_do_nothing_but_serve(self):
        for name in SERVING:
            pod = {"containers": [server_container(overlay(name))]}
            if name != "kserve":
                pod = only(with_component(name, "model-init"), "Deployment")["spec"]["template"]["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                context = {**pod.get("securityContext", {}), **container["securityContext"]}
                self.assertIs(context["runAsNonRoot"], True)
                self.assertGreater(context["runAsUser"], 0)
                self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                # On a GPU, the driver's libraries are linked into the container.
                self.assertIs(context["readOnlyRootFilesystem"], name != "gpu" or container["name"] != "server")

    def test_pods_get_neither_a_token_nor_variables_of_services(self):
        for name in SERVER_OVERLAYS:
            pod = only(overlay(name), "Deployment")["spec"]["template"]["spec"]
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(only(overlay(name), "ServiceAccount")["automountServiceAccountToken"], False)
            # A Service named cadre would set CADRE_PORT=tcp://..., which is an option of the server.
            self.assertIs(pod["enableServiceLinks"], False)
        predictor = only(overlay("kserve"), "InferenceService")["spec"]["predictor"]
        self.assertIs(predictor["enableServiceLinks"], False)
        self.assertIs(predictor["automountServiceAccountToken"], False)

    def test_nothing_goes_out(self):
        for name in SERVER_OVERLAYS:
            policy = only(overlay(name), "NetworkPolicy")["spec"]
            self.assertEqual(set(policy["policyTypes"]), {"Ingress", "Egress"})
            self.assertNotIn("egress", policy)

    def test_images_have_a_version(self):
        for name in SERVING:
            self.assertRegex(server_container(overlay(name))["image"], r"/cadre:[0-9]+\.[0-9]+\.[0-9]+-(cpu|cuda)$")

    def test_memory_is_bounded_and_a_gpu_is_asked_for(self):
        for name in SERVING:
            resources = server_container(overlay(name))["resources"]
            self.assertEqual(resources["requests"]["memory"], resources["limits"]["memory"], name)
        self.assertEqual(server_container(overlay("gpu"))["resources"]["limits"]["nvidia.com/gpu"], "1")
        self.assertEqual(settings(overlay("gpu"))["device"], "cuda")
        self.assertEqual(settings(overlay("cpu"))["device"], "cpu")
        pod = only(overlay("gpu"), "Deployment")["spec"]["template"]["spec"]
        self.assertEqual([t["key"] for t in pod["tolerations"]], ["nvidia.com/gpu"])


if __name__ == "__main__":
    unittest.main()
