"""`dlbench predict`: what a configuration will do under a load, before anybody measures it."""

from __future__ import annotations

from math import inf, isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dlbench.cli.failure import UsageError
from dlbench.cli.options import (
    AsJson,
    ConfigFile,
    Model,
    Quiet,
    options_from,
    read,
    read_file,
    read_settings,
)
from dlbench.cli.terminal.output import check_writable, notes_console, print_json, result_console
from dlbench.loadgen.inputs.sizes import guess_notes
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.quantity import digits
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.calibrate import calibrated
from dlbench.tuner.twin.bottleneck import bottleneck
from dlbench.tuner.twin.foresight import load_of
from dlbench.tuner.twin.kept_calibration import KeptCalibration, read_calibration
from dlbench.tuner.twin.textbook import left_out, textbook
from dlbench.tuner.twin.twin import capacity_rps, infeasible, predict

if TYPE_CHECKING:
    from rich.console import Console

    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.scenario import Load

NAME = "predict"
EXAMPLES = """[bold]Examples[/]

dlbench predict demo:mlp --rate 500 --max-batch-size 16 --workers 2

dlbench predict model.onnx --rate 2000 --cache-size 4096 --distinct 20000 --zipf 1.1 --json

dlbench predict model.onnx --rate 100 --calibration model.calibration.json
"""
# Of the load what the twin knows, and what the calibration's requests look like.
LOAD = (
    *("rate", "arrivals", "gamma_cv", "distinct", "zipf", "churn", "seed"),
    *("encoding", "shape", "data"),
)
SERVER = (
    *("name", "device", "device_ids", "provider_option", "io_binding"),
    *("batch_axis", "rows_independent"),
)
MODELS = (LoadProfile, ServerSettings, ServingConfig)
LEFT_OUT = [
    *(set(LoadProfile.model_fields) - set(LOAD)),
    *(set(ServerSettings.model_fields) - set(SERVER) - set(LOAD)),
]
# Closer to its capacity a queue is never done growing.
NEARLY_FULL = 0.95


GROWS = "grows"


def _ms(value: float) -> str:
    return GROWS if isinf(value) else f"{digits(value)} ms"


def _count(value: float) -> str:
    return GROWS if isinf(value) else digits(value)


# What is printed: name, title, and how it is written. The textbook's queue has some of it.
SHOWN = (
    ("throughput_rps", "throughput", "{:,.1f}/s".format),
    ("mean_ms", "mean", _ms),
    ("p50_ms", "p50", _ms),
    ("p99_ms", "p99", _ms),
    ("in_flight", "in flight (Little's law)", _count),
    ("mean_batch", "mean batch", digits),
    ("utilisation", "workers busy", "{:.0%}".format),
    ("hit_ratio", "cache hits", "{:.1%}".format),
    ("rejected_share", "refused", "{:.2%}".format),
    ("capacity_rps", "capacity", "{:,.0f}/s".format),
)


@options_from(*MODELS, leave_out=LEFT_OUT)
def command(
    model: Model = None,
    config: ConfigFile = None,
    kept: Annotated[
        Path | None,
        typer.Option(
            "--calibration", metavar="FILE", help="used if it exists, else calibrated and written"
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Say what a configuration will do under a load, from a calibration of some 20 s.

    A simulation of the proxy, not a measurement: dlbench serve and dlbench load give those.
    """
    file = read_file(config, MODELS, "serve")
    settings = read_settings(model, given, file)
    profile, knobs = read(LoadProfile, given, file), read(ServingConfig, given, file)
    if profile.rate is None:
        raise UsageError("--rate is missing; add the expected requests per second")
    device = "cpu" if settings.device == "auto" else settings.device
    knobs = knobs.resolved(device, len(settings.device_ids))
    notes = notes_console(quiet=quiet)
    calibration = _calibration(settings, profile, kept, notes)
    for note in guess_notes(calibration.guessed):
        notes.print(f"note: {note}")
    if reason := infeasible(knobs, calibration):
        raise UsageError(f"this configuration cannot run here: {reason}")
    load = load_of(profile).model_copy(update={"rate_rps": profile.rate})
    _show(_document(knobs, load, calibration), as_json)


def _calibration(
    settings: ServerSettings, profile: LoadProfile, path: Path | None, console: Console
) -> Calibration:
    """From the file, or measured and, with a file, kept there."""
    if path is not None and path.exists():
        return read_calibration(path, settings, profile)
    check_writable("--calibration", path)
    resolve_model(settings.model)  # before anything is said to be done
    console.print("calibrating, about 20 s", style="dim")
    found = calibrated(
        settings,
        profile.model_copy(update={"rate": None}),
        console.print,
    )
    if path is not None:
        KeptCalibration.of(settings, profile, found).write(path)
    return found


def _document(config: ServingConfig, load: Load, calibration: Calibration) -> dict[str, Any]:
    found = predict(config, load, calibration)
    capacity = capacity_rps(config, calibration, load)
    full = predict(
        config, load.model_copy(update={"rate_rps": NEARLY_FULL * capacity}), calibration
    )
    overloaded = load.rate_rps > capacity
    return {
        **found._asdict(),
        "in_flight": inf if overloaded else found.throughput_rps * found.mean_ms / 1000,
        "queueing": {
            **textbook(config, load, calibration)._asdict(),
            "left_out": left_out(config, load, calibration, found),
        },
        "capacity_rps": capacity,
        "limit": bottleneck(config, calibration, capacity, full),
        "overloaded": overloaded,
        "configuration": config.model_dump(mode="json"),
        "load": load.model_dump(mode="json"),
        "guessed": calibration.guessed,
    }


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    theory = document["queueing"]
    table = Table("", "simulated", theory["queue"], box=None, padding=(0, 2, 0, 0))
    for name, title, form in SHOWN:
        table.add_row(title, form(document[name]), form(theory[name]) if name in theory else "")
    console = result_console()
    console.print(table)
    console.print(f"limited by {document['limit']}")
    if theory["left_out"]:
        console.print(f"{theory['queue']} leaves out: {', '.join(theory['left_out'])}")
    if document["overloaded"]:
        console.print("overload: the rate exceeds the capacity, so latencies keep growing")
