"""Whether five studies of one model, that share nothing but the machine, recommend the same.

    .venv/bin/python -m benchmarks.tuning.agreement --json FILE [--for 500s] [--model MODEL] [--budget 300s]

Each study has a seed of its own, so another search, other arrivals and other inputs. What each
recommends is served at the rate that it was recommended at and measured long, 30 s in each of three
rounds, all five in turns. The aim of 15 % is held against the largest over the smallest of the
five medians. How far the rounds of one and the same recommendation lie apart is told beside it:
no two recommendations can be asked to agree better than that.
"""

from __future__ import annotations

import random
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import in_pieces, report, tuned
from benchmarks.harness.measuring import Measuring, path_of
from dlbench.tuner.step import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness.in_pieces import Kept
    from dlbench.tuner.point import Point

SEEDS = 5
ROUNDS = 3
LONG_S = 30.0
# The 15 %, as the largest over the smallest.
AIM = 1.15
FIGURES = {"throughput_rps": "throughput", "p99_ms": "p99"}


def main() -> None:
    parser = in_pieces.parser(__doc__)
    parser.add_argument("--model", default="demo:mlp", help="demo:…, a file, or one of models.py")
    parser.add_argument("--budget", type=in_pieces.seconds, default=300.0, help="of each study")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many studies")
    parser.add_argument("--recommend", default="knee", help="the rule that all of them follow")
    options = parser.parse_args()
    seeds = range(2 if options.quick else options.seeds)
    budget_s = 30.0 if options.quick else options.budget
    with in_pieces.kept(options) as kept:
        path = path_of(options.model)
        name = f"{options.model}/{options.recommend} {budget_s:g} s"
        answers = [
            tuned.tune(
                kept,
                f"{name}/seed {seed}",
                path,
                budget_s,
                ("--seed", seed, "--recommend", options.recommend),
            )
            for seed in seeds
        ]
        chosen = [answer.recommended for answer in answers]
        show(options.model, chosen, measured(kept, name, path, chosen, options.quick))


def measured(
    kept: Kept, name: str, model: str, chosen: Sequence[tuned.Winner], quick: bool
) -> list[list[Point]]:
    """The points of each recommendation, one from each round."""
    rounds, long_s = (1, 3.0) if quick else (ROUNDS, LONG_S)
    found: list[list[Point]] = [[] for _ in chosen]
    with Measuring(kept, model) as measuring:
        for number in range(rounds):
            for index in random.Random(number).sample(range(len(chosen)), len(chosen)):
                own, at = chosen[index], f"{name}/long {number}/{index}"
                step = Step(at, own.config, "verify", long_s, 1.0, own.rate_rps, number)
                found[index].append(measuring.point(at, step, 1000 + number))
    return found


def figures(points: Sequence[Point], field: str) -> list[float]:
    """One figure of every round in which there was one."""
    found = [getattr(p.measurement, field) for p in points if p.measurement]
    return [value for value in found if value is not None]


def apart(values: Sequence[float]) -> float:
    """The largest over the smallest."""
    return max(values) / min(values)


def show(model: str, chosen: Sequence[tuned.Winner], found: list[list[Point]]) -> None:
    table = report.table(
        f"{model}: what {len(chosen)} studies recommend, measured long",
        *("seed", "offered/s", "throughput/s", "p99 ms", "verdicts", "configuration"),
    )
    for seed, (winner, points) in enumerate(zip(chosen, found, strict=True)):
        shown = [report.spread(figures(points, f), ".4g") for f in FIGURES]
        verdicts = ", ".join(p.measurement.verdict if p.measurement else "failed" for p in points)
        words = tuned.in_words(winner.config)
        table.add_row(str(seed), f"{winner.rate_rps:,.0f}", *shown, verdicts, words)
    report.console.print(table)
    for field, word in FIGURES.items():
        own = [figures(points, field) for points in found]
        medians = [median(values) for values in own]
        report.aim(f"{model}, {word}: largest over smallest of the studies", [apart(medians)], AIM)
        middle = median(medians)
        far = max(abs(value / middle - 1) for value in medians)
        report.note(f"{word}: the furthest from the median is {far:.1%} away")
        same = report.spread([apart(values) for values in own])
        report.note(f"{word}: rounds of one recommendation lie apart by {same} times")


if __name__ == "__main__":
    main()
