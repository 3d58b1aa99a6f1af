"""The search space: which values of which knobs make sense for this model on this machine. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlbench.proxy.config import THREADS_PER_CORE, ServingConfig
from dlbench.proxy.knob import KNOBS, search_values
from dlbench.tuner.errors import TuneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlbench.proxy.knob import Knob

Values = Mapping[str, tuple[Any, ...]]

# A knob that only matters while another has more than one certain value: (knob, other, value).
MOOT = tuple((knob.name, *knob.moot) for knob in KNOBS.values() if knob.moot)
NAIVE = {knob.name: knob.naive for knob in KNOBS.values() if knob.naive is not None}
# Multiplied, these are the threads that compute.
THREADED = tuple(knob.name for knob in KNOBS.values() if knob.per_core)
# Every configuration is looked at before any is measured: more would take longer than that is worth.
MOST_CONFIGURATIONS = 100_000


@dataclass(frozen=True)
class Space:
    """Knob -> values to try, the configuration that everything else is a change of, and remarks."""

    values: Values
    default: ServingConfig
    cores: int
    notes: tuple[str, ...] = ()

    def configuration(self, choice: Mapping[str, Any]) -> ServingConfig:
        """The configuration of a choice, with knobs that cannot matter at their plain value."""
        values = {**self.default.model_dump(), **choice}
        for knob, other, value in MOOT:
            if values[other] == value:
                values[knob] = self._closest(knob, getattr(self.default, knob))
        return ServingConfig(**values)

    def sensible(self, config: ServingConfig) -> bool:
        """Whether workers and their threads fit the cores."""
        threads: int = math.prod(getattr(config, knob) for knob in THREADED)
        return threads <= THREADS_PER_CORE * self.cores

    def configurations(self) -> Iterator[ServingConfig]:
        """Every sensible configuration, each once."""
        choices = itertools.product(*self.values.values())
        found = (self.configuration(dict(zip(self.values, c, strict=True))) for c in choices)
        return (config for config in dict.fromkeys(found) if self.sensible(config))

    def __contains__(self, config: ServingConfig) -> bool:
        """Whether a configuration is one that `configurations` would name."""
        choice = {knob: getattr(config, knob) for knob in self.values}
        known = all(value in self.values[knob] for knob, value in choice.items())
        return known and self.sensible(config) and self.configuration(choice) == config

    def nearest(self, config: ServingConfig) -> ServingConfig:
        """The configuration of the space that differs least from another."""
        found = self.configuration({k: self._closest(k, getattr(config, k)) for k in self.values})
        if self.sensible(found):
            return found
        return min(self.configurations(), key=lambda other: _differences(found, other))

    @property
    def naive(self) -> ServingConfig:
        """What a tutorial's server does, as near as the space allows."""
        return self.nearest(naive(self.default))

    @property
    def facts(self) -> dict[str, list[Any]]:
        """Every knob -> the values it may take, as a study file keeps them."""
        fixed = {knob: [value] for knob, value in self.default.model_dump(mode="json").items()}
        return fixed | {knob: list(values) for knob, values in self.values.items()}

    def _closest(self, knob: str, wanted: Any) -> Any:  # noqa: ANN401 - the knob's type
        return min(self.values.get(knob, (wanted,)), key=lambda value: _distance(value, wanted))


def build_space(
    default: ServingConfig,
    cores: int,
    *,
    repeats_inputs: bool,
    batchable: bool,
    restriction: Values | None = None,
) -> Space:
    """Cut the declared values down to what can matter here; every cut leaves a note.

    `restriction` maps knobs to the only values that they may take (`tuner.restriction`); the
    baselines keep to it as well, so that whatever is recommended does.

    Raises:
        TuneError: nothing is left to search, or more than can be looked at.
    """
    said = restriction or {}
    values = _declared(default, cores) | {k: v for k, v in said.items() if not _is_list(v)}
    lists = {knob: own[0] for knob, own in said.items() if _is_list(own)}
    notes = [_told(knob, own) for knob, own in said.items()]
    if not repeats_inputs and len(values["cache_size"]) > 1:
        del values["cache_size"]
        notes.append(
            "every input is distinct, so a cache cannot help and is left out of the search; "
            "--distinct N --zipf S describe how inputs repeat"
        )
    if not batchable:
        _need_one_row(values.pop("max_batch_size"), said)
        notes.append("the model takes one row at a time, so batching is left out of the search")
    notes += _cut_to_cores(values, cores)
    notes += _cut_moot(values, default)
    _check_size(values)
    return _with_baselines_inside(Space(values, default.model_copy(update=lists), cores), notes)


