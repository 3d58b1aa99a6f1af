"""Which configuration to measure next: a pure function of the recorded points and a seed.

The sampler is Optuna's TPE over an in-memory study that is rebuilt from the points at every call,
so a killed study goes on with the very proposals that it would have made. Its scalar is the
configuration's own hypervolume: whole curves guide better than single points (DESIGN.md).
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import optuna

from dlbench.tuner.front import hypervolume
from dlbench.tuner.point import with_outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space

# TPE needs a few points before its densities mean anything; until then every knob is moved once.
STARTUP = 6
ATTEMPTS = 50


def propose(
    points: Sequence[Point], space: Space, seed: int, reference_ms: float = 1000.0
) -> ServingConfig | None:
    """The next configuration, one not measured before; None when the space is exhausted."""
    measured = scores(points, reference_ms)
    for config in itertools.chain(departures(space), _sampled(measured, space, seed)):
        if config not in measured and space.sensible(config):
            return config
    return _first_unmeasured(measured, space)


def scores(points: Sequence[Point], reference_ms: float) -> dict[ServingConfig, float]:
    """Configuration -> hypervolume of its own curve; one that failed is worth 0."""
    curves: dict[ServingConfig, list[Point]] = {point.config: [] for point in points}
    for point in points:
        if point.phase in ("baseline", "screen"):
            curves[point.config].append(point)
    outcomes = {config: [o for _, o in with_outcome(curve)] for config, curve in curves.items()}
    best = max((o.throughput_rps for curve in outcomes.values() for o in curve), default=1.0)
    return {config: hypervolume(curve, best, reference_ms) for config, curve in outcomes.items()}


def departures(space: Space) -> list[ServingConfig]:
    """The default with one knob at its largest value each: which knob matters at all?

    Batch size and cache go first, together, since they are what most often pays.
    """
    order = ("cache_size", "max_batch_size", "workers", "max_queue_delay_ms", "intra_op_threads")
    extremes = {knob: space.values[knob][-1] for knob in order if knob in space.values}
    both = {k: v for k, v in extremes.items() if k in ("cache_size", "max_batch_size")}
    moves: list[Mapping[str, Any]] = [both, *({k: v} for k, v in extremes.items())]
    return [space.configuration(move) for move in moves][:STARTUP]


def _sampled(
    measured: Mapping[ServingConfig, float], space: Space, seed: int
) -> Iterator[ServingConfig]:
    sampler = optuna.samplers.TPESampler(seed=seed + len(measured), n_startup_trials=STARTUP)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {knob: _indices(values) for knob, values in space.values.items()}
    for config, score in measured.items():
        if (choice := _choice(config, space)) is not None:
            study.add_trial(
                optuna.trial.create_trial(params=choice, distributions=distributions, value=score)
            )
    for _ in range(ATTEMPTS):
        yield _ask(study, distributions, space)


def _ask(
    study: optuna.Study, distributions: dict[str, BaseDistribution], space: Space
) -> ServingConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        params = study.ask(distributions).params
    return space.configuration({knob: space.values[knob][i] for knob, i in params.items()})


def _indices(values: Sequence[Any]) -> BaseDistribution:
    """Numbers are tried by rank (their steps are geometric), names as categories."""
    if isinstance(values[0], str):
        return optuna.distributions.CategoricalDistribution(tuple(range(len(values))))
    return optuna.distributions.IntDistribution(0, len(values) - 1)


def _choice(config: ServingConfig, space: Space) -> dict[str, int] | None:
    """A configuration as ranks, None if one of its values is not in the space (a baseline's)."""
    try:
        return {knob: values.index(getattr(config, knob)) for knob, values in space.values.items()}
    except ValueError:
        return None


def _first_unmeasured(
    measured: Mapping[ServingConfig, float], space: Space
) -> ServingConfig | None:
    return next((config for config in space.configurations() if config not in measured), None)
