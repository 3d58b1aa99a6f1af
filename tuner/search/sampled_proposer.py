"""Proposals from Optuna's samplers, over an in-memory study rebuilt from the points at every call.

So a killed study goes on with the very proposals that it would have made.
"""

from __future__ import annotations

import itertools
import warnings
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import optuna

from dlbench.tuner.bounds.rating import ratings
from dlbench.tuner.search.proposal import EXHAUSTED, Done, tried

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.predictions import Predictions

    Direction = Literal["maximize", "minimize"]

# TPE needs a few points before its densities mean anything; until then every knob is moved once.
STARTUP = 6
ATTEMPTS = 50
# Operating points in one generation: some five configurations with their curves.
POPULATION = 20
# Where NSGA-II keeps a trial's generation (optuna.samplers._ga).
GENERATION = "NSGAIISampler:generation"


def tpe(
    points: Sequence[Point],
    space: Space,
    seed: int,
    twin: Predictions | None = None,  # noqa: ARG001 - a proposer's arguments
    bounds_ms: Sequence[float] = (1000.0,),
) -> ServingConfig | Done:
    """Every knob moved once, then Optuna's TPE on the rates that each configuration takes."""
    measured = scores(points, bounds_ms)
    sampler = optuna.samplers.TPESampler(seed=seed + len(measured), n_startup_trials=STARTUP)
    trials = (
        _trial(choice, _ranks(space), [score])
        for config, score in measured.items()
        if (choice := _choice(config, space)) is not None
    )
    sampled = _asked(sampler, ["maximize"], trials, space)
    return _first_new(itertools.chain(departures(space), sampled), measured, space)


def nsga2(
    points: Sequence[Point],
    space: Space,
    seed: int,
    twin: Predictions | None = None,  # noqa: ARG001 - a proposer's arguments
    bounds_ms: Sequence[float] = (1000.0,),
) -> ServingConfig | Done:
    """NSGA-II on operating points, the load share being one more gene; a generation is 20 points."""
    measured = tried(points)
    sampler = optuna.samplers.NSGAIISampler(seed=seed + len(measured), population_size=POPULATION)
    genes = {**_ranks(space), "load_share": optuna.distributions.FloatDistribution(0.0, 1.0)}
    curves = [p for p in points if p.phase in ("baseline", "screen") and p.share is not None]
    known = [(p, c) for p in curves if (c := _choice(p.config, space)) is not None]
    trials = (
        _trial(
            {**choice, "load_share": min(p.share or 0.0, 1.0)},
            genes,
            _objectives(p, max(bounds_ms)),
            number,
        )
        for number, (p, choice) in enumerate(known)
    )
    sampled = _asked(sampler, ["maximize", "minimize"], trials, space)
    return _first_new(sampled, measured, space)


def scores(points: Sequence[Point], bounds_ms: Sequence[float]) -> dict[ServingConfig, float]:
    """Configuration -> the mean rate that it takes within the bounds; one that failed takes 0."""
    rated = {r.config: r for r in ratings(points).values()}
    return {
        config: fmean(rated[config].rate(b).rate_rps for b in bounds_ms) if config in rated else 0.0
        for config in tried(points)
    }


def departures(space: Space) -> list[ServingConfig]:
    """The default with one knob at its largest value each: which knob matters at all?

    Batch size and cache go first, together, since they are what most often pays.
    """
    order = ("cache_size", "max_batch_size", "workers", "max_queue_delay_ms", "intra_op_threads")
    extremes = {knob: space.values[knob][-1] for knob in order if knob in space.values}
    both = {k: v for k, v in extremes.items() if k in ("cache_size", "max_batch_size")}
    moves: list[Mapping[str, Any]] = [both, *({k: v} for k, v in extremes.items())]
    return [space.configuration(move) for move in moves][:STARTUP]


def _objectives(point: Point, worst_ms: float) -> list[float]:
    """Throughput and p99; what may not stand on a front is as bad as can be."""
    return list(point.outcome or (0.0, max(worst_ms, 1e6)))


def _trial(
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    values: list[float],
    number: int = 0,
) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        params=dict(params),
        distributions=dict(distributions),
        values=values,
        system_attrs={GENERATION: number // POPULATION},
    )


def _asked(
    sampler: optuna.samplers.BaseSampler,
    directions: list[Direction],
    trials: Iterator[optuna.trial.FrozenTrial],
    space: Space,
) -> Iterator[ServingConfig]:
    """What the sampler proposes after these trials, again and again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=directions, sampler=sampler)
    study.add_trials(trials)
    for _ in range(ATTEMPTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            params = study.ask(_ranks(space)).params
        yield space.configuration({knob: space.values[knob][i] for knob, i in params.items()})


def _first_new(
    proposed: Iterator[ServingConfig], measured: Mapping[ServingConfig, object], space: Space
) -> ServingConfig | Done:
    """The first that is sensible and not measured; failing that any of the space."""
    return next((c for c in _sensible(proposed, space) if c not in measured), EXHAUSTED)


def _sensible(proposed: Iterator[ServingConfig], space: Space) -> Iterator[ServingConfig]:
    """What is proposed, then the whole space; that takes a while to list, so not before it has to."""
    yield from (config for config in proposed if space.sensible(config))
    yield from space.configurations()


def _ranks(space: Space) -> dict[str, BaseDistribution]:
    """Numbers are tried by rank (their steps are geometric), names as categories."""
    return {knob: _indices(values) for knob, values in space.values.items()}


def _indices(values: Sequence[Any]) -> BaseDistribution:
    if isinstance(values[0], str):
        return optuna.distributions.CategoricalDistribution(tuple(range(len(values))))
    return optuna.distributions.IntDistribution(0, len(values) - 1)


def _choice(config: ServingConfig, space: Space) -> dict[str, int] | None:
    """A configuration as ranks, None if one of its values is not in the space (a baseline's)."""
    try:
        return {knob: values.index(getattr(config, knob)) for knob, values in space.values.items()}
    except ValueError:
        return None