def naive(default: ServingConfig) -> ServingConfig:
    """What a tutorial's server does: one worker, batch 1, no cache."""
    return default.model_copy(update=NAIVE)


def _declared(default: ServingConfig, cores: int) -> dict[str, tuple[Any, ...]]:
    """What the declaration says, the default's own values among it."""
    return {name: _searched(KNOBS[name], default, cores) for name in search_values()}


def _searched(knob: Knob, default: ServingConfig, cores: int) -> tuple[Any, ...]:
    if not knob.per_core:
        return knob.searched
    few = {value for value in knob.searched if value <= knob.per_core * cores}
    # A default that the machine decides need not be among the declared.
    decided = {getattr(default, knob.name)} if knob.default not in knob.searched else set()
    return tuple(sorted(few | decided))


def _told(knob: str, values: tuple[Any, ...]) -> str:
    shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return f"{knob} is {f'fixed at {shown}' if len(values) == 1 else f'searched over {shown}'}"


def _need_one_row(sizes: tuple[int, ...], said: Values) -> None:
    if "max_batch_size" in said and 1 not in sizes:
        raise TuneError(
            f"max_batch_size cannot be {sizes[0]}: the model takes one row at a time, no batches"
        )


def _cut_to_cores(values: dict[str, tuple[Any, ...]], cores: int) -> list[str]:
    """Leave out what has more threads than the cores can do with, and say how much that is."""
    choices = list(itertools.product(*(values[knob] for knob in THREADED)))
    most = THREADS_PER_CORE * cores
    kept = [choice for choice in choices if math.prod(choice) <= most]
    limit = f"more than {most} threads in total only take turns on {cores} cores"
    if not kept:
        least = min(map(math.prod, choices))
        raise TuneError(f"{' x '.join(THREADED)} is at least {least}, and {limit}")
    for knob, own in zip(THREADED, zip(*kept, strict=True), strict=True):
        values[knob] = tuple(v for v in values[knob] if v in own)
    if len(kept) == len(choices):
        return []
    gone, all_of = len(choices) - len(kept), f"{len(choices)} pairs of {' and '.join(THREADED)}"
    return [f"{gone} of {all_of} are left out: {limit}"]


def _cut_moot(values: dict[str, tuple[Any, ...]], default: ServingConfig) -> list[str]:
    """Leave out what cannot matter because of the only value that another knob may have."""
    notes = []
    for knob, other, value in MOOT:
        only = values.get(other, (getattr(default, other),)) == (value,)
        if only and len(values.get(knob, ())) > 1:
            del values[knob]
            notes.append(f"{knob} is left out of the search: it has no effect with {other} {value}")
    return notes


def _check_size(values: Values) -> None:
    count = math.prod(len(own) for own in values.values())
    if count > MOST_CONFIGURATIONS:
        raise TuneError(
            f"the space has {count:,} configurations, more than the {MOST_CONFIGURATIONS:,} that "
            "can be evaluated; --fix a knob or narrow a --range"
        )


def _with_baselines_inside(space: Space, notes: list[str]) -> Space:
    found = replace(space, default=space.nearest(space.default))
    if (found.default, found.naive) != (space.default, naive(space.default)):
        notes.append("the restrictions apply to the baselines too")
    return replace(found, notes=tuple(notes))


def _is_list(values: tuple[Any, ...]) -> bool:
    """Whether a knob's value is itself a list: that can be fixed, but has no order to search in."""
    return isinstance(values[0], tuple)


def _distance(one: Any, other: Any) -> float:  # noqa: ANN401 - two values of one knob
    if isinstance(one, str | tuple):
        return float(one != other)
    return abs(float(one) - float(other))


def _differences(one: ServingConfig, other: ServingConfig) -> int:
    return sum(value != getattr(other, knob) for knob, value in one.model_dump().items())
