"""Rules for docker/: what the Dockerfile may and must say, that its context has what the build needs, and that the
services of compose.yaml agree with the server, with Prometheus and with Grafana. Nothing is built: image_test.py does.
"""

import fnmatch
import json
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


def instructions(text):
    """[(NAME, arguments)] of a Dockerfile, with continued lines joined and comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in joined.splitlines() if line]


def stages(text):
    """[[(NAME, arguments)]]: what stands before the first FROM, then each stage with its FROM."""
    found = [[]]
    for name, arguments in instructions(text):
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


def findings(text):
    """What is wrong with a Dockerfile."""
    found = []
    head, *parts = stages(text)
    bases = dict(arguments.split("=", 1) for name, arguments in head if name == "ARG" and "=" in arguments)
    for name, arguments in instructions(text):
        if name == "ADD":
            found.append(f"ADD {arguments}: COPY does not fetch or unpack")
        if name in ("CMD", "ENTRYPOINT") and not arguments.startswith("["):
            found.append(f"{name} {arguments}: a shell would have to be there, and would swallow SIGTERM")
        if name in ("ARG", "ENV") and re.search(r"(?i)password|secret|token|api_?key", arguments):
            found.append(f"{name} {arguments}: would stand in the image's history")
        if name == "RUN":
            found += run_findings(arguments)
    for part in parts:
        match = re.fullmatch(r"\$\{(\w+)\} AS \w+", part[0][1])
        if match is None or not re.search(r":(?!latest$)[\w.-]+$", bases.get(match.group(1), "")):
            found.append(f"FROM {part[0][1]}: a stage has a name, and an ARG with a tag as its base")
    return found + last_stage_findings(parts[-1])


def run_findings(command):
    found = []
    if re.search(r"\b(curl|wget|sudo|git clone|pip3? install)\b", command):
        found.append(f"RUN {command}: takes from elsewhere than the distribution, or needs another user")
    if "apt-get" in command and "upgrade" in command:
        found.append(f"RUN {command}: the base says which versions there are")
    if "apt-get install" in command and "--no-install-recommends" not in command:
        found.append(f"RUN {command}: installs more than is needed")
    if re.search(r"apt-get install|install_dependencies", command) and "rm -rf /var/lib/apt/lists/*" not in command:
        found.append(f"RUN {command}: leaves the lists of packages in the layer")
    return found


def last_stage_findings(stage):
    found = []
    said = {name: arguments for name, arguments in stage}
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", said.get("USER", "")):
        found.append(f"USER {said.get('USER')}: a number that is not 0, for the user and for the group")
    if said.get("STOPSIGNAL") != "SIGTERM":
        found.append("STOPSIGNAL is not SIGTERM")
    if not re.search(r'CMD \["/usr/bin/cadre", "health"\]$', said.get("HEALTHCHECK", "")):
        found.append("HEALTHCHECK is not cadre health, in exec form")
    if said.get("ENTRYPOINT") != '["/usr/bin/cadre-server"]':
        found.append("ENTRYPOINT is not the server")
    for label in ("title", "description", "licenses", "version", "revision", "created", "source"):
        if f"org.opencontainers.image.{label}=" not in said.get("LABEL", ""):
            found.append(f"the label {label} is missing")
    return found


def ignored(name):
    """Whether .dockerignore keeps a path of the repository out of the context: the last line that matches decides."""
    result = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        rule = line.lstrip("!")
        if not rule or rule.startswith("#"):
            continue
        places = [name, *map(str, pathlib.PurePosixPath(name).parents)]
        if any(fnmatch.fnmatch(place, rule.replace("**/", "*")) for place in places):
            result = not line.startswith("!")
    return result


def server_options():
    """{option: default} of cadre-server, as server/config.h and its help have them."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "server").glob("*.cc")))
    return set(re.findall(r'"--([a-z][a-z0-9-]+)', text))


class DockerfileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")

    def test_the_rules_are_kept(self):
        self.assertEqual(findings(self.text), [])

    def test_the_rules_find_mistakes(self):
        """Whether the test above can fail."""
        for old, new in (
                ("USER 10001:10001", "USER root"), ("USER 10001:10001\n", ""), ("STOPSIGNAL SIGTERM\n", ""),
                ('CMD ["/usr/bin/cadre", "health"]', "CMD cadre health"), ("debian:bookworm-slim", "debian"),
                ("debian:bookworm-slim", "debian:latest"), (' ["/usr/bin/cadre-server"]', " cadre-server"),
                ("COPY . .", "ADD . ."), (" --no-install-recommends", ""), ("rm -rf /var/lib/apt/lists/*", "true"),
                ("ARG JOBS=0", "ARG JOBS=0\nARG REGISTRY_TOKEN="), ("apt-get update -q", "apt-get upgrade -y"),
                ("image.source=", "image.sauce="), ("cmake --preset release", "curl example.com; cmake")):
            self.assertIn(old, self.text)
            self.assertNotEqual(findings(self.text.replace(old, new)), [], f"{old!r} -> {new!r}")

    def test_it_builds_as_the_readme_does(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for command in ("tools/install_dependencies.sh build", "cmake --preset release -DCADRE_TESTS=OFF",
                        "cmake --build --preset release -j"):
            self.assertIn(command, makefile)
            self.assertIn(command, self.text)

    def test_the_context_has_what_the_build_needs(self):
        output = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, check=True,
                                capture_output=True).stdout.decode()
        files = [name for name in output.split("\0") if name]
        inside = {name for name in files if not ignored(name)}
        top = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
        needed = set(re.findall(r"add_subdirectory\((\w+)\)", top)) - {"tests"} | {"cmake", "docker"}
        for folder in sorted(needed):
            missing = {n for n in files if n.startswith(folder + "/")} - inside
            self.assertEqual(missing, set(), folder)
        self.assertLessEqual({"CMakeLists.txt", "CMakePresets.json", "LICENSE"}, inside)
        for name in inside:
            self.assertNotRegex(name, r"^(tests|models|docs|deploy|clients|\.git|build)/", "is not needed")
        for _, arguments in (i for i in instructions(self.text) if i[0] == "COPY"):
            source = arguments.split()[-2]
            if not arguments.startswith("--from") and source != ".":
                self.assertIn(source, inside)

    def test_ports_and_settings_are_the_servers(self):
        said = dict(stages(self.text)[-1])
        config = (ROOT / "server" / "config.h").read_text(encoding="utf-8")
        defaults = {re.search(rf"\b{name} = (\d+);", config).group(1) for name in ("port", "metrics_port")}
        self.assertEqual(set(said["EXPOSE"].split()), defaults)
        variables = re.findall(r"\bCADRE_(\w+)=", " ".join(a for n, a in stages(self.text)[-1] if n == "ENV"))
        self.assertTrue(variables)
        for variable in variables:
            self.assertIn(variable.lower().replace("_", "-"), server_options())


@unittest.skipIf(yaml is None, "needs Python's yaml (Debian's package python3-yaml)")
class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]

    def mounts(self, service):
        """{path in the container: path here}"""
        pairs = [volume.split(":") for volume in self.services[service]["volumes"]]
        self.assertTrue(all(mode == ["ro"] for _, _, *mode in pairs))
        return {inside: (DOCKER / here).resolve() for here, inside, *_ in pairs}

    def test_every_file_that_is_mounted_exists(self):
        for service in self.services:
            for path in self.mounts(service).values():
                self.assertTrue(path.exists(), path)
        self.assertTrue((self.mounts("server")["/mnt/models"] / "config.json").is_file())

    def test_only_this_machine_reaches_it(self):
        for name, service in self.services.items():
            for port in service["ports"]:
                self.assertRegex(port, r"^127\.0\.0\.1:", name)
            self.assertEqual(service["cap_drop"], ["ALL"])
        self.assertIs(self.services["server"]["read_only"], True)

    def test_images_have_a_version(self):
        for name in ("prometheus", "grafana"):
            self.assertRegex(self.services[name]["image"], r":v?\d+\.\d+\.\d+$")

    def test_the_server_has_time_to_drain(self):
        server = self.services["server"]
        times = [int(server["environment"][f"CADRE_DRAIN_{n}"].removesuffix("s")) for n in ("DELAY", "TIMEOUT")]
        self.assertGreaterEqual(int(server["stop_grace_period"].removesuffix("s")), sum(times) + 5)
        for variable in server["environment"]:
            self.assertIn(variable.removeprefix("CADRE_").lower().replace("_", "-"), server_options())

    def test_prometheus_scrapes_both_pages_and_loads_the_rules(self):
        mounts = self.mounts("prometheus")
        file = mounts["/etc/prometheus/prometheus.yml"]
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["scrape_configs"]
        self.assertEqual({job["job_name"]: job.get("metrics_path", "/metrics") for job in jobs},
                         {"cadre": "/metrics", "cadre-experts": "/metrics/experts"})
        ports = [port.split(":")[-1] for port in self.services["server"]["ports"]]
        for job in jobs:
            host, port = job["static_configs"][0]["targets"][0].split(":")
            self.assertIn(host, self.services)
            self.assertIn(port, ports)
        if shutil.which("promtool") is None:
            self.skipTest("the rest needs promtool")
        with tempfile.TemporaryDirectory(prefix="cadre-compose-") as folder:
            for inside, here in mounts.items():
                shutil.copy(here, pathlib.Path(folder) / pathlib.PurePosixPath(inside).name)
            subprocess.run(["promtool", "check", "config", f"{folder}/prometheus.yml"], check=True, capture_output=True)

    def test_grafana_finds_prometheus_and_the_dashboards(self):
        mounts = self.mounts("grafana")
        file = next(path for inside, path in mounts.items() if "/provisioning/datasources/" in inside)
        source, = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
        self.assertEqual(source["url"], f"http://prometheus:{self.services['prometheus']['ports'][0].split(':')[-1]}")
        file = next(path for inside, path in mounts.items() if "/provisioning/dashboards/" in inside)
        provider, = yaml.safe_load(file.read_text(encoding="utf-8"))["providers"]
        boards = [i for i in mounts if i.startswith(provider["options"]["path"] + "/")]
        self.assertIn(self.services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"], boards)
        self.assertEqual({mounts[board] for board in boards}, set((ROOT / "deploy" / "grafana").glob("*.json")))
        for board in boards:
            variables = json.loads(mounts[board].read_text(encoding="utf-8"))["templating"]["list"]
            self.assertIn({"type": "datasource", "query": source["type"]},
                          [{key: v.get(key) for key in ("type", "query")} for v in variables])


if __name__ == "__main__":
    unittest.main()
