"""Whether the rows of a batch leave each other alone: asked of the model by running it.

Shapes cannot tell: a model that subtracts the mean over its batch has an output that grows with
the batch, and gives every client an answer that depends on who asked at the same time.

Batches of equal size are computed by equal kernels, so a row has to come out equal to the bit
whatever the others are. In another place or another size of batch a kernel may add up in another
order, or end with other leftovers: there the last digits are forgiven.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlbench.proxy.models.probes import Probes, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.models.probes import Arrays, ProbeBatch, Run
    from dlbench.proxy.tensors import Signature, TensorSpec

# The first trial is always made, others only if they can be expected to end within this: a slow
# model must not start slowly because of them.
LONGEST_S = 1.0
# Of an output's largest value: what kernels may differ by. Measured on ten real models with one
# thread and two: 2e-7 by place. By size as well, but 1e-2 where a model normalises what does not vary:
# so much is forgiven in one trial, but not in most; that leaves room for halves, and a GPU's TF32.
PLACE, SIZE, MOSTLY = 1e-3, 0.1, 1e-2
# Of the elements of an output that is not of floats: rounding turns a last digit into a whole one.
ROUNDED = 0.01

OVERRULE = " (--rows-independent overrules)"
UNKNOWN = ", so it is unknown whether its rows depend on each other" + OVERRULE
COUPLED = "the rows of output {!r} depend on each other" + OVERRULE
SHAPED = "the shape of output {!r} depends on the batch" + OVERRULE
PLACED = "output {!r} depends on a row's place in the batch" + OVERRULE
SIZED = "output {!r} depends on the size of the batch" + OVERRULE
ROLLING = "output {!r} differs from run to run" + UNKNOWN
REFUSED = "the model rejects all values that were tried" + UNKNOWN


class Independence(NamedTuple):
    """Why rows must not share a batch, "" if they may; and trials left out for want of time."""

    why: str = ""
    left_out: int = 0


class Coupled(Exception):
    """Rows must not share a batch; the message says why."""


def examine(
    signature: Signature,
    one_row: Sequence[tuple[int, ...]],
    run: Run,
    most_rows: int,
    clock: Callable[[], float],
) -> Independence:
    """Run batches of up to `most_rows` rows and look for answers that depend on other rows.

    `one_row` holds the input shapes of one row that runs, `clock` gives seconds. The first trial is
    always made, others while they are expected to end within `LONGEST_S`. Values that the model refuses say nothing.
    """
    began, spent, told, left_out = clock(), 0, 0, 0
    probes = Probes(signature, one_row, run)
    gaps: dict[str, list[float]] = defaultdict(list)
    for seed, trial in enumerate(trials(most_rows)):
        if spent and (clock() - began) * (1 + trial.cost / spent) > LONGEST_S:
            left_out += 1
            continue
        spent += trial.cost
        try:
            bench = _Bench(signature, run, probes, trial, seed)
            told += bench.carry_out()
        except Coupled as found:
            return Independence(str(found))
        for name, gap in bench.gaps.items():
            gaps[name].append(gap)
    if sized := [name for name, found in gaps.items() if median(found) > MOSTLY]:
        return Independence(SIZED.format(sized[0]))
    return Independence("", left_out) if told else Independence(REFUSED)


class _Bench:
    """One trial under way."""

    def __init__(
        self, signature: Signature, run: Run, probes: Probes, trial: ProbeBatch, seed: int
    ) -> None:
        self._inputs, self._outputs = signature.inputs, signature.outputs
        self._run, self._probes, self._trial, self._seed = run, probes, trial, seed
        self._places = np.arange(trial.rows)
        self._kept = probes.draw(trial.rows, trial.kept, (seed, 0))
        self._answers: Arrays = []
        self.gaps: dict[str, float] = {}  # of each output, between a row of the batch and it alone

    def carry_out(self) -> int:
        """How many comparisons could be made.

        Raises:
            Coupled: an answer changed with the other rows.
        """
        self._answers = self._asked(self._kept, self._trial.rows)
        if not self._answers:
            return 0
        told = sum(self._replace(number) for number in range(len(self._trial.others)))
        self._move(np.roll(self._places, 1), PLACE, PLACED)
        self.gaps = self._move(self._places[:1], SIZE, SIZED)
        return told

    def _replace(self, number: int) -> bool:
        """Every second row gives way to another; whether the rest could be compared."""
        values, seed = self._trial.others[number], (self._seed, 1 + number)
        others = self._probes.draw(self._trial.rows, values, seed)
        gone, rest = self._places[number % 2 :: 2], self._places[1 - number % 2 :: 2]
        rows = zip(self._inputs, self._kept, others, strict=True)
        batch = [_replaced(spec, kept, other, gone) for spec, kept, other in rows]
        if all(map(_same, batch, self._kept)):
            return False
        found = self._asked(batch, self._trial.rows)
        for spec, a, b in zip(self._outputs, self._answers, found, strict=False):
            if not _same(_rows(spec, a, rest), _rows(spec, b, rest)):
                raise Coupled(self._why(spec))
        return bool(found)

    def _why(self, spec: TensorSpec) -> str:
        """Its rows depend on each other, unless it never says the same twice."""
        again = self._asked(self._kept, self._trial.rows)
        same = again and all(map(_same, self._answers, again))
        return (COUPLED if same else ROLLING).format(spec.name)

    def _move(self, places: NDArray[Any], tolerance: float, text: str) -> dict[str, float]:
        """The rows in these places, as a batch of their own, are answered as before: how nearly."""
        pairs = zip(self._inputs, self._kept, strict=True)
        found = self._asked([_rows(spec, array, places) for spec, array in pairs], len(places))
        gaps = {
            spec.name: _gap(_rows(spec, a, places), b)
            for spec, a, b in zip(self._outputs, self._answers, found, strict=False)
        }
        if far := [name for name, gap in gaps.items() if gap > tolerance]:
            raise Coupled(text.format(far[0]))
        return gaps

    def _asked(self, batch: Arrays, rows: int) -> Arrays:
        """The outputs, [] if the model refuses.

        Raises:
            Coupled: one has not a row for each, or rows of another shape than before.
        """
        try:
            found = self._run(batch)
        except Exception:  # whatever a model says to values that it was not made for
            return []
        for spec, array, known in zip(self._outputs, found, self._answers or found, strict=True):
            if array.shape != _resized(spec, known.shape, rows):
                raise Coupled(SHAPED.format(spec.name))
        return found


def _rows(spec: TensorSpec, array: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    return array.take(places, spec.batch_axis) if spec.batch_axis >= 0 else array


def _resized(spec: TensorSpec, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    return (*shape[: spec.batch_axis], rows, *shape[spec.batch_axis + 1 :])


def _replaced(
    spec: TensorSpec, kept: NDArray[Any], others: NDArray[Any], places: NDArray[Any]
) -> NDArray[Any]:
    if spec.batch_axis < 0:
        return kept
    batch = kept.copy()
    where: Any = (*(slice(None),) * spec.batch_axis, places)
    batch[where] = others[where]
    return batch


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _gap(one: NDArray[Any], other: NDArray[Any]) -> float:
    """How far apart they are, in parts of the largest value; infinitely where more than digits differ."""
    if _same(one, other):
        return 0.0
    if one.dtype.kind != "f":
        return 0.0 if np.count_nonzero(one != other) <= ROUNDED * one.size else np.inf
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.where(finite, 0, a), np.where(np.isfinite(b), 0, b), equal_nan=True):
        return np.inf
    apart = np.abs(a[finite] - b[finite]).max(initial=0.0)
    largest = np.abs(a[finite]).max(initial=0.0)
    if not apart:
        return 0.0
    return float(apart / largest) if largest else np.inf
