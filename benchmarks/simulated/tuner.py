"""The search against TPE on points, at equal budget on simulated machines; nothing is measured here.

    .venv/bin/python -m benchmarks.simulated.tuner [--quick] [--only WORD] [--seeds N] [--json FILE]

Whole studies of the real plan, proposers, candidates and verification, with the machine replaced.
Every side measures the baselines first and keeps the time that its verification takes; the twin's
side pays 20 s for its calibration. Per cent are of the hypervolume of every configuration at every
load: `found` by all that was measured, `chosen` by those points that the side takes for its front,
both by their true values. Medians over seeds; the landscape `held_out` and these seeds were never
tuned on. More than 100 is possible: a load is a share of the measured capacity, so a point may lie
a little above the grid of true ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os

# One thread each: the matrices are small, and two processes share the machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.simulated.landscapes import MACHINES, Landscape, right_twin, wrong_twin
from benchmarks.simulated.simulated_study import DRIVABLE_RPS, SimulatedBench, SimulatedStudy, Truth
from dlbench.tuner import budget
from dlbench.tuner.front import front_indices
from dlbench.tuner.plan import Plan
from dlbench.tuner.search.correction import Correction
from dlbench.tuner.step import Step
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.candidates import smoothed
from dlbench.tuner.verify.verification import verified

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.predictions import Predictions

FIRST_SEED = 1000
CALIBRATION_S = 20.0
MINUTES = (5, 10)
BASELINES = ("naive", "default")
SIDES = ("right", "wrong", "points")
# What TPE on points is told of an operating point that did not hold.
WORST = (0.0, 1e6)
console = Console(width=150, highlight=False)


@cache
def scene(name: str) -> tuple[Landscape, Truth]:
    landscape = Landscape(name, MACHINES[name])
    return landscape, Truth(landscape)


@cache
def slo_of(name: str) -> float:
    """A bound that about half of the true front meets."""
    outcomes = scene(name)[1].outcomes
    return float(np.median([outcomes[i].p99_ms for i in front_indices(outcomes)]))


def twin_of(name: str, side: str, seed: int) -> Predictions:
    """What a twin that is right, or wrong, believes of a landscape."""
    landscape, rng = scene(name)[0], np.random.default_rng([seed, 2])
    right = right_twin(landscape.machine, rng)
    return landscape.predicted(right if side == "right" else wrong_twin(name, rng))


def begun(name: str, config: StudyConfig, twin: Predictions | None = None) -> SimulatedStudy:
    """A study at its beginning."""
    landscape = scene(name)[0]
    before_s = CALIBRATION_S if twin else 0.0
    plan = Plan(landscape.space, config, DRIVABLE_RPS, twin, before_s)
    return SimulatedStudy(plan, SimulatedBench(landscape, config.seed))


def tuned(name: str, config: StudyConfig, twin: Predictions | None) -> SimulatedStudy:
    """A whole study, verified."""
    study = begun(name, config, twin)
    study.run()
    return study


def on_points(name: str, config: StudyConfig) -> SimulatedStudy:
    """Optuna's multi-objective TPE, one operating point per trial, the load one of its parameters.

    What the space forbids costs it nothing but the trial. It searches until the time is up that
    its own candidates leave for verification.
    """
    study = begun(name, config)
    while (step := study.plan.next_step(study.points)) and step.configuration in BASELINES:
        study.take(step)
    space = study.plan.space
    knobs = {
        **_distributions(space),
        "load_share": optuna.distributions.FloatDistribution(0.3, 0.9),
    }
    sampler = optuna.samplers.TPESampler(seed=config.seed)
    trials = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for p in study.points:
        if p.share:
            params = {k: _rank(v, getattr(p.config, k)) for k, v in space.values.items()}
            values = list(p.outcome or WORST)
            trials.add_trial(
                optuna.trial.create_trial(
                    params={**params, "load_share": p.share}, distributions=knobs, values=values
                )
            )
    capacities: dict[ServingConfig, float] = {}
    while study.spent_s < config.budget_s - study.plan.reserve_s(study.points):
        trial = trials.ask(knobs)
        choice = {k: _value(v, trial.params[k]) for k, v in space.values.items()}
        chosen = space.configuration(choice)
        outcome = None
        if space.sensible(chosen):
            outcome = _point(study, chosen, trial, capacities).outcome
        trials.tell(trial, list(outcome or WORST))
    return study


def _point(
    study: SimulatedStudy,
    config: ServingConfig,
    trial: optuna.Trial,
    capacities: dict[ServingConfig, float],
) -> Point:
    """A probe, if there was none, and one load."""
    name, share = f"t{trial.number}", trial.params["load_share"]
    if config not in capacities:
        probe = study.take(Step(name, config, "probe", budget.PROBE_S))
        capacities[config] = study.plan.capacity(probe)
    rate = share * capacities[config]
    return study.take(Step(name, config, "screen", budget.screen_s(rate), share, rate))


def _distributions(space: Space) -> dict[str, Any]:
    integer, named = (
        optuna.distributions.IntDistribution,
        optuna.distributions.CategoricalDistribution,
    )
    return {
        knob: named(values) if isinstance(values[0], str) else integer(0, len(values) - 1)
        for knob, values in space.values.items()
    }


def _rank(values: tuple[Any, ...], value: Any) -> Any:
    """Numbers by rank, names as they are."""
    return value if isinstance(value, str) else values.index(value)


def _value(values: tuple[Any, ...], rank: Any) -> Any:
    return rank if isinstance(rank, str) else values[rank]


def found(truth: Truth, study: SimulatedStudy, until_s: float = math.inf) -> float:
    return truth.share(study.bench.true_outcomes(study.searched(until_s)))


def chosen(truth: Truth, study: SimulatedStudy) -> float:
    """By smoothed values where there is a twin, by raw ones where not."""
    known = smoothed(study.searched(), study.plan.predictions)
    front = [known[i][0] for i in front_indices([outcome for _, outcome in known])]
    return truth.share(study.bench.true_outcomes(front))


def true_p99_ms(study: SimulatedStudy, point: Point) -> float:
    outcomes = study.bench.true_outcomes([point])
    return outcomes[0].p99_ms if outcomes else math.inf


def p99_errors(study: SimulatedStudy) -> tuple[float, float]:
    """Median log(shown / true) over the front: as it is reported, and of the raw points."""
    points = study.searched()
    raw = [p for p in points if p.outcome]
    raw = [raw[i] for i in front_indices([p.outcome for p in raw if p.outcome])]
    return _off(study, _reported(study).front), _off(study, raw)


def _reported(study: SimulatedStudy) -> Any:
    plan = study.plan
    return verified(study.repeats(), plan.study, plan.predictions, study.points)


def _off(study: SimulatedStudy, points: list[Point]) -> float:
    shown = [(p.outcome.p99_ms, true_p99_ms(study, p)) for p in points if p.outcome]
    return float(np.median([math.log(seen / true) for seen, true in shown if true < math.inf]))


def slo_answer(name: str, seed: int, twin: Predictions) -> tuple[str, bool, bool]:
    """After ten minutes: what is said of an SLO, is it broken, and is it by the raw best point."""
    bound = slo_of(name)
    study = tuned(name, StudyConfig(budget_s=600, seed=seed, slo_p99_ms=bound), twin)
    result = _reported(study)
    pick = result.recommended
    broken = pick is not None and true_p99_ms(study, pick) > bound
    within = [p for p in study.searched() if p.outcome and p.outcome.p99_ms <= bound]
    best = max(within, key=lambda p: p.outcome.throughput_rps, default=None)
    raw = best is not None and true_p99_ms(study, best) > bound
    return result.slo, broken, raw


def one_seed(name: str, seed: int) -> dict[str, Any]:
    """Every side on one landscape with one seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    truth = scene(name)[1]
    configs = [StudyConfig(budget_s=60 * minutes, seed=seed) for minutes in MINUTES]
    result: dict[str, Any] = {"landscape": name, "seed": seed}
    for side in SIDES:
        twin = None if side == "points" else twin_of(name, side, seed)
        run = partial(on_points, name) if twin is None else partial(tuned, name, twin=twin)
        studies = [run(config) for config in configs]
        result[side] = {
            "found": [found(truth, study) for study in studies],
            "chosen": [chosen(truth, study) for study in studies],
            "searched_s": [sum(p.cost_s for p in study.searched()) for study in studies],
            "spent_s": [study.spent_s for study in studies],
        }
        if twin:
            result[side]["spread"] = Correction.of(studies[-1].searched(), twin).spread
            result[side]["p99"] = p99_errors(studies[-1])
        if side == "right":
            result[side]["slo"] = slo_answer(name, seed, twin_of(name, side, seed))
    return result


