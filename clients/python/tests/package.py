"""Makes the package importable as it is in this checkout: a copy of the sources and the compiled protos in a temporary
folder, so that nothing is written into the tree."""

import pathlib
import shutil
import sys
import tempfile

CLIENT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CLIENT))

import compile_protos  # noqa: E402

_folder = tempfile.TemporaryDirectory(prefix="cadre-client-")
shutil.copytree(CLIENT / "src" / "cadre_client", pathlib.Path(_folder.name) / "cadre_client",
                ignore=shutil.ignore_patterns("protos.binpb", "__pycache__"))
compile_protos.compile_protos(pathlib.Path(_folder.name) / "cadre_client" / "protos.binpb")
sys.path.insert(0, _folder.name)
