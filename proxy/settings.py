"""What `dlbench serve` needs to know besides the knobs: which model, where to listen, which limits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dlbench.proxy.tensors import MAX_ROWS


class ServerSettings(BaseModel):
    """Settings of one proxy that the tuner does not search over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("", description="path of an .onnx file, demo:mlp or demo:cnn")
    name: str = Field("", description="name to serve the model under (default: the file's stem)")
    also: tuple[str, ...] = Field((), description="more models to serve, as PATH or NAME=PATH")
    repository: str = Field(
        "",
        description="folder of models to load on request: NAME.onnx or NAME/VERSION/model.onnx",
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="device to run on; auto: CUDA if it works, else the CPU"
    )
    device_ids: tuple[int, ...] = Field(
        (0,), description="GPUs that the workers are spread over, such as 0,1", min_length=1
    )
    provider_option: dict[str, str] = Field(
        default_factory=dict,
        description="option of onnxruntime's execution provider, as KEY=VALUE",
    )
    io_binding: bool = Field(
        True, description="on a GPU, bind inputs and outputs instead of copying them on every run"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, description="port to listen on; 0: any free one", ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="other host names of this server, whose web pages may use it, as "
        "NAME,NAME; *: any (default: this machine's own; any name on a public "
        "address)",
    )
    remote_workers: tuple[str, ...] = Field(
        (),
        description="workers on other machines, as HOST:PORT,HOST:PORT; started there with "
        "dlbench worker",
    )
    node_token_file: str = Field(
        "",
        description="file with the secrets that a front and its nodes share, one per line; "
        "both prove knowledge of one, which is never sent",
    )
    node_tls_ca: str = Field(
        "",
        description="PEM certificates of the CAs of the nodes; enables TLS to them (dlbench "
        "worker --tls-cert)",
    )
    batch_axis: dict[str, int] = Field(
        default_factory=dict, description="batch axis of a tensor, as NAME=K; -1: it has none"
    )
    shape: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="sizes of a tensor with symbolic dimensions, batch axis included, as NAME=D1,D2",
    )
    rows_independent: bool = Field(
        False,
        description="the model's rows do not depend on each other: batch them without checking",
    )
    insecure: bool = Field(False, description="allow a public address without a token file")
    token_file: str = Field(
        "", description="file with one bearer token per line; requests need one of them"
    )
    tls_cert: str = Field("", description="PEM certificate chain; enables TLS")
    tls_key: str = Field("", description="PEM key of --tls-cert")
    tls_client_ca: str = Field(
        "", description="PEM certificates of the CAs of clients; requires a client certificate"
    )
    grpc_port: int | None = Field(
        None,
        description="port of the V2 gRPC service; 0: any free one (default: no gRPC)",
        ge=0,
        le=65535,
    )
    cache_backend: str = Field(
        "",
        description="cache shared between proxies: redis://HOST:PORT/DB or memcached://HOST:PORT",
    )
    cache_window_ms: float = Field(
        5.0, description="time over which write_combining collects results", gt=0, le=10_000
    )
    async_ttl_s: float = Field(
        300.0, description="how long the result of a Prefer: respond-async request is kept", gt=0
    )
    async_results: int = Field(
        1000, description="most results kept for respond-async requests", ge=1, le=10_000_000
    )
    log_format: Literal["text", "json"] = Field("text", description="format of log lines")
    access_log: bool = Field(False, description="one log line per request, with its id")
    otlp_endpoint: str = Field(
        "", description="OpenTelemetry collector to send spans to (pip install 'dlbench[otel]')"
    )
    max_connections: int = Field(
        4096, description="most open connections; further ones get 503 and are closed", ge=1
    )
    max_header_kb: int = Field(16, description="longest request head, in KiB", ge=1, le=1024)
    max_rows: int = Field(MAX_ROWS, description="most rows in one request", ge=1, le=2**31 - 1)
    max_body_mb: int = Field(64, description="largest request body, in MiB", ge=1, le=16384)
    max_memory_mb: int = Field(
        0,
        description="most memory for all requests and replies in progress in the front, in "
        "MiB; further ones get 503 (0: a quarter of the machine's or container's "
        "memory)",
        ge=0,
        le=1 << 30,
    )
    header_timeout_s: float = Field(10.0, description="longest wait for a request's head", gt=0)
    body_timeout_s: float = Field(30.0, description="longest wait for a request's body", gt=0)
    idle_timeout_s: float = Field(75.0, description="close idle connections after this", gt=0)
    drain_timeout_s: float = Field(30.0, description="longest wait for replies at shutdown", gt=0)