def medians(results: list[dict[str, Any]], side: str, what: str) -> list[float]:
    return [float(x) for x in np.median([r[side][what] for r in results], axis=0)]


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    gains = Table(title="Per cent of the true hypervolume after 5 / 10 min", box=None)
    for heading in ("landscape", "side", "found", "chosen", "over TPE", "worst seed", "spread"):
        gains.add_column(heading, justify="left" if heading in ("landscape", "side") else "right")
    for name, runs in results.items():
        for side in SIDES:
            gains.add_row(*_gain_cells(name, side, runs))
    console.print(gains)
    answers = Table(
        title="After 10 min: reported p99 over the truth, and what is said of an SLO", box=None
    )
    for heading in (
        "landscape",
        "twin",
        "raw front",
        "reported",
        "met",
        "undecided",
        "missed",
        "met, but broken",
        "broken",
        "raw broken",
    ):
        answers.add_column(heading, justify="left" if heading in ("landscape", "twin") else "right")
    for name, runs in results.items():
        for side in ("right", "wrong"):
            answers.add_row(*_answer_cells(name, side, runs))
    console.print(answers)


def _gain_cells(name: str, side: str, runs: list[dict[str, Any]]) -> list[str]:
    paired = np.array(
        [
            [a - b for a, b in zip(r[side]["found"], r["points"]["found"], strict=False)]
            for r in runs
        ]
    )
    worst = np.min([r[side]["found"] for r in runs], axis=0)
    spread = f"{np.median([r[side]['spread'] for r in runs]):.2f}" if side != "points" else ""
    over = _cells(np.median(paired, axis=0), "+") if side != "points" else ""
    return [
        name,
        side,
        *(_cells(medians(runs, side, w)) for w in ("found", "chosen")),
        over,
        _cells(worst),
        spread,
    ]


