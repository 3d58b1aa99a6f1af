"""Makes the Python messages out of the published protocol: `python -m dlbench.proxy.protocols.grpc.generate`.

The .proto files are those of https://github.com/triton-inference-server/common, protobuf/, as they
are: their names too, since a process may load these messages only once, and tritonclient brings
the same ones under the same names. Needs grpcio-tools.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("grpc_service", "model_config")
# Nobody reads, formats or types what a compiler wrote.
HEADER = "# ruff: noqa\n# fmt: off\n# mypy: ignore-errors\n"


def generate(folder: Path) -> list[Path]:
    """Write the modules into a folder.

    Raises:
        RuntimeError: the compiler refuses the files; its words are on standard error.
    """
    from grpc_tools import protoc

    protos = [f"{name}.proto" for name in NAMES]
    if protoc.main(["protoc", f"-I{HERE}", f"--python_out={folder}", *protos]):
        raise RuntimeError("protoc failed")
    paths = [folder / f"{name}_pb2.py" for name in NAMES]
    for path in paths:
        text = path.read_text().replace(
            "\nimport model_config", "\nfrom dlbench.proxy.protocols.grpc import model_config"
        )
        path.write_text(HEADER + text)
    return paths


if __name__ == "__main__":
    generate(HERE)
