"""Whether a configuration gives the same answers as the default one, asked with a few fixed inputs.

Batching, caching, another number of threads: none of it may change what a client is told. How much
a model's own answers vary is found on the default configuration: kernels differ in the last digits
by batch size, and models that quantise while they run scale by the whole batch.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.inputs.inputs import random_row, read_inputs
from dlbench.loadgen.location import locate
from dlbench.loadgen.protocols.answer import BadAnswer
from dlbench.loadgen.protocols.encode import headers
from dlbench.loadgen.protocols.table import PROTOCOLS
from dlbench.loadgen.quantity import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.encode import Body
    from dlbench.loadgen.protocols.http_link import HttpLink
    from dlbench.loadgen.target import Target
    from dlbench.loadgen.tensors import TensorSpec

SEED = 21
ROWS = 8
# For asking them one by one; a slow model answers fewer, and all of them together.
ALONE_S = 0.03
# Of a slow model so many of the inputs are asked as there is time for, two at least.
FIRST_S, FEWEST = 2.0, 2
# Of an output's largest value. The second is for models that quantise by the batch, where
# rows_independent lets them; whole numbers then may fall either way, and are not looked at.
DIGITS, QUANTISED = 1e-3, 0.1
SAME = "the model is not deterministic; the answers of configurations are not compared"


class ReferenceAnswers:
    """The default configuration's answers; `differs` compares those of another."""

    def __init__(
        self,
        rows: Sequence[Row],
        expected: Sequence[Row],
        tolerance: float,
        request_s: float = 0.0,
        again_s: float = 0.0,
    ) -> None:
        """`request_s` is what a request alone took, `again_s` what asking another server will take."""
        self._rows, self._expected, self._tolerance = rows, expected, tolerance
        self.request_s, self.again_s = request_s, again_s

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the comparison."""
        return () if math.isfinite(self._tolerance) else (SAME,)

    @classmethod
    def of(cls, target: Target, profile: LoadProfile) -> ReferenceAnswers:
        """Ask the default configuration: one by one, again, together, and in one request.

        Raises:
            LoadError: it does not answer, or the data cannot be read.
        """
        rows, began = rows_of(target, profile), time.perf_counter()
        with Asker(target, profile, rows) as asker:
            expected = asker.alone(FIRST_S, FEWEST)
        request_s = (time.perf_counter() - began) / len(expected)
        rows = rows[: len(expected)]
        with Asker(target, profile, rows) as asker:
            again = time.perf_counter()
            ways = (asker.alone(ALONE_S), asker.together())
            again_s = time.perf_counter() - again
            whole = asker.in_one(rows)
        seen = [answer for way in (*ways, whole) for answer in enumerate(way)]
        return cls(rows, expected, own_tolerance(expected, seen), request_s, again_s)

    def differs(self, target: Target, profile: LoadProfile) -> str:
        """How the answers of the server at `target` differ from the default's; "": they do not.

        Raises:
            LoadError: it does not answer.
        """
        if not math.isfinite(self._tolerance):
            return ""
        with Asker(target, profile, self._rows) as asker:
            found = [*enumerate(asker.together()), *enumerate(asker.alone(ALONE_S))]
        return next((why for n, row in found if (why := self._compared(n, row))), "")

    def _compared(self, number: int, found: Row) -> str:
        why = difference(self._expected[number], found, self._tolerance)
        if not why:
            return ""
        name, text = why
        return (
            f"answers differ from the default configuration's: output {name}, row {number}: {text}"
        )


def own_tolerance(expected: Sequence[Row], seen: Sequence[tuple[int, Row]]) -> float:
    """The tightest tolerance that a model's own answers meet; infinite if none. Pure."""
    for tolerance in (DIGITS, QUANTISED):
        if not any(difference(expected[number], row, tolerance) for number, row in seen):
            return tolerance
    return math.inf


class Disagreement(NamedTuple):
    """The output, and what it says against what it should."""

    output: str
    text: str