def _answer_cells(name: str, side: str, runs: list[dict[str, Any]]) -> list[str]:
    reported, raw = (np.median([math.expm1(r[side]["p99"][i]) for r in runs]) for i in (0, 1))
    cells = [name, side, f"{raw:+.0%}", f"{reported:+.0%}"]
    answers = [r[side]["slo"] for r in runs if "slo" in r[side]]
    if not answers:
        return cells
    counts = [
        *([said == word for said, *_ in answers] for word in ("met", "undecided", "missed")),
        [said == "met" and broken for said, broken, _ in answers],
        [broken for _, broken, _ in answers],
        [raw for *_, raw in answers],
    ]
    return [*cells, *(f"{np.mean(count):.0%}" for count in counts)]


def _cells(values: Any, sign: str = "") -> str:
    return " / ".join(f"{100 * v:{sign}.1f}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="two seeds on one landscape, no figures"
    )
    parser.add_argument("--only", default="", help="landscapes whose name holds this word")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    options = parser.parse_args()
    names = [name for name in MACHINES if options.only in name][: 1 if options.quick else None]
    seeds = range(options.first_seed, options.first_seed + (2 if options.quick else options.seeds))
    with ProcessPoolExecutor(options.processes) as pool:
        results = {name: list(pool.map(partial(one_seed, name), seeds)) for name in names}
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
