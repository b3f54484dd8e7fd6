"""The manifests as kubectl would apply them, and what the tests share about them."""

import functools
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
KUBERNETES = ROOT / "deploy" / "kubernetes"
SERVER_OVERLAYS = ("cpu", "gpu")
KUBERNETES_MARK = "@KUBERNETES@"
# Each goes beside one of the overlays above, kserve in place of them.
OTHER_OVERLAYS = ("monitoring", "autoscale/hpa", "autoscale/keda", "kserve", "gateway")
MODEL_COMPONENTS = ("model-image", "model-init")
EDGE_COMPONENT = "edge"
EDGE_TLS_COMPONENT = "edge-tls"
KEYS_COMPONENT = "api-keys"
KSERVE_KEYS_COMPONENT = "kserve-api-keys"
TLS_COMPONENT = "tls"
# The first kubectl whose kustomize knows all that is used: 5.0.
OLDEST_KUBECTL = (1, 27)


def kubectl_version():
    """(major, minor), or None without kubectl."""
    if shutil.which("kubectl") is None:
        return None
    text = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True,
                          check=True).stdout
    major, minor = (re.search(rf'"{key}": "(\d+)', text).group(1) for key in ("major", "minor"))
    return int(major), int(minor)


def why_not():
    """Why nothing can be rendered here, or None."""
    if yaml is None:
        return "needs Python's yaml (Debian's package python3-yaml)"
    version = kubectl_version()
    if version is None:
        return "needs kubectl 1.27 or newer"
    if version < OLDEST_KUBECTL:
        return f"needs kubectl 1.27 or newer, this is {version[0]}.{version[1]}"
    return None


def kustomize(folder):
    """The objects of the kustomization in `folder`; kubectl's warnings are errors."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"kubectl kustomize {folder}: {done.stderr}")
    return [item for item in yaml.safe_load_all(done.stdout) if item is not None]


@functools.lru_cache(maxsize=None)
def overlay(name):
    return kustomize(KUBERNETES / "overlays" / name)


def rendered(text, **files):
    """The objects of a kustomization.yaml with this text, in which KUBERNETES_MARK stands for deploy/kubernetes; with
    other files beside it, by their names."""
    with tempfile.TemporaryDirectory(prefix="cadre-kustomize-") as folder:
        path = pathlib.Path(folder)
        relative = os.path.relpath(KUBERNETES.resolve(), path.resolve())  # kustomize takes no absolute paths
        (path / "kustomization.yaml").write_text(text.replace(KUBERNETES_MARK, relative), encoding="utf-8")
        for name, content in files.items():
            (path / name).write_text(content, encoding="utf-8")
        return kustomize(path)


@functools.lru_cache(maxsize=None)
def with_component(name, component):
    """An overlay with a component in it, as a user's own kustomization would say it."""
    return rendered("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
                    f"resources: [{KUBERNETES_MARK}/overlays/{name}]\n"
                    f"components: [{KUBERNETES_MARK}/components/{component}]\n")


def of_kind(objects, kind):
    return [item for item in objects if item["kind"] == kind]


def only(objects, kind):
    found = of_kind(objects, kind)
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects of kind {kind}, not 1")
    return found[0]


def server_container(objects):
    """The container that runs cadre-server, of a Deployment or of a ServingRuntime."""
    for item in of_kind(objects, "Deployment"):
        return item["spec"]["template"]["spec"]["containers"][0]
    return only(objects, "ServingRuntime")["spec"]["containers"][0]


def settings(objects):
    """{option without dashes: value} that the server in these objects gets, from its arguments or its ConfigMap."""
    container = server_container(objects)
    found = {}
    for source in container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        data = next(item["data"] for item in of_kind(objects, "ConfigMap") if item["metadata"]["name"] == name)
        for key, value in data.items():
            if not key.startswith("CADRE_"):
                raise AssertionError(f"{key} is no variable of the server")
            found[key.removeprefix("CADRE_").lower().replace("_", "-")] = value
    for argument in container.get("args", []):
        name, _, value = argument.removeprefix("--").partition("=")
        found[name] = value
    return found


def variables_of(container):
    """{name: value} of what a container says for itself, which wins over its ConfigMap."""
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def seconds(duration):
    """Of a duration as the server reads it, such as 500ms, 30s or 5m."""
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", duration).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


class RenderedCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)

    def report(self, found):
        self.assertFalse(found, "\n" + "\n".join(found))
