"""The search against TPE on points, at equal budget on simulated machines; nothing is measured here.

    .venv/bin/python benchmarks/tuner.py [--quick] [--only WORD] [--seeds N] [--json FILE]

A study searches for 85 % of its budget and verifies in the rest; both sides measure the baselines
first, and the twin's side pays 20 s for its calibration. Per cent are of the hypervolume of every
configuration at every load: `found` by what was measured, `chosen` by those points that the side
takes for its front, both by their true values. Medians over seeds; the landscape `held_out` and
these seeds were never tuned on. More than 100 is possible: a load is a share of the measured
capacity, so a point may lie a little above the grid of true ones.
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
from landscapes import MACHINES, Landscape, right_twin, wrong_twin
from rich.console import Console
from rich.table import Table
from simulated_study import SimulatedStudy, Truth

from dlbench.tuner.correction import Correction, for_choice, for_report
from dlbench.tuner.front import front_indices, greedy_by_hypervolume
from dlbench.tuner.proposal import Done
from dlbench.tuner.proposer import PROPOSERS
from dlbench.tuner.recommend import RULES, Option, Wish, standing

if TYPE_CHECKING:
    from dlbench.tuner.correction import Estimate
    from dlbench.tuner.point import Point
    from dlbench.tuner.predictions import Predictions

FIRST_SEED = 1000
SEARCH_SHARE = 0.85
CALIBRATION_S = 20.0
MINUTES = (5, 10, 20)
CANDIDATES = 5
LEAST_REPEATS = 4
REFERENCE_MS = 1000.0
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


def searched_s(minutes: float) -> float:
    return SEARCH_SHARE * minutes * 60


def search(
    name: str, seed: int, proposer: str, twin: Predictions | None, end_s: float, reference_ms: float
) -> SimulatedStudy:
    """One study on curves, until its time is over or it has settled."""
    study = SimulatedStudy(scene(name)[0], seed)
    study.now_s = CALIBRATION_S if twin else 0.0
    study.baselines()
    while study.now_s < end_s:
        proposal = PROPOSERS[proposer](
            study.points, study.landscape.space, seed, twin, reference_ms
        )
        if isinstance(proposal, Done):
            break
        study.curve(proposal)
    return study


def search_points(name: str, seed: int, end_s: float) -> SimulatedStudy:
    """Optuna's multi-objective TPE, one operating point per trial, the load one of its parameters.

    What the space forbids costs it nothing but the trial.
    """
    study = SimulatedStudy(scene(name)[0], seed)
    study.baselines()
    space = study.landscape.space
    integer, named = (
        optuna.distributions.IntDistribution,
        optuna.distributions.CategoricalDistribution,
    )
    knobs = {
        knob: named(values) if isinstance(values[0], str) else integer(0, len(values) - 1)
        for knob, values in space.values.items()
    }
    knobs["load_share"] = optuna.distributions.FloatDistribution(0.3, 0.9)
    sampler = optuna.samplers.TPESampler(seed=seed)
    trials = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for p in study.points:
        if p.share:
            params = {k: _rank(space.values[k], getattr(p.config, k)) for k in space.values}
            trials.add_trial(
                optuna.trial.create_trial(
                    params={**params, "load_share": p.share},
                    distributions=knobs,
                    values=list(p.outcome or WORST),
                )
            )
    while study.now_s < end_s:
        trial = trials.ask(knobs)
        choice = {
            k: v if isinstance(v, str) else space.values[k][v]
            for k, v in trial.params.items()
            if k in space.values
        }
        config = space.configuration(choice)
        outcome = None
        if space.sensible(config):
            study.probe(config, f"t{trial.number}")
            outcome = study.load(
                config, trial.params["load_share"], f"t{trial.number}", "screen"
            ).outcome
        trials.tell(trial, list(outcome or WORST))
    return study


def _rank(values: tuple[Any, ...], value: Any) -> Any:
    """Numbers by rank, names as they are."""
    return value if isinstance(value, str) else values.index(value)


def found(truth: Truth, study: SimulatedStudy, end_s: float) -> float:
    return truth.share(_true(study, study.until(end_s)))


def chosen(truth: Truth, study: SimulatedStudy, end_s: float, twin: Predictions | None) -> float:
    """By smoothed values where there is a twin, by raw ones where not."""
    ran = [p for p in study.until(end_s) if p.outcome]
    outcomes = [p.outcome for p in ran]
    if twin:
        smoothed = Correction.of(study.until(end_s), twin).estimates(ran)
        outcomes = [smoothed[p.name].outcome for p in ran]
    return truth.share(_true(study, [ran[i] for i in front_indices(outcomes)]))


def _true(study: SimulatedStudy, points: list[Point]) -> list[Any]:
    return [o for p in points if p.outcome and (o := study.true_outcome(p))]


def verify(
    study: SimulatedStudy, twin: Predictions, end_s: float, reference_ms: float
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, float]]:
    """Estimates by the half that chooses and by the half that is reported, and the true p99s.

    Interleaved repeats of the candidates and of both baselines, in the last 15 % of the budget.
    """
    rest = study.fork(searched_s(end_s / 60))
    ran = {p.name: p for p in rest.points if p.outcome}
    smoothed = Correction.of(rest.points, twin).estimates(list(ran.values()))
    names = list(smoothed)
    picks = greedy_by_hypervolume([smoothed[n].outcome for n in names], CANDIDATES, reference_ms)
    candidates = [ran[names[i]] for i in picks]
    baselines = [p for p in ran.values() if p.phase == "baseline" and p.share == 0.7]
    repeat = 0
    while repeat < LEAST_REPEATS or repeat % 2 or rest.now_s < end_s:
        repeat += 1
        for p in (*candidates, *baselines):
            rest.load(p.config, p.share, p.configuration, "verify", repeat)
    halves = (
        Correction.of(half(rest.points), twin).estimates(candidates)
        for half in (for_choice, for_report)
    )
    truths = {p.name: rest.truth(p.config, p.measurement.offered_rps)[1] for p in candidates}
    return (*halves, truths)


def p99_errors(study: SimulatedStudy, twin: Predictions, end_s: float) -> tuple[float, float]:
    """Median log(reported / true) over the front: verified and smoothed, and of the raw front."""
    choosing, reported, truths = verify(study, twin, end_s, REFERENCE_MS)
    names = list(choosing)
    front = [names[i] for i in front_indices([choosing[n].outcome for n in names])]
    ran = [p for p in study.until(searched_s(end_s / 60)) if p.outcome]
    raw = [ran[i] for i in front_indices([p.outcome for p in ran])]
    off = [
        math.log(p.outcome.p99_ms / study.truth(p.config, p.outcome.throughput_rps)[1]) for p in raw
    ]
    return float(np.median([math.log(reported[n].p99_ms / truths[n]) for n in front])), float(
        np.median(off)
    )


def slo_answer(name: str, seed: int, twin: Predictions) -> tuple[str, str]:
    """What is said of an SLO after ten minutes, and what the raw best would have been."""
    bound, end_s = slo_of(name), 600.0
    study = search(name, seed, "twin", twin, searched_s(10), bound)
    choosing, reported, truths = verify(study, twin, end_s, bound)
    names, wish = list(choosing), Wish(slo_p99_ms=bound)
    pick = names[RULES["slo"]([_option(choosing[n]) for n in names], wish) or 0]
    said = standing(_option(reported[pick]), wish)
    answer = "violated" if said == "met" and truths[pick] > bound else said
    within = [p for p in study.points if p.outcome and p.outcome.p99_ms <= bound]
    best = max(within, key=lambda p: p.outcome.throughput_rps, default=None)
    raw = best and study.truth(best.config, best.outcome.throughput_rps)[1] > bound
    return answer, "violated" if raw else "met"


def _option(e: Estimate) -> Option:
    return Option(e.throughput_rps, e.p99_ms, e.p99_low_ms, e.p99_high_ms)


def one_seed(name: str, seed: int) -> dict[str, Any]:
    """Every side on one landscape with one seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    landscape, truth = scene(name)
    rng = np.random.default_rng([seed, 2])
    twins = {
        "right": landscape.predicted(right_twin(landscape.machine, rng)),
        "wrong": landscape.predicted(wrong_twin(name, rng)),
    }
    # A wrong twin is held against TPE at ten minutes.
    last_s = {"right": searched_s(20), "wrong": searched_s(10)}
    minutes = {"wrong": MINUTES[:2]}
    studies = {
        side: search(name, seed, "twin", twin, last_s[side], REFERENCE_MS)
        for side, twin in twins.items()
    }
    studies["points"] = search_points(name, seed, searched_s(20))
    result: dict[str, Any] = {"landscape": name, "seed": seed}
    for side, study in studies.items():
        twin = twins.get(side)
        result[side] = {
            "found": [found(truth, study, searched_s(m)) for m in minutes.get(side, MINUTES)],
            "chosen": [
                chosen(truth, study, searched_s(m), twin) for m in minutes.get(side, MINUTES)
            ],
            "ended_s": study.now_s,
        }
        if twin:
            result[side]["spread"] = Correction.of(study.until(searched_s(10)), twin).spread
            result[side]["p99"] = p99_errors(study, twin, 600.0)
            result[side]["slo"] = slo_answer(name, seed, twin)
    return result


