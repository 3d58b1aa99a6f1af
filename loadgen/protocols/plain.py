"""JSON over HTTP as tutorials have it: a template with `$NAME` where an input's values go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.stated import stated_inputs
from dlbench.loadgen.json_text import parse
from dlbench.loadgen.protocols.answer import NOT_JSON, Answer, BadAnswer
from dlbench.loadgen.protocols.encode import Body, joined, json_tensor
from dlbench.loadgen.protocols.tfserving import columns
from dlbench.loadgen.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.http_link import HttpLink
    from dlbench.loadgen.tensors import TensorSpec

PLACEHOLDER = re.compile(r"\$(?:\{([^}]+)\}|([A-Za-z_]\w*))")


def describe(_: HttpLink, location: Location, profile: LoadProfile) -> Target:
    """What the profile says of the inputs: the server says nothing. Raises TargetError."""
    inputs = stated_inputs(profile, "plain JSON has no metadata")
    check_template(profile, inputs)
    path = location.path or "/"
    name = path.partition("?")[0].strip("/") or "plain"
    return Target(url=location.base, protocol="plain", model=name, path=path, inputs=inputs)


def check_template(profile: LoadProfile, inputs: tuple[TensorSpec, ...]) -> None:
    """Raises TargetError for a template that names no input, another one, or makes no JSON."""
    template = profile.template
    if template is None or not inputs:
        return
    names = [spec.name for spec in inputs]
    wanted = [found[1] or found[2] for found in PLACEHOLDER.finditer(template)]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise TargetError(
            f"--template {template!r} must name inputs ({', '.join(f'${n}' for n in names)})"
            + (f"; there is no ${unknown[0]}" if unknown else "")
        )
    try:
        orjson.loads(PLACEHOLDER.sub("0", template))
    except orjson.JSONDecodeError as error:
        raise TargetError(f"--template {template!r} is not JSON: {error}") from None


def body(target: Target, profile: LoadProfile, row: Row, _: dict[str, int]) -> Body:
    """The template filled in; without one, an object of all inputs by name."""
    if profile.template is None:
        return columns(target.inputs, row)
    return from_template(profile.template, target.inputs, row)


def from_template(template: str, specs: tuple[TensorSpec, ...], row: Row) -> Body:
    """The template with an input's values, as JSON, for each placeholder."""
    datatypes = {spec.name: spec.datatype for spec in specs}
    pieces: list[Body | bytes] = []
    at = 0
    for found in PLACEHOLDER.finditer(template):
        name = found[1] or found[2]
        pieces.append(template[at : found.start()].encode())
        pieces.append(json_tensor(row[name], datatypes[name], row[name].shape))
        at = found.end()
    return joined(*pieces, template[at:].encode())


def read(content: bytes, _: Target) -> Answer:
    """The values at the leaves of the JSON, by their keys. Raises BadAnswer."""
    return Answer(dict(_leaves("", document(content))))


def document(content: bytes) -> Any:  # noqa: ANN401 - any JSON
    """The reply's JSON. Raises BadAnswer."""
    try:
        return parse(content)
    except ValueError:
        raise BadAnswer(NOT_JSON) from None


def _leaves(name: str, value: Any) -> list[tuple[str, NDArray[Any]]]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in _leaves(key, part)]
    try:
        return [(name, np.array(value))]
    except (ValueError, OverflowError):  # lists of different lengths, numbers beyond 64 bits
        return [(name, np.array(None, object))]