def difference(expected: Row, found: Row, tolerance: float) -> Disagreement | None:
    """The first output that is not as expected; floats may be off by a share of the largest. Pure.

    A tolerance above `DIGITS` is one for quantised models: it leaves out what is no float.
    """
    for name, wanted in expected.items():
        if name not in found:
            return Disagreement(name, "it is missing")
        got = found[name]
        if got.shape != wanted.shape:
            return Disagreement(name, f"shape {list(got.shape)} against {list(wanted.shape)}")
        if off := _off(wanted.ravel(), got.ravel(), tolerance):
            at = off[0]
            return Disagreement(name, f"{_shown(got.flat[at])} against {_shown(wanted.flat[at])}")
    return None


def _off(wanted: NDArray[Any], got: NDArray[Any], tolerance: float) -> list[int]:
    """Where the elements differ."""
    if wanted.dtype.kind != "f":
        return [] if tolerance > DIGITS else np.flatnonzero(got != wanted).tolist()
    finite = np.abs(wanted[np.isfinite(wanted)])
    bound = tolerance * max(float(finite.max(initial=0.0)), DIGITS)
    same = np.isclose(got, wanted, rtol=0.0, atol=bound, equal_nan=True)
    return np.flatnonzero(~same).tolist()


def _shown(value: Any) -> str:  # noqa: ANN401 - an element of any tensor
    return digits(float(value)) if isinstance(value, float | np.floating) else str(value)


def rows_of(target: Target, profile: LoadProfile) -> list[Row]:
    """Inputs as the load has them: the first of its data, or made. Raises DataError."""
    given = read_inputs(Path(profile.data), target.inputs)[:ROWS] if profile.data else ()
    found = [row for row in given if isinstance(row, dict)]
    return found or [random_row(target.inputs, [SEED, n]) for n in range(ROWS)]


def _batch_axes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Of each tensor; {} where one has none."""
    found = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
    return found if len(found) == len(specs) else {}


class Asker:
    """A context manager: sends each row as a request, and reads the reply."""

    def __init__(self, target: Target, profile: LoadProfile, rows: Sequence[Row]) -> None:
        self._target, self._profile = target, profile
        self._protocol = PROTOCOLS[target.protocol]
        self._bodies = [self._protocol.body(target, profile, row, {}) for row in rows]

    def __enter__(self) -> Asker:
        location = locate(self._target.url, self._profile)
        self._link: HttpLink = self._protocol.link(location, self._profile)  # type: ignore[assignment]
        self._pool = ThreadPoolExecutor(len(self._bodies))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._link.__exit__()

    def together(self) -> list[Row]:
        """All at the same time, so that they meet in a batch."""
        return list(self._pool.map(self._ask, self._bodies))

    def alone(self, seconds: float, fewest: int = 1) -> list[Row]:
        """Send the first requests one after another, as many as there is time for."""
        until = time.perf_counter() + seconds
        found: list[Row] = []
        for body in self._bodies:
            if len(found) < fewest or time.perf_counter() < until:
                found.append(self._ask(body))
        return found

    def in_one(self, rows: Sequence[Row]) -> list[Row]:
        """All in one request, which makes them one batch; [] where they do not fit into one."""
        inputs, outputs = _batch_axes(self._target.inputs), _batch_axes(self._target.outputs)
        shapes = {tuple(array.shape for array in row.values()) for row in rows}
        if not inputs or not outputs or len(shapes) > 1:
            return []
        whole = {n: np.concatenate([row[n] for row in rows], axis) for n, axis in inputs.items()}
        found = self._ask(self._protocol.body(self._target, self._profile, whole, {}))
        parts = {n: np.array_split(found[n], len(rows), axis) for n, axis in outputs.items()}
        return [{n: of_all[at] for n, of_all in parts.items()} for at in range(len(rows))]

    def _ask(self, body: Body) -> Row:
        content = {"content": body.content, "headers": headers(self._profile, body)}
        reply = self._link.send("POST", self._target.path, **content)
        if not reply.is_success:
            raise TargetError(f"status {reply.status_code}: {reply.text[:200]}")
        try:
            return self._protocol.read(reply.content, self._target).outputs
        except BadAnswer as bad:
            raise TargetError(f"an unreadable reply ({bad})") from None