def medians(results: list[dict[str, Any]], side: str, what: str) -> list[float]:
    return [float(x) for x in np.median([r[side][what] for r in results], axis=0)]


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    gains = Table(title="Per cent of the true hypervolume after 5 / 10 / 20 min", box=None)
    for heading in ("landscape", "side", "found", "chosen", "over TPE", "worst seed", "spread"):
        gains.add_column(heading, justify="left" if heading in ("landscape", "side") else "right")
    for name, runs in results.items():
        for side in ("right", "wrong", "points"):
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
        "violated",
        "raw violated",
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
    said = [r[side]["slo"][0] for r in runs]
    shares = [
        f"{said.count(w) / len(runs):.0%}" for w in ("met", "undecided", "missed", "violated")
    ]
    by_raw = sum(r[side]["slo"][1] == "violated" for r in runs) / len(runs)
    return [name, side, f"{raw:+.0%}", f"{reported:+.0%}", *shares, f"{by_raw:.0%}"]


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
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    options = parser.parse_args()
    names = [name for name in MACHINES if options.only in name][: 1 if options.quick else None]
    seeds = range(options.first_seed, options.first_seed + (2 if options.quick else options.seeds))
    with ProcessPoolExecutor(2) as pool:
        results = {name: list(pool.map(partial(one_seed, name), seeds)) for name in names}
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
