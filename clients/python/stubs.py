"""Generates the stubs from `proto/` with the stock tools, and makes them importable.

They go to `.cache/` at the root of the repository, in a folder named after a hash of the contract
and of the generator's version.
"""

import hashlib
import importlib.metadata
import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
CHANNELZ = PROTO / "grpc/channelz/v1"


def generate() -> None:
    """Imports of `rpc_pb2`, `larder.cache.v1` and `larder.accounts.v1` work from here on.

    So do those of `channelz_pb2` and `opentelemetry.proto`.
    """
    # google/rpc comes with googleapis-common-protos.
    files = [
        PROTO / "rpc.proto",
        *sorted(PROTO.glob("larder/**/*.proto")),
        *sorted(PROTO.glob("opentelemetry/**/*.proto")),
        # By its last name alone: `grpc` is a package of its own.
        CHANNELZ / "channelz.proto",
    ]
    digest = hashlib.sha256(importlib.metadata.version("grpcio-tools").encode())
    for file in files:
        digest.update(file.read_bytes())
    cache = ROOT / ".cache"
    folder = cache / f"python-stubs-{digest.hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            compile_to(Path(unfinished) / "stubs", files)
            (Path(unfinished) / "stubs").rename(folder)
    sys.path.insert(0, str(folder))


def compile_to(folder: Path, files: list[Path]) -> None:
    """Runs protoc."""
    folder.mkdir()
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{CHANNELZ}",
            f"-I{PROTO}",
            f"-I{well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *map(str, files),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with {status}")
