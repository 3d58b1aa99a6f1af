"""Finds out what a server serves and with which inputs it can be loaded. Over HTTP (V2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from dlbench.loadgen.encode import ENCODINGS
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs import random_row, read_rows
from dlbench.loadgen.sizes import as_stated, candidates, filled
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile

TIMEOUT_S = 10.0
MODEL_PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/?")


def discover(url: str, profile: LoadProfile) -> Target:
    """Ask the server at `http://HOST:PORT[/v2/models/NAME[/versions/V]]` what it serves.

    Raises TargetError in one line: unreachable, not V2, which models there are when none is named,
    not ready, no size that runs. Raises DataError for a data file that does not fit.
    """
    base, model, version = split_url(url)
    with httpx.Client(base_url=base, timeout=TIMEOUT_S, trust_env=False) as http:
        server = _ask(http, "GET", "/v2")
        if "extensions" not in server and "name" not in server:
            raise TargetError(f"{base} answers, but not as a V2 inference server (GET /v2)")
        name = model or _only_model(http)
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        _check_ready(http, name, path)
        metadata = _ask(http, "GET", path)
        extensions = server.get("extensions", ())
        target = Target(
            url=base,
            model=name,
            version=version,
            path=f"{path}/infer",
            inputs=_specs(metadata, "inputs", name),
            outputs=_specs(metadata, "outputs", name) if "outputs" in metadata else (),
            supports_binary="binary_tensor_data" in extensions,
            statistics="statistics" in extensions,
        )
        return _with_sizes(http, target, profile)


def split_url(url: str) -> tuple[str, str | None, str | None]:
    """(`http://host:port`, model, version). Raises TargetError for anything else."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if parts.scheme != "http" or not host:
        raise TargetError(f"{url!r} is not of the form http://HOST:PORT[/v2/models/NAME]")
    named = MODEL_PATH.fullmatch(parts.path)
    if not named and parts.path.rstrip("/") not in ("", "/v2"):
        raise TargetError(f"{url!r}: the path must be /v2/models/NAME[/versions/V], or nothing")
    literal = f"[{host}]" if ":" in host else host
    groups = named.groupdict() if named else {"model": None, "version": None}
    return f"http://{literal}:{port}", groups["model"], groups["version"]


