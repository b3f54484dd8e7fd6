"""Compiles the protos into the package while it is built."""

import pathlib
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import compile_protos  # noqa: E402


class BuildWithProtos(build_py):
    def run(self):
        compile_protos.provide_protos(HERE / "src" / "cadre_client" / "protos.binpb")
        super().run()


class ArchiveWithProtos(sdist):
    def run(self):
        compile_protos.compile_protos(HERE / "src" / "cadre_client" / "protos.binpb")
        super().run()


setup(cmdclass={"build_py": BuildWithProtos, "sdist": ArchiveWithProtos})
