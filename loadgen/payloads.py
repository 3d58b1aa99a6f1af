"""The endless sequence of requests of one run: which input comes next, as ready bytes."""

from __future__ import annotations

from itertools import count, cycle
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.loadgen.digits import NEVER_REPEATS, Stamped
from dlbench.loadgen.encode import ENCODINGS, request, template
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs import random_row, read_rows
from dlbench.loadgen.popularity import ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dlbench.loadgen.inputs import Row
    from dlbench.loadgen.messages import Job
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.tensors import TensorSpec

Request = bytes | bytearray
# Seeds the inputs that a load with `distinct` repeats.
CATALOGUE = 0
To = tuple[str, str]  # host (as the Host header says it) and path


def recorded_requests(
    rows: Sequence[Row], specs: Sequence[TensorSpec], binary: bool, profile: LoadProfile, to: To
) -> Callable[[], Request]:
    """Requests from a data file: in its order, or by popularity where one is stated."""
    requests = [request(*to, ENCODINGS[binary](specs, row)) for row in rows]
    distinct = min(profile.distinct or len(rows), len(rows))
    order: Iterator[int] = cycle(range(len(rows)))
    if profile.distinct or profile.zipf:
        order = ranks(distinct, profile.zipf, profile.seed)
    return lambda: requests[next(order)]


def generated_requests(
    specs: Sequence[TensorSpec], binary: bool, profile: LoadProfile, nonce: int, to: To
) -> Callable[[], Request]:
    """Requests made from the metadata.

    `distinct` inputs are the same ones in every run, whatever its seed: a new seed is a new order
    over the same catalogue, or no cache would ever be warm. Without `distinct` every input is new, in this run and against earlier runs too: that is what `nonce` is for, since a
    cache may still hold what an earlier run sent. Raises DataError when the inputs are too small
    to be told apart so often.
    """
    seed = [CATALOGUE] if profile.distinct else [profile.seed, nonce]
    wanted = profile.distinct or NEVER_REPEATS
    body = ENCODINGS[binary](specs, random_row(specs, seed))
    content, places, capacity = template(*to, body, wanted)
    if capacity < profile.distinct:
        raise DataError(f"this model's inputs are so small that only {capacity} can be distinct")
    show = Stamped(content, places).show
    order: Iterator[int] = count()
    if profile.distinct:
        order = ranks(profile.distinct, profile.zipf, profile.seed)
    return lambda: show(next(order))


def requests_of(job: Job) -> Callable[[], Request]:
    """The requests that a job asks for. Raises DataError."""
    profile, specs, to = job.profile, job.inputs, (f"{job.host}:{job.port}", job.path)
    if profile.data is None:
        return generated_requests(specs, job.binary, profile, job.nonce, to)
    return recorded_requests(read_rows(Path(profile.data), specs), specs, job.binary, profile, to)
