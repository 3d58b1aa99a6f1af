"""Two cases of the literature, rebuilt: what tuning is claimed to give, and what it gives here.

    .venv/bin/python -m benchmarks.tuning.cases --json FILE [--for 500s] [--only MODEL] [--case a|b]

(a) A model for product images on a promotion day: 30 % of what the default configuration can take,
and a spike of 150 % that lasts 20 s. The spike is as long as in the case, for it is its length that
fills a queue; the quiet before and after it is shortened to 8 s and 12 s. Claimed for tuning: 30 %
more throughput, response times 40 % shorter, utilisation up by 20 %.

(b) Five nodes and a hundred tasks: five workers, and a hundred users who send their next task when
the last one is answered. Claimed: waiting from 3 s to 1 s, 50 to 100 tasks/s. (3 s at 50 tasks/s
would be 150 tasks under way, by Little's law, and not a hundred: only the ratios are compared.)
`naive` hands tasks round one at a time, `tuned` are the tuned knobs on five workers, `freed` is what
was recommended, workers and threads included. All nodes are processes of this machine and share
its cores, so what five machines could do together is not measured here.

`tune` is given a budget and asked for the highest throughput, over all knobs. By default no two
inputs are the same, so no cache can help; with --distinct N --zipf S they repeat, for all sides.
Every side has a fresh server in each round. Ratios are taken round by round, the interval is that
of their geometric mean (95 %, Student's t). The ceiling is computed: what the cores could do if
they did nothing but the model's best batches, by the calibration's service times. Front and client
share the cores, so nothing reaches it; how much they leave is no bound, for what a request costs
them falls when requests come in larger batches.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness import in_pieces, report, tuned
from benchmarks.harness.measuring import path_of
from dlbench.loadgen.analysis.statistics import CONFIDENCE, t_quantile
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.calibrate import calibrated
from dlbench.tuner.space import naive
from dlbench.tuner.targets.own_proxy import Meter, OwnProxy
from dlbench.tuner.twin.calibration import Calibration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.harness.in_pieces import Kept
    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.control.generator import Progress

    Turns = dict[str, list[dict[str, Any]]]  # side -> its figures, round by round

MODELS = ("demo:mlp", "demo:cnn", "magika")
ROUNDS = 4
BUDGET_S = 180.0
# (a): shares of the default configuration's capacity, and seconds.
QUIET, SPIKE = 0.3, 1.5
DAY = {"duration_s": 40.0, "spike_at_s": 8.0, "spike_s": 20.0}
QUICK_DAY = {"duration_s": 6.0, "spike_at_s": 1.0, "spike_s": 2.0}
# (b)
NODES, TASKS = 5, 100
# The shop's gateway has so many connections to the model, and requests wait for one.
CONNECTIONS = 256
# What a closed loop needs to keep every side busy.
USERS = 256
CLOSED_S, WARMUP_S = 6.0, 1.0


class Claim(NamedTuple):
    """A figure, what tuning is claimed to multiply it by (None: nothing), and how it is shown."""

    figure: str
    words: str
    factor: float | None = None
    form: str = ",.3g"


PROMOTION = (
    Claim("spike_rps", "answers/s in the spike", 1.3, ",.0f"),
    Claim("throughput_rps", "answers/s all day", 1.3, ",.0f"),
    Claim("mean_ms", "response time, mean ms", 0.6),
    Claim("p99_ms", "response time, p99 ms"),
    Claim("utilisation", "utilisation of the cores", 1.2, ".0%"),
    Claim("error_rate", "refused or failed", None, ".1%"),
)
FIVE_NODES = (
    Claim("throughput_rps", "tasks/s", 2.0, ",.0f"),
    Claim("mean_ms", "waiting, mean ms", 1 / 3),
    Claim("p99_ms", "waiting, p99 ms"),
    Claim("utilisation", "utilisation of the cores", None, ".0%"),
    Claim("error_rate", "refused or failed", None, ".1%"),
)
CAPACITY = (Claim("throughput_rps", "answers/s", None, ",.0f"),)


def main() -> None:
    parser = in_pieces.parser(__doc__)
    parser.add_argument("--only", choices=MODELS, help="one of the models")
    parser.add_argument("--case", choices=CASES, help="one of the cases")
    parser.add_argument("--budget", type=in_pieces.seconds, default=BUDGET_S, help="of each study")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each side")
    parser.add_argument("--distinct", type=int, default=0, help="inputs that repeat; 0: none does")
    parser.add_argument("--zipf", type=float, default=0.0, help="exponent of their popularity")
    options = parser.parse_args()
    repeats = {"distinct": options.distinct, "zipf": options.zipf}
    with in_pieces.kept(options) as kept:
        for name in in_pieces.wanted(options, MODELS):
            profile = LoadProfile(**repeats, connections=CONNECTIONS)
            subject = Subject(kept, name, profile, options.quick)
            subject.tune(30.0 if options.quick else options.budget)
            for letter in CASES if options.case is None else (options.case,):
                CASES[letter](subject, 1 if options.quick else options.rounds)


class Subject:
    """One model: its sides, its ceiling, and turns of load that are kept."""

    def __init__(self, kept: Kept, name: str, profile: LoadProfile, quick: bool) -> None:
        self.kept, self.name, self.profile, self.quick = kept, name, profile, quick
        self.model = path_of(name)
        self.prefix = f"{name} {profile.distinct} {profile.zipf:g}"
        self.default = ServingConfig().resolved("cpu")
        self.calibration = Calibration.model_validate(kept.once(f"{name}/calibration", self._told))

    def _told(self) -> dict[str, Any]:
        settings = ServerSettings(model=self.model, device="cpu")
        return calibrated(settings, LoadProfile(), report.note).model_dump(mode="json")

    def tune(self, budget_s: float) -> None:
        """The study that both cases take their tuned configuration from."""
        load = ("--distinct", self.profile.distinct, "--zipf", self.profile.zipf)
        wish = ("--recommend", "max-throughput", *(load if self.profile.distinct else ()))
        name = f"{self.prefix}/tune {budget_s:g} s"
        answer = tuned.tune(self.kept, name, self.model, budget_s, wish)
        self.tuned = answer.recommended.config
        self.prefix = name
        report.note(
            f"{self.name}: tune took {answer.wall_s:.0f} s of a budget of {budget_s:.0f} s and "
            f"recommends {tuned.in_words(self.tuned)}"
        )

    def in_turns(
        self, case: str, sides: Mapping[str, ServingConfig], rounds: int, load: Mapping[str, Any]
    ) -> Turns:
        """The figures of each side, round by round, the sides taking turns."""
        found: Turns = {side: [] for side in sides}
        for number in range(rounds):
            profile = self.profile.model_copy(update={**load, "seed": number})
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                name = f"{self.prefix}/{case} {number}/{side}"
                figures = self.kept.once(
                    name, lambda s=side, p=profile: loaded(self.model, sides[s], p)
                )
                found[side].append(figures)
        return found


def loaded(model: str, config: ServingConfig, profile: LoadProfile) -> dict[str, Any]:
    """A fresh server, warmed, and one run of load."""
    warm = {"users": USERS, "rate": None, "rate_to": None, "pattern": "steady", "spike_at_s": None}
    settings = ServerSettings(model=model, device="cpu")
    with (
        tempfile.TemporaryDirectory(prefix="dlbench-cases-") as folder,
        Generator() as generator,
        OwnProxy(settings, Path(folder) / "log") as server,
    ):
        target = discover(server.apply(config)["url"], profile)
        generator.measure(target, profile.model_copy(update={**warm, "duration_s": WARMUP_S}))
        busy = Busy(server, profile.warmup_s + profile.duration_s)
        run = generator.measure(target, profile, on_progress=busy.progressed)
    return {
        **run.measurement.model_dump(mode="json"),
        **during(run.samples, profile),
        "utilisation": busy.cores / physical_cores(),
    }


class Busy:
    """How many cores a server keeps busy while load is offered, without what comes before or after."""

    def __init__(self, server: OwnProxy, end_s: float) -> None:
        self._server, self._end_s = server, end_s
        self._meter: Meter | None = None
        self.cores = 0.0

    def progressed(self, progress: Progress) -> None:
        """Twice a second."""
        if progress.warming_up or progress.elapsed_s > self._end_s:
            return
        if self._meter is None:
            self._meter = Meter(self._server)
        self.cores = self._meter.read().resources.server_cpu or 0.0


def during(samples: Samples, profile: LoadProfile) -> dict[str, float]:
    """Answers per second while the spike lasted; nothing where there is none."""
    if profile.spike_at_s is None:
        return {}
    start_ns = samples.window_ns[0] + profile.spike_at_s * 1e9
    end_ns = start_ns + profile.spike_s * 1e9
    done_ns = samples.done_ns[samples.outcome == 0]
    answers = ((done_ns >= start_ns) & (done_ns < end_ns)).sum()
    return {"spike_rps": float(answers) / profile.spike_s}


def promotion(subject: Subject, rounds: int) -> None:
    """Case (a)."""
    default = subject.default
    sides = {"naive": naive(default), "default": default, "tuned": subject.tuned}
    seconds = 2.0 if subject.quick else CLOSED_S
    closed = {"users": USERS, "duration_s": seconds, "warmup_s": WARMUP_S}
    capacities = subject.in_turns("capacity", sides, rounds, closed)
    show(f"{subject.name}: capacity, {USERS} users", capacities, CAPACITY)
    capacity = median(figures["throughput_rps"] for figures in capacities["default"])
    say_ceiling(subject, capacities, PROMOTION[0].factor)
    day = QUICK_DAY if subject.quick else DAY
    rates = {"rate": QUIET * capacity, "rate_to": SPIKE * capacity, "pattern": "spike"}
    found = subject.in_turns("a", sides, rounds, {**rates, **day, "warmup_s": WARMUP_S})
    title = "{0}: (a) a promotion day, {rate:,.0f}/s and {rate_to:,.0f}/s in the spike"
    show(title.format(subject.name, **rates), found, PROMOTION)


def five_nodes(subject: Subject, rounds: int) -> None:
    """Case (b)."""
    one = {"workers": NODES, "intra_op_threads": 1}
    default = subject.default.model_copy(update=one)
    handed_round = {"max_batch_size": 1, "scheduling_policy": "round_robin"}
    sides = {
        "naive": default.model_copy(update=handed_round),
        "default": default,
        "tuned": subject.tuned.model_copy(update=one),
        "freed": subject.tuned,
    }
    seconds = 2.0 if subject.quick else CLOSED_S
    load = {"users": TASKS, "duration_s": seconds, "warmup_s": WARMUP_S}
    found = subject.in_turns("b", sides, rounds, load)
    say_ceiling(subject, found, FIVE_NODES[0].factor)
    title = f"{subject.name}: (b) {NODES} nodes on {physical_cores()} cores, {TASKS} tasks"
    show(title, found, FIVE_NODES)


CASES = {"a": promotion, "b": five_nodes}


# --- what came of it -------------------------------------------------------------------------------


def ceiling_rps(calibration: Calibration) -> float:
    """The most that computing power allows: the most rows that all workers together computed."""
    return max(s.busy * s.batch / s.seconds for s in calibration.services)


def say_ceiling(subject: Subject, found: Turns, claimed: float) -> None:
    """What there is to gain, and a plain sentence where computing power forbids the gain claimed."""
    cores, most = subject.calibration.cores, ceiling_rps(subject.calibration)
    reached = {side: median(own["throughput_rps"] for own in found[side]) for side in found}
    default = reached["default"]
    report.note(
        f"{subject.name}: a row takes {1e3 * cores / most:.3g} ms of a core in the best batch, so "
        f"{cores} cores do at most {most:,.0f}/s; default does {default:,.0f}/s, "
        f"{default / most:.0%} of it"
    )
    if max(reached.values()) > most:
        report.note("more than that was measured: the calibration was disturbed, no conclusion")
    elif most < claimed * default and not subject.profile.distinct:
        report.note(
            f"{subject.name}: computing power forbids {claimed - 1:+.0%} over default: at most "
            f"{most / default - 1:+.0%} is left on these cores, front and client unpaid"
        )


class Ratio(NamedTuple):
    """A geometric mean of ratios and its 95 % interval, nan where it takes more rounds."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{self.low:.2f}-{self.high:.2f}]"
        return f"{self.middle:.2f}{interval}"


