"""Finds out what a server serves, and with which inputs it can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.inputs import random_row, read_inputs
from dlbench.loadgen.inputs.sizes import as_stated, candidates, filled, guess_notes, guesses
from dlbench.loadgen.location import locate
from dlbench.loadgen.protocols.table import PROTOCOLS

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.grpc_v2 import GrpcLink
    from dlbench.loadgen.protocols.http_link import HttpLink
    from dlbench.loadgen.target import Target


def discover(url: str, profile: LoadProfile) -> Target:
    """Ask the server what it serves; `location.FORMS` has the URLs.

    Raises TargetError in one line: unreachable, another protocol, which models there are when none
    is named, not ready, no size that runs. Raises DataError for data that does not fit.
    """
    location = locate(url, profile)
    protocol = PROTOCOLS[location.protocol]
    with protocol.link(location, profile) as link:
        return _with_sizes(link, protocol.describe(link, location, profile), profile)


def _with_sizes(link: HttpLink | GrpcLink, target: Target, profile: LoadProfile) -> Target:
    """Settle every symbolic dimension: from the profile, from the data, or by trying."""
    stated = tuple(as_stated(spec, profile.shape.get(spec.name)) for spec in target.inputs)
    target = target.model_copy(update={"inputs": stated})
    _check_names(target, profile)
    if profile.data is not None:
        read_inputs(Path(profile.data), target.inputs)
        return target
    symbolic = any(spec.symbolic_axes for spec in target.inputs)
    refusal = ""
    for sizes in candidates(target.inputs) if symbolic else ((),):
        tried = target.model_copy(update={"inputs": filled(target.inputs, sizes)})
        refusal = _refusal(link, tried, profile)
        if not refusal:
            known = guesses(target.inputs, tried.inputs)
            return tried.model_copy(update={"guessed": known, "notes": guess_notes(known)})
    names = ", ".join(
        f"{spec.name}{list(spec.shape)}" for spec in target.inputs if spec.symbolic_axes
    )
    if symbolic:
        raise TargetError(
            f"no guessed size of {names} runs; set it with --shape NAME=D1,D2 ({refusal})"
        )
    raise TargetError(f"model {target.model!r} rejects a generated input: {refusal}")


def _refusal(link: HttpLink | GrpcLink, target: Target, profile: LoadProfile) -> str:
    """Why the server does not run one generated request; empty: it does."""
    row = random_row(target.inputs, [profile.seed])
    return link.refusal(target, PROTOCOLS[target.protocol].body(target, profile, row, {}))


def _check_names(target: Target, profile: LoadProfile) -> None:
    names = [spec.name for spec in target.inputs]
    for name in profile.shape:
        if name not in names:
            raise TargetError(f"--shape: {target.model!r} has no input {name!r}; it has {names}")
