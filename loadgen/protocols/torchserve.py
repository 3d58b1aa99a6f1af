"""TorchServe's inference API: JSON in the envelope of KServe V1, a template, or raw bytes.

https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.stated import stated_inputs
from dlbench.loadgen.protocols.encode import RAW_TYPE, Body, joined, raw_tensor
from dlbench.loadgen.protocols.plain import check_template, from_template
from dlbench.loadgen.protocols.tfserving import instance
from dlbench.loadgen.target import Target

if TYPE_CHECKING:
    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.http_link import HttpLink


def describe(link: HttpLink, location: Location, profile: LoadProfile) -> Target:
    """What the profile says of the inputs (--shape is a row's): the server says nothing."""
    if location.model is None:
        raise TargetError(f"no model given; use {link.base}/predictions/NAME")
    inputs = stated_inputs(profile, "TorchServe has no metadata")
    check_template(profile, inputs)
    return Target(
        url=location.base,
        protocol="torchserve",
        model=location.model,
        version=location.version,
        path=location.path.rstrip("/"),
        inputs=inputs,
    )


def body(target: Target, profile: LoadProfile, row: Row, _: dict[str, int]) -> Body:
    """One row."""
    if profile.encoding == "binary":
        whole = joined(*(raw_tensor(row[spec.name], spec.datatype) for spec in target.inputs))
        return Body(whole.content, whole.places, RAW_TYPE)
    if profile.template is not None:
        return from_template(profile.template, target.inputs, row)
    return joined(b'{"instances":[', instance(target.inputs, row), b"]}")
