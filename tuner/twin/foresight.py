"""What the twin expects of a whole space, from one calibration. Pure: the same again on resuming."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.inputs.inputs import read_inputs
from dlbench.tuner.twin import twin
from dlbench.tuner.twin.predictions import Predictions
from dlbench.tuner.twin.scenario import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dlbench.loadgen.profile import LoadProfile
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.twin import Curve

# Simulated requests over all configurations: some seconds, whatever the size of the space.
ALL_REQUESTS = 10_000_000
FEWEST_REQUESTS, MOST_REQUESTS = 2_000, 10_000
# Of a larger space so many are looked at, drawn by chance.
MOST_CONFIGURATIONS = 10_000
# Looked at between two looks at the clock, at first fewer: on a busy machine one may take seconds.
# The first have the baselines among them.
FIRST_GROUP, GROUP, BASELINES = 4, 32, 2


class Foresight(NamedTuple):
    """Predictions, None where nothing of the space can run, and what a person should know of them.

    `configurations` is how many of those that can run were looked at.
    """

    predictions: Predictions | None
    notes: tuple[str, ...]
    configurations: int


def foresee(
    space: Space,
    calibration: Calibration,
    load: Load,
    shares: tuple[float, ...] = twin.SHARES,
    *,
    left_s: Callable[[], float] = lambda: math.inf,
    most: int | None = None,
) -> Foresight:
    """The curves of all configurations that can run here, the baselines among them.

    Or of as many as can be looked at while `left_s` is more than 0, drawn by chance: `most` of them
    are the same ones again.
    """
    configs, notes = _drawn(space)
    reasons = {config: twin.infeasible(config, calibration) for config in configs}
    possible = [config for config in configs if not reasons[config]]
    notes += _left_out([reason for reason in reasons.values() if reason], len(configs))
    if load.cyclic and any(config.cache_size for config in possible):
        notes.append(
            f"the {load.distinct:,} rows of the data repeat in order, so a cache can help; --fix "
            "cache_size=0 leaves it out"
        )
    requests = int(np.clip(ALL_REQUESTS // max(1, len(possible)), FEWEST_REQUESTS, MOST_REQUESTS))
    load = load.model_copy(update={"requests": requests})
    known: dict[ServingConfig, Curve] = {}
    for some in _groups(possible, most):
        known |= zip(some, twin.sweep(some, calibration, shares, load), strict=True)
        if most is None and left_s() <= 0:
            break
    if len(known) < len(possible):
        notes.append(f"time to predict {len(known):,} of {len(possible):,} configurations")
    # In the order of the space, whatever the order of looking was.
    sound = {c: known[c] for c in possible if c in known and _is_sound(known[c])}
    if len(sound) < len(known):
        notes.append(f"the twin cannot predict {len(known) - len(sound)} configurations")
    found = _predictions(space, sound, shares) if sound else None
    found = found if found is not None and len(found.searched) else None
    return Foresight(found, tuple(notes), len(known))


def _groups(possible: Sequence[ServingConfig], most: int | None) -> Iterator[list[ServingConfig]]:
    """Baselines first, then by chance: any beginning of them is a fair sample of the space."""
    others = list(possible[BASELINES:])
    random.Random(0).shuffle(others)
    ordered = [*possible[:BASELINES], *others][:most]
    size = FIRST_GROUP
    while ordered:
        yield ordered[:size]
        ordered, size = ordered[size:], min(2 * size, GROUP)


def load_of(profile: LoadProfile) -> Load:
    """What the twin has to know of a load profile; rates it finds itself."""
    shared = set(Load.model_fields) & set(type(profile).model_fields)
    load = Load(rate_rps=1.0, **profile.model_dump(include=shared))
    if profile.data is None:
        return load
    rows = len(read_inputs(Path(profile.data), ()))
    in_turn = not (profile.distinct or profile.zipf or profile.churn)
    return load.model_copy(
        update={"distinct": min(profile.distinct or rows, rows), "cyclic": in_turn}
    )


def _drawn(space: Space) -> tuple[list[ServingConfig], list[str]]:
    """Baselines first; all of the space or as many of it as can be looked at."""
    configs, notes = list(space.configurations()), list[str]()
    if len(configs) > MOST_CONFIGURATIONS:
        notes.append(
            f"of {len(configs):,} configurations {MOST_CONFIGURATIONS:,}, drawn at random, are "
            "considered; narrow the space with --fix or --range"
        )
        configs = random.Random(0).sample(configs, MOST_CONFIGURATIONS)
    return list(dict.fromkeys([space.naive, space.default, *configs])), notes


def _left_out(reasons: Sequence[str], all_configs: int) -> list[str]:
    """One line, with the commonest reason."""
    if not reasons:
        return []
    [(reason, _)] = Counter(reasons).most_common(1)
    return [
        f"{len(reasons):,} of {all_configs:,} configurations cannot run here, for example: {reason}"
    ]


def _is_sound(curve: Curve) -> bool:
    values = [curve.capacity_rps, *(p.p99_ms for p in curve.predictions)]
    return bool(np.all(np.isfinite(values)) and min(values) > 0)


def _predictions(
    space: Space, curves: dict[ServingConfig, Curve], shares: Sequence[float]
) -> Predictions:
    capacity = np.array([curve.capacity_rps for curve in curves.values()])
    p99 = np.array([[p.p99_ms for p in curve.predictions] for curve in curves.values()])
    return Predictions.of(space, list(curves), shares, capacity, p99)
