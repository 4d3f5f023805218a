"""Generates service/wire/ from the proto files: `make proto`, or with a folder to write to.

Made with the oldest grpcio-tools that pyproject allows: newer runtimes read older code, never the
other way. protoc writes absolute imports after the proto's own package; ours is another, so that
one line is made relative.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
WIRE = HERE.parent / "service" / "wire"


def generate(folder: Path) -> None:
    """Writes the three generated files into the folder."""
    well_known = files("grpc_tools") / "_proto"
    arguments = [f"-I{HERE}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *arguments, "formwright/v1/search.proto"]):
        raise SystemExit("protoc failed")
    for made in sorted((folder / "formwright" / "v1").iterdir()):
        text = made.read_text(encoding="utf-8")
        text = text.replace("from formwright.v1 import", "from . import")
        (folder / made.name).write_text(text, encoding="utf-8")
        made.unlink()
    (folder / "formwright" / "v1").rmdir()
    (folder / "formwright").rmdir()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else WIRE)
