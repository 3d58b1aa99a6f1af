"""The requests of one load by number: which input the n-th carries, as ready bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.inputs import RawBody, random_row, read_inputs
from dlbench.loadgen.protocols.digits import NEVER_REPEATS, Stamped
from dlbench.loadgen.protocols.encode import Body, http_head, template
from dlbench.loadgen.protocols.table import PROTOCOLS
from dlbench.loadgen.schedule.mix import Mix
from dlbench.loadgen.schedule.popularity import Draws, churning, ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.profile import LoadProfile, RequestClass
    from dlbench.loadgen.target import Target

# Seeds the inputs that a load with `distinct` repeats.
CATALOGUE = 0
NO_ROW = -1
US_PER_MS = 1000


class Requests(Protocol):
    """Random access to the requests of a load; number n is the n-th of the whole load."""

    def at(self, number: int) -> bytes | bytearray:
        """A complete HTTP/1.1 request, or a gRPC message; valid until the next call."""
        ...

    def classes(self, numbers: NDArray[np.int64]) -> NDArray[np.int8]:
        """Which of the profile's request classes each belongs to; 0 without any."""
        ...

    def row(self, number: int) -> int:
        """The row of the data file that a request carries; -1: none."""
        ...


class _OneClass:
    def classes(self, numbers: NDArray[np.int64]) -> NDArray[np.int8]:
        return np.zeros(len(numbers), np.int8)


class NewInputs(_OneClass):
    """A template with the number stamped into it: every input is new."""

    def __init__(self, stamped: Stamped) -> None:
        self._show = stamped.show

    def at(self, number: int) -> bytearray:
        return self._show(number)

    def row(self, _: int) -> int:
        return NO_ROW


class RepeatedInputs(NewInputs):
    """A template with numbers that come again, as `order` has them."""

    def __init__(self, stamped: Stamped, order: Draws) -> None:
        super().__init__(stamped)
        self._order = order

    def at(self, number: int) -> bytearray:
        return self._show(self._order[number])


class RecordedInputs(_OneClass):
    """Requests made from a data file, in its order."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests, self._count = requests, len(requests)

    def at(self, number: int) -> bytes:
        return self._requests[self.row(number)]

    def row(self, number: int) -> int:
        return number % self._count


class PopularInputs(RecordedInputs):
    """Requests made from a data file, by popularity; what churn brings in comes after them."""

    def __init__(self, requests: Sequence[bytes], order: Draws, distinct: int) -> None:
        super().__init__(requests)
        self._order, self._distinct = order, distinct

    def row(self, number: int) -> int:
        drawn = self._order[number]
        if drawn < self._distinct:
            return drawn
        return self._distinct + (drawn - self._distinct) % (self._count - self._distinct)


class MixedRequests:
    """Each request belongs to one of several classes, which have requests of their own."""

    def __init__(self, mix: Mix, parts: Sequence[Requests], checked: Sequence[bool]) -> None:
        self._mix, self._parts, self._checked = mix, parts, checked
        self.classes = mix.of

    def at(self, number: int) -> bytes | bytearray:
        return self._parts[self._mix.at(number)].at(number)

    def row(self, number: int) -> int:
        part = self._mix.at(number)
        return self._parts[part].row(number) if self._checked[part] else NO_ROW


def requests_of(target: Target, profile: LoadProfile, nonce: int) -> Requests:
    """The requests of a load.

    `distinct` inputs are the same ones in every run, whatever its seed: a new seed is a new order
    over the same catalogue, or no cache would ever be warm. Without `distinct` every input is new,
    in this run and against earlier runs too: that is what `nonce` is for, since a cache may still
    hold what an earlier run sent. Raises DataError for inputs that are too small to be told apart
    so often, for data that does not fit, and for what the protocol cannot say.
    """
    classes = list(profile.request_class.values())
    if not classes:
        return _of_one_class(target, profile, nonce, {})
    parts = [
        _of_one_class(
            target,
            profile.model_copy(update={"data": given.data or profile.data}),
            nonce,
            _parameters(given, target),
        )
        for given in classes
    ]
    mix = Mix([given.weight for given in classes], profile.seed)
    # The rows of a class's own data are not those that --check knows.
    return MixedRequests(mix, parts, [given.data is None for given in classes])


def _parameters(given: RequestClass, target: Target) -> dict[str, int]:
    """V2's parameters; a deadline is also kept without them, by the client that counts."""
    found = {}
    if given.priority:
        found["priority"] = given.priority
    if not PROTOCOLS[target.protocol].parameters:
        if found:
            raise DataError(f"{target.protocol} requests cannot carry a priority; use V2")
        return {}
    if given.deadline_ms is not None:
        found["timeout"] = max(1, round(given.deadline_ms * US_PER_MS))
    return found


def _of_one_class(
    target: Target, profile: LoadProfile, nonce: int, parameters: dict[str, int]
) -> Requests:
    if profile.data is None:
        return _generated(target, profile, nonce, parameters)
    return _recorded(target, profile, parameters)


def _generated(
    target: Target, profile: LoadProfile, nonce: int, parameters: dict[str, int]
) -> Requests:
    seed = [CATALOGUE] if profile.distinct else [profile.seed, nonce]
    wanted = NEVER_REPEATS if profile.churn else profile.distinct or NEVER_REPEATS
    row = random_row(target.inputs, seed)
    body = PROTOCOLS[target.protocol].body(target, profile, row, parameters)
    content, places, capacity = template(_head(target, profile, body), body, wanted)
    if capacity < profile.distinct:
        raise DataError(f"this model's inputs are too small: only {capacity} can be distinct")
    stamped = Stamped(content, places)
    if not profile.distinct:
        return NewInputs(stamped)
    return RepeatedInputs(stamped, _order(profile, profile.distinct))


def _recorded(target: Target, profile: LoadProfile, parameters: dict[str, int]) -> Requests:
    rows = read_inputs(Path(profile.data or ""), target.inputs)
    requests = [_request(target, profile, row, parameters) for row in rows]
    distinct = min(profile.distinct or len(rows), len(rows))
    if not (profile.distinct or profile.zipf or profile.churn):
        return RecordedInputs(requests)
    if profile.churn and distinct == len(rows):
        raise DataError(f"churn needs more rows than --distinct: {profile.data} has {len(rows)}")
    return PopularInputs(requests, _order(profile, distinct), distinct)


def _order(profile: LoadProfile, distinct: int) -> Draws:
    if not profile.churn:
        return ranks(distinct, profile.zipf, profile.seed)
    return churning(distinct, profile.zipf, profile.seed, profile.churn)


def _request(
    target: Target, profile: LoadProfile, row: Row | RawBody, parameters: dict[str, int]
) -> bytes:
    if isinstance(row, RawBody):
        body = Body(row.content, (), row.content_type)
    else:
        body = PROTOCOLS[target.protocol].body(target, profile, row, parameters)
    return _head(target, profile, body) + body.content


def _head(target: Target, profile: LoadProfile, body: Body) -> bytes:
    return http_head(target, profile, body) if PROTOCOLS[target.protocol].http else b""