def _send(http: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401
    try:
        return http.request(method, path, **content)
    except httpx.TimeoutException:
        raise TargetError(f"{http.base_url} does not answer within {TIMEOUT_S:g} s") from None
    except httpx.RemoteProtocolError as error:
        raise TargetError(f"{http.base_url} does not answer in HTTP: {error}") from None
    except httpx.TransportError as error:
        raise TargetError(f"cannot reach {http.base_url}: {error}") from None


def _ask(http: httpx.Client, method: str, path: str) -> dict[str, Any]:
    """A JSON object, or TargetError."""
    response = _send(http, method, path)
    body = _json(response)
    if response.status_code == httpx.codes.NOT_FOUND and path != "/v2":
        raise TargetError(f"{http.base_url} has no {path}{_detail(body)}")
    if response.status_code != httpx.codes.OK or not isinstance(body, dict):
        raise TargetError(
            f"{http.base_url} answers, but not as a V2 inference server "
            f"({method} {path} gave {response.status_code}{_detail(body)})"
        )
    return body


def _json(response: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    try:
        return response.json()
    except ValueError:
        return None


def _detail(body: Any) -> str:  # noqa: ANN401 - any JSON
    return f": {body['error']}" if isinstance(body, dict) and body.get("error") else ""


def _only_model(http: httpx.Client) -> str:
    response = _send(http, "POST", "/v2/repository/index", json={})
    index = _json(response)
    if response.status_code != httpx.codes.OK or not isinstance(index, list):
        raise TargetError(
            f"{http.base_url} does not list its models; name one: {http.base_url}v2/models/NAME"
        )
    names = sorted(
        {str(entry["name"]) for entry in index if isinstance(entry, dict) and "name" in entry}
    )
    if len(names) != 1:
        models = ", ".join(names) or "none"
        raise TargetError(
            f"{http.base_url} serves {models}; name one: {http.base_url}v2/models/NAME"
        )
    return names[0]


def _check_ready(http: httpx.Client, model: str, path: str) -> None:
    response = _send(http, "GET", f"{path}/ready")
    if response.status_code != httpx.codes.OK:
        raise TargetError(
            f"model {model!r} is not ready at {http.base_url} "
            f"(status {response.status_code}{_detail(_json(response))})"
        )


def _specs(metadata: dict[str, Any], side: str, model: str) -> tuple[TensorSpec, ...]:
    """The inputs or outputs that the metadata lists. Raises TargetError when it is malformed."""
    try:
        specs = tuple(_spec(tensor) for tensor in metadata[side])
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"the metadata of {model!r} is not V2: {error!r}") from None
    if not specs:
        raise TargetError(f"the metadata of {model!r} lists no {side}")
    return specs


def _spec(tensor: dict[str, Any]) -> TensorSpec:
    shape = tuple(int(size) for size in tensor["shape"])
    # dlbench's own proxy says which axis is the batch; elsewhere a leading -1 is.
    guess = 0 if shape and shape[0] == -1 else None
    axis = tensor.get("parameters", {}).get("batch_axis", guess)
    return TensorSpec(
        name=tensor["name"],
        datatype=tensor["datatype"],
        shape=shape,
        batch_axis=None if axis == -1 else axis,
    )


def _with_sizes(http: httpx.Client, target: Target, profile: LoadProfile) -> Target:
    """Settle every symbolic dimension: as the profile says, as the data has it, or by trying."""
    stated = tuple(as_stated(spec, profile.shape.get(spec.name)) for spec in target.inputs)
    target = target.model_copy(update={"inputs": stated})
    _check_names(target, profile)
    if profile.data is not None:
        from pathlib import Path

        read_rows(Path(profile.data), target.inputs)
        return target
    symbolic = any(spec.symbolic_axes for spec in target.inputs)
    refusal = ""
    for sizes in candidates(target.inputs) if symbolic else ((),):
        tried = target.model_copy(update={"inputs": filled(target.inputs, sizes)})
        refusal = _refusal(http, tried, profile)
        if not refusal:
            return tried.model_copy(update={"notes": _notes(target.inputs, tried.inputs)})
    names = ", ".join(
        f"{spec.name}{list(spec.shape)}" for spec in target.inputs if spec.symbolic_axes
    )
    if symbolic:
        raise TargetError(
            f"no size that was tried for {names} runs; name one with --shape NAME=D1,D2 ({refusal})"
        )
    raise TargetError(f"model {target.model!r} refuses a generated input: {refusal}")


def _check_names(target: Target, profile: LoadProfile) -> None:
    names = [spec.name for spec in target.inputs]
    for name in profile.shape:
        if name not in names:
            raise TargetError(f"--shape: {target.model!r} has no input {name!r}, but {names}")


def _notes(before: tuple[TensorSpec, ...], after: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    return tuple(
        f"input {old.name!r} {list(old.shape)}: tried sizes, {list(new.shape)} runs; "
        f"--shape {old.name}=… sets another"
        for old, new in zip(before, after, strict=True)
        if old.symbolic_axes
    )


def _refusal(http: httpx.Client, target: Target, profile: LoadProfile) -> str:
    """Why the server does not run one generated request; empty: it does."""
    specs = target.inputs
    body = ENCODINGS[target.uses_binary(profile)](specs, random_row(specs, [profile.seed]))
    headers = {"Content-Type": "application/json"}
    if body.json_length is not None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(body.json_length),
        }
    response = _send(http, "POST", target.path, content=body.content, headers=headers)
    if response.status_code == httpx.codes.OK:
        return ""
    return f"status {response.status_code}{_detail(_json(response))}".splitlines()[0][:300]
