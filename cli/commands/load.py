"""`dlbench load`: drive a server and say how it did, and whether that can be trusted."""

from __future__ import annotations

import csv
import signal
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlbench.cli.failure import EXIT_INTERRUPTED, EXIT_UNDECIDED, UsageError
from dlbench.cli.options import AsJson, ConfigFile, Quiet, options_from, read, read_file
from dlbench.cli.terminal.live import capacity_view, load_view
from dlbench.cli.terminal.output import check_writable, notes_console, print_json, result_console
from dlbench.cli.terminal.tables import result_table
from dlbench.loadgen.analysis import machine
from dlbench.loadgen.control import capacity, roles
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.control.headroom import Headroom, calibrate
from dlbench.loadgen.control.objective import Objective
from dlbench.loadgen.control.rate_search import SearchSettings
from dlbench.loadgen.control.result import LoadResult
from dlbench.loadgen.engine import sockets as budget
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.schedule.schedule import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dlbench.loadgen.control.capacity import Capacity
    from dlbench.loadgen.control.generator import Run
    from dlbench.loadgen.target import Target

NAME = "load"
MOST_PORTS = 65535


class ClientCalibration(StrEnum):
    """Where the client's own figures come from."""

    KEPT = "kept"
    FRESH = "fresh"
    OFF = "off"


CALIBRATIONS: dict[ClientCalibration, Callable[..., Headroom]] = {
    ClientCalibration.KEPT: calibrate,
    ClientCalibration.FRESH: partial(calibrate, fresh=True),
    ClientCalibration.OFF: lambda *_, **__: Headroom(),
}
EXAMPLES = """[bold]Examples[/]

dlbench load http://127.0.0.1:8000 --rate 500 --duration 30s

dlbench load http://127.0.0.1:8000/v2/models/mlp --users 32 --think 100ms --json

dlbench load http://127.0.0.1:8000 --rate 2000 --distinct 10000 --zipf 1.1 --csv runs.csv

dlbench load grpc://127.0.0.1:8001 --rate 100 --rate-to 2000 --pattern ramp

dlbench load http://127.0.0.1:8000 --max-rps-under-slo "p99<50ms"

dlbench load http://127.0.0.1:8000/predict --protocol plain --template '{"input": $x}' --shape x=4 --rate 100
"""


@options_from(LoadProfile)
def command(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="a server, or one of its models (http://HOST:PORT/v2/models/NAME, grpc://HOST:PORT)",
        ),
    ] = None,
    config: ConfigFile = None,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="append the result as a CSV row")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="FILE", help="keep the raw samples (.npz)")
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            "--max-rps-under-slo",
            metavar="SLO",
            help='find the highest rate that meets this objective, such as "p99<50ms"',
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, help="share the load over N processes")
    ] = 1,
    master: Annotated[
        str | None,
        typer.Option(
            "--master", metavar="HOST:PORT", help="listen here for workers on other machines"
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--expect-workers", metavar="N", min=1, help="wait for N workers of --master"),
    ] = 1,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker",
            metavar="HOST:PORT",
            help="work for the master at this address; takes no URL",
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            "--web", metavar="[HOST:]PORT", help="open Locust's page with dlbench's figures"
        ),
    ] = None,
    calibration: Annotated[
        ClientCalibration,
        typer.Option(
            "--calibration",
            metavar="CHOICE",
            help="the client's own limits: kept (measured once, the default), fresh "
            "(measured anew) or off",
            show_default=False,
            show_choices=False,
        ),
    ] = ClientCalibration.KEPT,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Load a server, open loop (--rate) or closed (--users); latency counts from the scheduled send time.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the measurement is invalid, 130 interrupted.
    """
    for option, address in (("--worker", worker), ("--master", master)):
        _check_address(option, address, "HOST:PORT")
    _check_address("--web", web if web is None or ":" in web else f":{web}", "PORT or HOST:PORT")
    if worker:
        raise typer.Exit(roles.work_for(worker))
    profile = read(LoadProfile, given, read_file(config, (LoadProfile,)))
    _check_usage(url, profile, slo)
    check_writable("--csv", csv_path)
    check_writable("--samples", samples)
    notes = notes_console(quiet=quiet)
    facts = machine.facts()  # first: the load average must not be ours
    target = discover(url or "", profile)
    for note in (*target.notes, *budget.check(profile, target, budget.limits())):
        notes.print(f"note: {note}")
    role = roles.Role(processes=processes, master=master, expect_workers=workers, web=web)
    for note in _role_notes(role):
        notes.print(note)
    with Generator(role) as generator:
        # Ctrl-C ends the run early, wherever it strikes; what was measured by then is the result.
        signal.signal(signal.SIGINT, lambda *_: generator.stop())
        headroom = CALIBRATIONS[calibration](generator, target, profile, role=role, machine=facts)
        if slo:
            found = _find(generator, target, profile, slo, notes)
            raise typer.Exit(_report_capacity(found, as_json))
        with load_view(notes, profile) as on_progress:
            measured = generator.measure(
                target, profile, on_progress=on_progress, samples_path=samples
            ).measurement
        result = _result(measured, headroom, target, profile, facts, samples)
        if csv_path:
            _append(csv_path, result)
        _show(result, as_json)
        if web and notes.is_terminal:
            _stay(notes)
    raise typer.Exit(_exit_code(result))


def _role_notes(role: roles.Role) -> list[str]:
    """What to do, or to look at, while the load runs."""
    notes = []
    if role.master:
        workers = f"{role.expect_workers} worker{'s' * (role.expect_workers > 1)}"
        notes.append(f"waiting for {workers}: dlbench load --worker {quote(role.master)}")
    if role.web:
        host, _, port = role.web.rpartition(":")
        notes.append(f"Locust's page: http://{host or '127.0.0.1'}:{port}")
    return notes


def _stay(console: Console) -> None:
    """Keep Locust's page open until Ctrl-C: its buttons repeat the load."""
    console.print("the page stays open until Ctrl-C")
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pause()


