"""Writes the Python stubs of the gRPC contract. Run `python proto/generate.py` after changing a .proto file;
`--lint` checks those files with buf instead, and writes nothing.

protoc comes with grpcio-tools, the .pyi types from mypy-protobuf, buf with buf-bin: all in the `dev` extra.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PROTO = Path(__file__).resolve().parent


def generate(out: Path) -> list[Path]:
    """Writes the stubs of every .proto under s2spp/ into `out`, laid out as packages; returns the files.

    Raises:
        RuntimeError: protoc refused; it has said why on stderr.
    """
    try:
        import grpc_tools
        from grpc_tools import protoc
    except ImportError as error:
        raise RuntimeError("generating stubs needs the dev extra: pip install -e '.[dev]'") from error

    sources = sorted((PROTO / "s2spp").rglob("*.proto"))
    includes = [PROTO, PROTO / "third_party", Path(grpc_tools.__file__).parent / "_proto"]
    outputs = ("python", "grpc_python", "mypy", "mypy_grpc")
    arguments = [f"-I{folder}" for folder in includes] + [f"--{kind}_out={out}" for kind in outputs]
    if protoc.main(["protoc", *arguments, *map(str, sources)]) != 0:
        raise RuntimeError("protoc failed; see its message above")
    written: set[Path] = set()
    for source in sources:
        folder = out / source.relative_to(PROTO).parent
        (folder / "__init__.py").touch()
        written |= {folder / "__init__.py", *folder.glob("*_pb2*.py*")}
    return sorted(written)


def lint() -> int:
    """buf's exit status: 0 when the .proto files keep its STANDARD rules. Needs no network."""
    return subprocess.run(["buf", "lint", str(PROTO)], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROTO.parent, help="where s2spp/v1/ goes")
    parser.add_argument("--lint", action="store_true", help="check the .proto files, write nothing")
    arguments = parser.parse_args()
    # buf, and the plugins that protoc looks for, are on the PATH only while the environment is active.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    if arguments.lint:
        return lint()
    try:
        written = generate(arguments.out)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
