"""Builds the CPU image with buildah, without privileges of containers (chroot isolation), and runs what is in it: as
its user, with the health check, SIGTERM, and its bill of materials.

    make image-test                                    as a user would build it: minutes, it compiles everything
    make image-test IMAGE_PROGRAMS=build/release/bin   with programs that are built already, in place of the first stage

Needs root, buildah, and a base: debian:bookworm-slim from a registry, or else debootstrap, which makes one. Skipped
where they are missing. Never part of `make test`: it needs the network, and minutes.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = os.environ.get("IMAGE_PROGRAMS", "")
# Made by debootstrap, a base is kept between runs.
BASE = pathlib.Path(os.environ.get("IMAGE_BASE", ROOT / "build" / "image-test" / "base"))
BASE_NAME, IMAGE = "localhost/cadre-test-base:1", "localhost/cadre-test:1"
OFFICIAL_BASE = "docker.io/library/debian:bookworm-slim"
MAX_BYTES_OVER_BASE = 120 << 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree_bytes(folder):
    """Bytes of the files in a folder, each counted once."""
    return int(subprocess.run(["du", "-s", "--apparent-size", "-x", "-B1", str(folder)], capture_output=True, text=True,
                              check=True).stdout.split()[0])


class Buildah:
    """A store of images of its own, in a temporary folder."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="cadre-image-")
        self.environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        # vfs copies instead of mounting: that is possible in any container.
        self.command = ["buildah", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run",
                        "--storage-driver", "vfs"]

    def __call__(self, *arguments, timeout=120):
        done = subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, text=True,
                              check=False, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(f"buildah {' '.join(arguments)}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def base(self):
        """The name of a base image in the store."""
        try:
            self("pull", OFFICIAL_BASE)
            return OFFICIAL_BASE
        except (AssertionError, subprocess.TimeoutExpired) as error:
            if shutil.which("debootstrap") is None:
                raise unittest.SkipTest(f"no {OFFICIAL_BASE} to be had, and no debootstrap to make one") from error
        if not (BASE / "etc" / "debian_version").is_file():
            BASE.parent.mkdir(parents=True, exist_ok=True)
            part = BASE.with_name(BASE.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(part)], check=True,
                           stdout=subprocess.DEVNULL, timeout=1200)
            # As small as the official one: the image gives back none of this.
            for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(part / left)
                (part / left / "partial").mkdir(parents=True)
            part.rename(BASE)
        container = self("from", "scratch")
        # As an archive: what is mounted below the folder stays out.
        archive = f"{self.folder}/base.tar"
        subprocess.run(["tar", "-C", str(BASE), "--one-file-system", "-cf", archive, "."], check=True)
        self("add", container, archive, "/", timeout=300)
        os.unlink(archive)
        self("commit", "--rm", container, BASE_NAME, timeout=300)
        return BASE_NAME

    def build(self, base):
        flags = ["--format", "docker", "--pull-never", "--build-arg", f"RUNTIME_BASE={base}", "--build-arg",
                 f"BUILD_BASE={base}", "--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc",
                 "--build-arg", "CREATED=2026-01-01T00:00:00Z", "-t", IMAGE]
        if not PROGRAMS:
            self("build", *flags, "-f", str(ROOT / "docker" / "Dockerfile"), str(ROOT), timeout=7200)
            return
        with tempfile.TemporaryDirectory(prefix="cadre-image-context-") as context:
            subprocess.run([str(ROOT / "docker" / "collect_programs.sh"), PROGRAMS, f"{context}/out"], check=True)
            text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
            head, rest = text.split("FROM ${BUILD_BASE} AS build\n")
            runtime = rest[rest.index("FROM ${RUNTIME_BASE}"):]
            file = pathlib.Path(context) / "Dockerfile"
            file.write_text(f"{head}FROM ${{BUILD_BASE}} AS build\nCOPY out /out\n{runtime}", encoding="utf-8")
            self("build", *flags, "-f", str(file), context, timeout=1200)

    def remove(self):
        subprocess.run([*self.command, "rm", "--all"], env=self.environment, capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("buildah") is None:
            raise unittest.SkipTest("needs buildah (Debian's package of that name)")
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root, to make a file system and to become another user in it")
        cls.buildah = Buildah()
        cls.addClassCleanup(cls.buildah.remove)
        base = cls.buildah.base()
        cls.base_bytes = tree_bytes(cls.buildah("mount", cls.buildah("from", base)))
        cls.buildah.build(base)
        cls.container = cls.buildah("from", IMAGE)
        cls.root = pathlib.Path(cls.buildah("mount", cls.container))
        cls.config = json.loads(cls.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]

    def inside(self, *command):
        """How to start a process in the image's file system, with its user, its environment and nothing else."""
        uid, gid = map(int, self.config["User"].split(":"))
        return {"args": ["chroot", f"--userspec={uid}:{gid}", "--groups=", str(self.root), *command],
                "env": dict(pair.split("=", 1) for pair in self.config["Env"] + self.extra), "text": True}

    def run_inside(self, *command):
        return subprocess.run(**self.inside(*command), capture_output=True, check=False, timeout=60)

    def test_it_serves_as_its_user_and_drains(self):
        model = self.root / "mnt" / "models"
        shutil.copytree(ROOT / "models" / "demo", model, dirs_exist_ok=True)
        port = free_port()
        self.extra = [f"CADRE_PORT={port}", "CADRE_METRICS_PORT=0", "CADRE_KV_CACHE_GB=0.05", "CADRE_THREADS=1",
                      f"CADRE_ADDRESS=127.0.0.1:{port}", "CADRE_DRAIN_DELAY=100ms"]
        health = self.config["Healthcheck"]["Test"]
        self.assertEqual(health[0], "CMD", "in exec form: no shell")
        self.assertNotEqual(self.run_inside(*health[1:]).returncode, 0, "healthy before anything runs")
        before = self.listing()
        server = subprocess.Popen(**self.inside(*self.config["Entrypoint"]), stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while self.run_inside(*health[1:]).returncode != 0:
                self.assertIsNone(server.poll(), "the server ended")
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)
            status = pathlib.Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
            self.assertIn("\nUid:\t10001\t10001\t10001\t10001\n", status)
            generate = self.run_inside("/usr/bin/cadre", "generate", "Once upon a time", "--max-tokens", "8")
            self.assertEqual(generate.returncode, 0, generate.stderr)
            self.assertTrue(generate.stdout.strip())
            server.send_signal(getattr(signal, self.config["StopSignal"]))
            self.assertEqual(server.wait(timeout=60), 0)
        finally:
            server.kill()
            server.wait()
        self.assertEqual(self.listing(), before, "it writes files: a read-only root would not do")

    def listing(self):
        return subprocess.run(["find", str(self.root), "-xdev", "-type", "f", "-printf", "%p %s %T@\n"],
                              capture_output=True, text=True, check=True).stdout

    def test_it_is_small_and_has_no_way_to_another_user(self):
        over = tree_bytes(self.root) - self.base_bytes
        self.assertLess(over, MAX_BYTES_OVER_BASE, f"{over / (1 << 20):.1f} MiB over its base")
        found = subprocess.run(["find", str(self.root), "-xdev", "-type", "f", "-perm", "/6000"], capture_output=True,
                               text=True, check=True).stdout
        self.assertEqual(found, "")
        print(f"the image has {over / (1 << 20):.1f} MiB over its base")

    def test_it_says_what_is_in_it(self):
        labels = self.config["Labels"]
        self.assertEqual(labels["org.opencontainers.image.version"], "1.2.3")
        self.assertEqual(labels["org.opencontainers.image.revision"], "abc")
        self.assertEqual(labels["org.opencontainers.image.created"], "2026-01-01T00:00:00Z")
        folder = self.root / "usr" / "share" / "doc" / "cadre"
        self.assertTrue((folder / "LICENSE").is_file())
        document = json.loads((folder / "sbom.spdx.json").read_text(encoding="utf-8"))
        ids = [package["SPDXID"] for package in document["packages"]] + ["SPDXRef-DOCUMENT"]
        self.assertEqual(len(ids), len(set(ids)))
        for relation in document["relationships"]:
            self.assertIn(relation["spdxElementId"], ids)
            self.assertIn(relation["relatedSpdxElement"], ids)
        status = (self.root / "var" / "lib" / "dpkg" / "status").read_text(encoding="utf-8")
        installed = {(p["name"], p["versionInfo"]) for p in document["packages"] if "installed" in p["SPDXID"]}
        fields = [dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
                  for entry in status.strip().split("\n\n")]
        there = {(f["Package"], f["Version"]) for f in fields if f["Status"].endswith(" installed")}
        self.assertEqual(installed, there)
        self.assertIn("libgrpc++1.51", {name for name, _ in installed})
        compiled = {p["name"] for p in document["packages"] if "compiled" in p["SPDXID"]}
        self.assertIn("libcli11-dev", compiled)


if __name__ == "__main__":
    unittest.main()