def ratio(over: Sequence[float | None], under: Sequence[float | None]) -> Ratio | None:
    """Round by round; None where no round has both figures."""
    both = [(a, b) for a, b in zip(over, under, strict=True) if a and b]
    logs = [math.log(a / b) for a, b in both]
    if not logs:
        return None
    middle, half = fmean(logs), math.nan
    if len(logs) > 1:
        t = t_quantile(0.5 + CONFIDENCE / 2, len(logs) - 1)
        half = t * stdev(logs) / math.sqrt(len(logs))
    return Ratio(*(math.exp(value) for value in (middle, middle - half, middle + half)))


def standing(found: Ratio, factor: float) -> str:
    """How a claim stands: by the whole interval, or it is undecided."""
    sign = 1 if factor > 1 else -1
    ends = sorted(sign * (end - factor) for end in (found.low, found.high))
    if math.isnan(found.low) or ends[0] < 0 <= ends[1]:
        return "undecided"
    return "reached" if ends[0] >= 0 else "not reached"


def show(title: str, found: Turns, claims: Sequence[Claim]) -> None:
    table = report.table(title, "", *found, "tuned/naive", "tuned/default", "claimed")
    for claim in claims:
        sides = {side: [own.get(claim.figure) for own in rounds] for side, rounds in found.items()}
        shown = [spread([v for v in values if v is not None], claim) for values in sides.values()]
        ratios = [ratio(sides["tuned"], sides[under]) for under in ("naive", "default")]
        table.add_row(claim.words, *shown, *(told(r, claim.factor) for r in ratios), said(claim))
    report.console.print(table)
    verdicts = {side: sorted({own["verdict"] for own in rounds}) for side, rounds in found.items()}
    report.note("; ".join(f"{side}: {', '.join(words)}" for side, words in verdicts.items()))


def spread(values: Sequence[float], claim: Claim) -> str:
    return report.spread(values, claim.form) if values else "-"


def told(found: Ratio | None, factor: float | None) -> str:
    if found is None:
        return "-"
    return str(found) if factor is None else f"{found} {standing(found, factor)}"


def said(claim: Claim) -> str:
    return "" if claim.factor is None else f"{claim.factor:.2f}"


if __name__ == "__main__":
    main()
