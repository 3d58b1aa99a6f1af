"""`dlbench tune`: search how to serve a model and print the front that was verified."""

from __future__ import annotations

import shlex
import signal
import sys
import tomllib
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlbench.cli.failure import EXIT_INTERRUPTED, EXIT_UNDECIDED, UsageError
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
from dlbench.cli.terminal.live import study_view
from dlbench.cli.terminal.output import (
    check_writable,
    notes_console,
    print_json,
    result_console,
    write_file,
)
from dlbench.cli.terminal.tables import answer, front_plot, report
from dlbench.loadgen.inputs.sizes import guess_notes
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.results.findings import findings
from dlbench.results.records import document, recommended_toml, study_points, write_csv
from dlbench.tuner.errors import NotKept
from dlbench.tuner.run import tune
from dlbench.tuner.storage.wall_clock import process_began_s
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.study_request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.verify.verification import Verified

NAME = "tune"
EXAMPLES = """[bold]Examples[/]

dlbench tune model.onnx

dlbench tune model.onnx --budget 10m --slo-p99 20ms

dlbench tune demo:mlp --distinct 20000 --zipf 1.1 --csv results.csv

dlbench tune demo:mlp --fix workers=2 --range max_batch_size=1..64 --slo "error_rate<0.1%"
"""
# What a study decides itself: the load, how long it lasts, and how its own server is spoken to.
LEFT_OUT = [
    *("rate", "users", "duration_s", "warmup_s", "think_s", "think_times", "trace", "trace_scale"),
    *("pattern", "rate_to", "steps", "spike_at_s", "spike_s", "period_s", "check"),
    *("protocol", "template", "keep_alive", "token_file", "tls_ca", "tls_insecure"),
    *("model", "host", "port", "allowed_hosts"),
    # Of the server what no measurement depends on; a file may have it for dlbench serve.
    *("also", "repository", "insecure", "tls_cert", "tls_key", "tls_client_ca", "grpc_port"),
    *("async_ttl_s", "async_results", "log_format", "max_header_kb"),
    *("header_timeout_s", "body_timeout_s", "idle_timeout_s", "drain_timeout_s"),
    # Given as often as there are bounds, and as a file.
    *("slo", "space"),
]


MODELS = (LoadProfile, ServerSettings, StudyConfig)


@options_from(LoadProfile, ServerSettings, StudyConfig, leave_out=LEFT_OUT)
def command(
    model: Model = None,
    study: Annotated[
        Path | None,
        typer.Option(
            "--study", metavar="FILE", help="study file; resumed if it exists (default NAME.db)"
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start the study over")] = False,
    config: ConfigFile = None,
    csv_path: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="also write every measured point to this CSV file"
        ),
    ] = None,
    recommended: Annotated[
        Path | None,
        typer.Option(
            "--recommended",
            metavar="FILE",
            help="file for the recommendation (default NAME.toml)",
        ),
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo",
            metavar="BOUND",
            help=StudyConfig.model_fields["slo"].description,
            rich_help_panel="Search",
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            metavar="FILE",
            help=f"TOML file: {StudyConfig.model_fields['space'].description}",
            rich_help_panel="Search",
        ),
    ] = None,
    plotted: Annotated[
        bool,
        typer.Option("--plot", help="plot the front into a pipe too, in plain ASCII"),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Find out how to serve a model here: the front of throughput against p99 latency, verified.

    Killed or interrupted, it resumes with the same command. Exit codes: 0 done, 1 failed,
    2 wrong usage, 3 nothing is recommended or a bound is not surely met, 130 interrupted with what
    was measured kept.
    """
    file = read_file(config, MODELS, NAME)
    settings = read_settings(model, given, file)
    search = read(StudyConfig, {**given, **_said(slo, space)}, file)
    profile = read(
        LoadProfile, {k: v for k, v in given.items() if k != "seed"}, {**file, "seed": 0}
    )
    if any(kind.data for kind in profile.request_class.values()):
        raise UsageError(
            "--request-class data=… works only in dlbench load; a study takes one --data"
        )
    path = study or Path(f"{settings.name or resolve_model(settings.model).name}.db")
    target = recommended or path.with_suffix(".toml")
    if config is not None and target.resolve() == config.resolve():
        raise UsageError(
            f"--recommended {target} would overwrite the --config file; choose another name"
        )
    for option, file_path in (("--study", path), ("--csv", csv_path), ("--recommended", target)):
        check_writable(option, file_path)
    notes = notes_console(quiet=quiet)
    lost: NotKept | None = None
    with interruptible(path), study_view(notes, search) as observer:
        command = shlex.join(["dlbench", *sys.argv[1:]])
        asked = Request(settings, profile, search, path, fresh, command, process_began_s())
        try:
            found, result = tune(asked, observer)
        except NotKept as error:
            if error.known is None:
                raise
            lost, (found, result) = error, error.known
    said = findings(result, search)
    if found.guessed:
        said["guessed"] = "; ".join(guess_notes(found.guessed))
    row = result.answer
    toml = "" if row is None else recommended_toml(row.config, settings, said)
    if toml:
        said["serve"] = shlex.join(["dlbench", "serve", "--config", str(target)])
    # First what nothing can go wrong with: a disk may be full.
    if as_json:
        print_json(document(result, said, found.spent_s, str(target)))
    else:
        _show(found, result, said, plotted=plotted)
    if lost is not None:
        raise lost
    if toml:
        write_file("--recommended", target, toml.encode())
    elif target.exists():
        notes.print(f"nothing is recommended now: {target} is left over from an earlier run")
    if csv_path:
        write_file("--csv", csv_path, _csv(found, result))
    if not is_sure(result, search):
        raise typer.Exit(EXIT_UNDECIDED)


def is_sure(result: Verified, search: StudyConfig) -> bool:
    """Whether something is recommended, and every bound is surely met."""
    pick = result.recommended
    others = [d for d in search.constraints.objectives if d.field != "p99_ms"]
    met = pick is not None and all(d.standing(pick) == "met" for d in others)
    return met and result.answer is not None and result.slo in ("none", "met")


def _csv(study: Study, result: Verified) -> bytes:
    stream = StringIO(newline="")
    write_csv(study_points(study.points(), result), stream, result.estimates)
    return stream.getvalue().encode()


def _said(slo: list[str] | None, space: Path | None) -> dict[str, Any]:
    """The two options that are written otherwise than their fields, as far as they were given."""
    said: dict[str, Any] = {"slo": tuple(slo)} if slo else {}
    return said | ({"space": _read_space(space)} if space else {})


def _read_space(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--space {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--space {path}: {error}") from None


def _show(study: Study, result: Verified, said: dict[str, str], *, plotted: bool) -> None:
    """The answer first; then the table that it follows from, and what speaks against it."""
    console, about = result_console(), study.identity
    console.print(said["answer"], style="bold")
    if result.bounds:
        console.print()
        model = Path(about["model"]).name
        console.print(
            f"Pareto front of throughput against p99: {model} on {about['device']}, {about['machine']}"
        )
        console.print(report(result))
    if plotted or console.is_terminal:
        console.print()
        console.print(front_plot(result, console))
    console.print()
    console.print(answer(said))


@contextmanager
def interruptible(path: Path) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a tidy end: everything stopped, what was measured kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        notes_console().print(
            f"interrupted: {path} keeps what was measured; resume with the same command"
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