def _check_usage(url: str | None, profile: LoadProfile, slo: str | None) -> None:
    if url is None:
        raise UsageError("no server given; run dlbench load http://HOST:PORT")
    if slo and (profile.users or profile.trace or profile.pattern != "steady"):
        raise UsageError("--max-rps-under-slo picks the rate; drop --users, --trace and --pattern")
    if slo:
        _objective(slo)
    elif not profile.is_open_loop and profile.users is None:
        raise UsageError("no load given; add --rate 500 (requests per second) or --users 16")


def _check_address(option: str, address: str | None, form: str) -> None:
    """See to it that an address ends in a port."""
    port = "1" if address is None else address.rpartition(":")[2]
    if not (port.isdecimal() and 0 < int(port) <= MOST_PORTS and ":" in (address or ":")):
        raise UsageError(f"{option} {(address or '').lstrip(':')}: must be {form}")


def _find(
    generator: Generator, target: Target, profile: LoadProfile, slo: str, console: Console
) -> Capacity:
    """The search for the highest rate, every run said as it ends."""
    objective = _objective(slo)
    settings = SearchSettings(
        seed=profile.seed, least_requests=objective.least_requests(SearchSettings.confidence)
    )
    console.print(capacity.plan(objective, settings))

    def measure(rate_rps: float, duration_s: float, seed: int) -> Run:
        step = {"rate": rate_rps, "users": None, "duration_s": duration_s, "seed": seed}
        return generator.measure(target, profile.model_copy(update=step))

    with capacity_view(console) as view:
        return capacity.find_capacity(measure, objective, settings, view.step, on_trial=view.trial)


def _objective(slo: str) -> Objective:
    try:
        return Objective.parse(slo)
    except ValueError as error:
        raise UsageError(f"--max-rps-under-slo: {error}") from None


def _report_capacity(found: Capacity, as_json: bool) -> int:
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        result_console().print("\n".join(capacity.describe(found)))
    if not found.complete:
        return EXIT_INTERRUPTED
    return 0 if found.confirmed else EXIT_UNDECIDED


def _result(
    measured: Measurement,
    headroom: Headroom,
    target: Target,
    profile: LoadProfile,
    facts: machine.MachineFacts,
    samples: Path | None,
) -> LoadResult:
    calibrated = {
        "overhead_p50_ms": headroom.overhead_p50_ms,
        "overhead_p99_ms": headroom.overhead_p99_ms,
        "headroom": headroom.times(measured.throughput_rps),
    }
    return LoadResult(
        **measured.model_dump() | calibrated,
        url=target.url,
        protocol=target.protocol,
        model=target.model,
        schedule=describe(profile),
        load=profile,
        machine=facts,
        guessed=target.guessed,
        samples=str(samples) if samples else None,
    )


def _show(result: LoadResult, as_json: bool) -> None:
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        result_console().print(result_table(result))


def _exit_code(measured: Measurement) -> int:
    if not measured.complete:
        return EXIT_INTERRUPTED
    return EXIT_UNDECIDED if measured.verdict == "invalid" else 0


def _append(path: Path, measured: Measurement) -> None:
    """Add a row of the plain fields; the header is written once, into an empty file."""
    columns = [n for n, f in Measurement.model_fields.items() if f.default_factory is None]
    row = {k: v for k, v in measured.model_dump(include=set(columns)).items() if v is not None}
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        if stream.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
