"""What objects of Kubernetes may look like: every key that the manifests may use, and the type of its value.

A mistyped key is accepted by kubectl apply with older clusters, and by most linters, and then is without effect. Here
every key has to be known. The tables hold what the manifests use, after the API reference of each group: a key that is
missing is added here when it is first needed.

A shape is a type (str, int, bool), a function that returns what is wrong with a value or None, a list of one shape, or
a dict of shapes by key, where "name!" is required. ANY_KEYS stands for all other keys of a dict.
"""

import re

ANY_KEYS = "*"


def pattern(regex, what):
    compiled = re.compile(regex)
    return lambda value: None if isinstance(value, str) and compiled.fullmatch(value) else f"is not {what}"


def one_of(*values):
    return lambda value: None if value in values else f"is none of {', '.join(map(str, values))}"


def int_in(low, high):
    def check(value):
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return None if is_int and low <= value <= high else f"is no integer in [{low}, {high}]"
    return check


NAME = pattern(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "a name of an object")
PORT_NAME = pattern(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", "a name of a port (15 characters at most)")
PORT = int_in(1, 65535)
QUANTITY = pattern(r"[0-9]+(\.[0-9]+)?(m|k|[KMGT]i?)?", "a quantity (a string)")
DURATION = pattern(r"[0-9]+(ms|s|m|h)", "a duration")
LABEL_VALUE = pattern(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", "a value of a label")
PATH = pattern(r"/.*", "an absolute path")
COUNT = int_in(0, 1 << 20)
POSITIVE = int_in(1, 1 << 20)
UID = int_in(1, 1 << 31)


def port_or_name(value):
    return PORT(value) and PORT_NAME(value) and "is neither a port nor the name of one"


LABELS = {ANY_KEYS: LABEL_VALUE}
SELECTOR = {"matchLabels": LABELS}
METADATA = {"name!": NAME, "namespace": NAME, "labels": LABELS, "annotations": {ANY_KEYS: str}}
RESOURCES = {"requests": {ANY_KEYS: QUANTITY}, "limits": {ANY_KEYS: QUANTITY}}
PROBE = {"grpc": {"port!": PORT, "service!": str}, "httpGet": {"path!": PATH, "port!": port_or_name},
         "periodSeconds!": POSITIVE, "timeoutSeconds!": POSITIVE, "failureThreshold!": POSITIVE}
SECCOMP = {"type!": one_of("RuntimeDefault")}
CONTAINER = {
    "name!": NAME, "image!": str, "command": [str], "args": [str],
    "env": [{"name!": str, "value!": str}],
    "envFrom": [{"configMapRef!": {"name!": NAME}}],
    "ports": [{"name!": PORT_NAME, "containerPort!": PORT, "protocol": one_of("TCP")}],
    "startupProbe": PROBE, "readinessProbe": PROBE, "livenessProbe": PROBE,
    "resources": RESOURCES,
    "securityContext": {
        "runAsNonRoot": bool, "runAsUser": UID, "runAsGroup": UID, "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool, "capabilities": {"drop": [str]}, "seccompProfile": SECCOMP},
    "volumeMounts": [{"name!": NAME, "mountPath!": PATH, "readOnly": bool}],
}
POD_SPEC = {
    "serviceAccountName!": NAME, "automountServiceAccountToken": bool, "enableServiceLinks": bool,
    "terminationGracePeriodSeconds": POSITIVE,
    "securityContext": {
        "runAsNonRoot": bool, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
        "fsGroupChangePolicy": one_of("OnRootMismatch", "Always"), "seccompProfile": SECCOMP},
    "topologySpreadConstraints": [{
        "maxSkew!": POSITIVE, "topologyKey!": str, "whenUnsatisfiable!": one_of("ScheduleAnyway", "DoNotSchedule"),
        "labelSelector!": SELECTOR}],
    "tolerations": [{"key!": str, "operator!": one_of("Exists"), "effect!": one_of("NoSchedule")}],
    "initContainers": [{**CONTAINER, "restartPolicy": one_of("Always")}], "containers!": [CONTAINER],
    "volumes": [{
        "name!": NAME,
        "persistentVolumeClaim": {"claimName!": NAME, "readOnly": bool},
        "image": {"reference!": str, "pullPolicy": one_of("IfNotPresent", "Always", "Never")},
        "configMap": {"name!": NAME},
        "secret": {"secretName!": NAME, "defaultMode!": int_in(0, 0o777),
                   "items": [{"key!": NAME, "path!": NAME}]},
        "emptyDir": {"sizeLimit": QUANTITY}}],
}
SCALING_RULES = {"stabilizationWindowSeconds": COUNT,
                 "policies": [{"type!": one_of("Pods", "Percent"), "value!": POSITIVE, "periodSeconds!": POSITIVE}]}
SCALING = {"scaleUp": SCALING_RULES, "scaleDown": SCALING_RULES}
PEERS = [{"podSelector": SELECTOR, "namespaceSelector": SELECTOR}]

SPECS = {
    "v1 Namespace": None,
    "v1 ServiceAccount": None,
    "v1 ConfigMap": None,
    "v1 Service": {
        "clusterIP": one_of("None"), "selector!": LABELS,
        "ports!": [{"name!": PORT_NAME, "port!": PORT, "targetPort!": port_or_name, "appProtocol!": str}]},
    "apps/v1 Deployment": {
        "revisionHistoryLimit": COUNT, "progressDeadlineSeconds": POSITIVE, "minReadySeconds": COUNT,
        "selector!": SELECTOR,
        "strategy": {"rollingUpdate": {"maxUnavailable": COUNT, "maxSurge": COUNT}},
        "template!": {"metadata!": {"labels!": LABELS}, "spec!": POD_SPEC}},
    "policy/v1 PodDisruptionBudget": {
        "maxUnavailable!": COUNT, "unhealthyPodEvictionPolicy": one_of("AlwaysAllow"), "selector!": SELECTOR},
    "networking.k8s.io/v1 NetworkPolicy": {
        "podSelector!": SELECTOR, "policyTypes!": [one_of("Ingress", "Egress")],
        "ingress": [{"from!": PEERS, "ports!": [{"protocol!": one_of("TCP"), "port!": port_or_name}]}]},
    "autoscaling/v2 HorizontalPodAutoscaler": {
        "scaleTargetRef!": {"apiVersion!": str, "kind!": str, "name!": NAME},
        "minReplicas!": POSITIVE, "maxReplicas!": POSITIVE, "behavior": SCALING,
        "metrics!": [{"type!": one_of("Pods"), "pods!": {
            "metric!": {"name!": str}, "target!": {"type!": one_of("AverageValue"), "averageValue!": QUANTITY}}}]},
    "keda.sh/v1alpha1 ScaledObject": {
        "scaleTargetRef!": {"name!": NAME}, "minReplicaCount!": COUNT, "maxReplicaCount!": POSITIVE,
        "pollingInterval": POSITIVE, "advanced": {"horizontalPodAutoscalerConfig": {"behavior": SCALING}},
        "triggers!": [{"type!": one_of("prometheus"), "name!": NAME, "metricType!": one_of("Value", "AverageValue"),
                       "metadata!": {"serverAddress!": str, "query!": str, "threshold!": QUANTITY}}]},
    "monitoring.coreos.com/v1 PodMonitor": {
        "selector!": SELECTOR,
        "podMetricsEndpoints!": [{
            "port!": PORT_NAME, "path!": PATH, "interval!": DURATION,
            "relabelings": [{"action!": one_of("replace"), "targetLabel!": str, "replacement!": str}]}]},
    "monitoring.coreos.com/v1 PrometheusRule": {
        "groups!": [{"name!": str, "interval": DURATION, "rules!": [{
            "alert!": str, "expr!": str, "for": DURATION,
            "labels!": {"severity!": one_of("info", "warning", "critical")},
            "annotations!": {"summary!": str, "description!": str, "runbook_url!": str}}]}]},
    "serving.kserve.io/v1alpha1 ServingRuntime": {
        "annotations": {ANY_KEYS: str}, "containers!": [CONTAINER], "volumes": POD_SPEC["volumes"],
        "supportedModelFormats!": [{"name!": str, "version": str, "autoSelect": bool, "priority": POSITIVE}]},
    "serving.kserve.io/v1beta1 InferenceService": {
        "predictor!": {
            "minReplicas": COUNT, "terminationGracePeriodSeconds": POSITIVE, "automountServiceAccountToken": bool,
            "enableServiceLinks": bool,
            "securityContext": {"fsGroup": UID, "fsGroupChangePolicy": one_of("OnRootMismatch", "Always")},
            "model!": {"runtime": NAME, "modelFormat!": {"name!": str}, "storageUri!": str}}},
    "inference.networking.k8s.io/v1 InferencePool": {
        "selector!": {"matchLabels!": LABELS}, "targetPorts!": [{"number!": PORT}], "appProtocol": str,
        "endpointPickerRef!": {
            "name!": NAME, "port!": {"number!": PORT}, "failureMode": one_of("FailOpen", "FailClose")}},
    "gateway.networking.k8s.io/v1 GRPCRoute": {
        "parentRefs!": [{"name!": NAME, "namespace": NAME}], "hostnames": [str],
        "rules!": [{"matches!": [{"method!": {"service!": str, "method": str}}],
                    "backendRefs!": [{"group": str, "kind": str, "name!": NAME, "port": PORT}]}]},
}
# Objects without a spec, and what they have instead.
BODIES = {
    "v1 ServiceAccount": {"automountServiceAccountToken!": bool},
    "v1 ConfigMap": {"data!": {ANY_KEYS: str}},
}


def findings(value, shape, place):
    """What is wrong with `value`, each with its place; empty if nothing."""
    if isinstance(shape, dict):
        return dict_findings(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{place} is not a list of something"]
        return [f for i, item in enumerate(value) for f in findings(item, shape[0], f"{place}[{i}]")]
    if isinstance(shape, type):
        return [] if type(value) is shape else [f"{place}: {value!r} is no {shape.__name__}"]
    error = shape(value)
    return [f"{place}: {value!r} {error}"] if error else []


def dict_findings(value, shape, place):
    if not isinstance(value, dict):
        return [f"{place} is not a map"]
    shapes = {key.rstrip("!"): item for key, item in shape.items()}
    found = [f"{place} lacks {key[:-1]}" for key in shape if key.endswith("!") and key[:-1] not in value]
    for key, item in value.items():
        if key in shapes or ANY_KEYS in shapes:
            found += findings(item, shapes.get(key, shapes.get(ANY_KEYS)), f"{place}.{key}")
        else:
            found.append(f"{place}.{key} is not a key that is known here")
    return found


def object_findings(item):
    """The same of a whole object; its place begins with kind and name."""
    kind = f"{item.get('apiVersion')} {item.get('kind')}"
    place = f"{item.get('kind')} {item.get('metadata', {}).get('name')}"
    if kind not in SPECS:
        return [f"{place}: {kind} is not known here"]
    shape = {"apiVersion!": str, "kind!": str, "metadata!": METADATA, **BODIES.get(kind, {})}
    if SPECS[kind] is not None:
        shape["spec!"] = SPECS[kind]
    return dict_findings(item, shape, place)
