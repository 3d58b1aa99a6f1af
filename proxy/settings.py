"""What `dlbench serve` needs to know besides the knobs: which model, where to listen, which limits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServerSettings(BaseModel):
    """Settings of one proxy that the tuner does not search over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="path of an .onnx file, demo:mlp or demo:cnn")
    name: str = Field("", description="name to serve the model under (default: the file's stem)")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to run; auto: CUDA if a session really gets it, else the CPU"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, description="port to listen on; 0: any free one", ge=0, le=65535)
    batch_axis: dict[str, int] = Field(
        default_factory=dict, description="batch axis of a tensor, as NAME=K; -1: it has none"
    )
    shape: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="sizes of a tensor with symbolic dimensions, batch axis included, as NAME=D1,D2",
    )
    max_header_kb: int = Field(16, description="longest request head, in KiB", ge=1, le=1024)
    max_body_mb: int = Field(64, description="largest request body, in MiB", ge=1, le=16384)
    header_timeout_s: float = Field(10.0, description="longest wait for a request's head", gt=0)
    body_timeout_s: float = Field(30.0, description="longest wait for a request's body", gt=0)
    idle_timeout_s: float = Field(75.0, description="idle connections are closed after this", gt=0)
    drain_timeout_s: float = Field(30.0, description="longest wait for replies at shutdown", gt=0)
