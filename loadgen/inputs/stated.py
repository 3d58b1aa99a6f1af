"""The inputs of a model whose server does not describe them, as stated by the user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.inputs import specs_of
from dlbench.loadgen.tensors import TensorSpec

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile


def stated_inputs(profile: LoadProfile, why: str) -> tuple[TensorSpec, ...]:
    """Inputs as in the data file, or floats with the sizes of --shape.

    `why` the server is not asked begins the sentence of the TargetError that neither is there.
    """
    if profile.data is not None:
        found = specs_of(Path(profile.data))
        return tuple(spec.model_copy(update={"name": spec.name or "input"}) for spec in found)
    if not profile.shape:
        raise TargetError(f"{why}; set the inputs' sizes with --shape NAME=D1,D2, or give --data")
    return tuple(
        TensorSpec(name=name, datatype="FP32", shape=sizes) for name, sizes in profile.shape.items()
    )
