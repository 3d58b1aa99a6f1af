"""Writes reference.md from the declarations in the code: `python docs/reference.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from dlbench.cli import failure
from dlbench.cli.main import COMMANDS, app
from dlbench.cli.options import ENVIRONMENT_PREFIX, PANELS, option_name
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.declaration import declarations
from dlbench.proxy.knob import KNOBS
from dlbench.proxy.settings import ServerSettings
from dlbench.results.records import COLUMNS, HEAD
from dlbench.tuner.study_config import StudyConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

    from dlbench.proxy.declaration import Declaration

PAGE = Path(__file__).with_name("reference.md")
INTRODUCTION = f"""\
# Reference

This page is generated from the declarations in the code by `python docs/reference.py`; a test compares them.

A value comes from the command line, else from the environment, else from the TOML file that `--config` names, else it is the default. The environment variable of a field is `{ENVIRONMENT_PREFIX}` and its TOML key in capitals: `{ENVIRONMENT_PREFIX}MAX_BATCH_SIZE`. An option that is a duration needs a unit (`20ms`, `10s`, `5m`). Where the name says the unit, as that of a variable, a key or a knob does, a number is enough. A list is written `4,8`, in the file `[4, 8]`. Options with NAME=VALUE may be repeated; in the file they are tables.

*restart*: a change of this knob needs new workers; the others change in place, which `dlbench tune` uses. *searched*: `dlbench tune` tries values of it.
"""
# How the declared options are grouped, here as in the help of the commands.
GROUPS: dict[str, type[BaseModel]] = {
    PANELS[model.__name__]: model
    for model in (ServingConfig, ServerSettings, LoadProfile, StudyConfig)
}
KINDS = {
    bool: "on or off",
    int: "integer",
    float: "number",
    str: "text",
    tuple: "list",
    dict: "NAME=VALUE",
}
SIGNS = {"ge": "at least ", "gt": "over ", "le": "at most "}
FIELD_HEAD = ("option", "TOML key", "values", "bounds", "default", "what it is")
# These have no option: they are the command's arguments.
ARGUMENTS = {"model": "the first MODEL", "also": "the other MODELs"}


# What the CSV's columns beside the knobs say; a test holds their names to the code's.
COLUMN_MEANINGS = {
    "point": "configuration and share of its capacity, such as c06@0.5",
    "phase": "baseline, probe, screen, verify or drift",
    "verdict": "ok, saturated, unsteady or invalid; failed: the configuration could not be served",
    "reason": "why the verdict is not ok",
    "on_front": "whether it is on the verified front",
    "recommended": "true for the recommended point",
    "offered_rps": "requests per second of the schedule; empty in a closed loop",
    "throughput_rps": "requests per second that were answered correctly",
    "throughput_low_rps": "lower end of its 95 % interval",
    "throughput_high_rps": "upper end",
    "throughput_est_rps": "the smoothed estimate of a verified point, by which the front was chosen",
    "p50_ms": "median latency; in an open loop from the scheduled send time",
    "p90_ms": "90th percentile",
    "p95_ms": "95th percentile",
    "p99_ms": "99th percentile",
    "p99_low_ms": "lower end of its 95 % interval; empty: undetermined",
    "p99_high_ms": "upper end",
    "p99_est_ms": "the smoothed estimate of a verified point, by which the front was chosen",
    "p999_ms": "99.9th percentile",
    "longest_ms": "the longest that any request took, to its reply or to its failure: "
    "all that is known of a percentile that is `inf`, because it falls among failed requests",
    "mean_ms": "mean latency",
    "error_rate": "share of the requests that failed, 0 to 1",
    "requests": "requests that were measured",
    "duration_s": "seconds of measurement, without the warm-up",
    "lateness_p99_ms": "99th percentile of actual minus scheduled send time, caused by the client",
    "client_cpu": "cores that the client used",
    "server_cpu": "cores that the proxy and its workers used",
    "server_rss_mb": "resident memory of the proxy and its workers (MB, a million bytes)",
    "net_mbps": "megabits per second, both ways",
    "gpu_util": "mean utilisation of the server's GPUs, 0 to 1, sampled twice a second",
    "gpu_mem_mb": "most memory in use on the server's GPUs, by all processes (MB, a million bytes)",
    "cache_hit_ratio": "share of the requests that the result cache answered",
    "mean_batch_size": "mean rows per batch that ran",
    "started_at": "when the measurement began (UTC)",
}
EXIT_MEANINGS = {
    "good": "it worked",
    "EXIT_FAILED": "it failed; one line says why; for `doctor`: something is bad",
    "EXIT_USAGE": "wrong usage; the line names the option",
    "EXIT_UNDECIDED": "it finished, but the data is inconclusive: an `invalid` run, an SLO that is "
    "undecided, a rate that was not confirmed",
    "EXIT_REGRESSION": "`compare` or `verify` found a regression",
    "EXIT_INTERRUPTED": "Ctrl-C; what was measured so far is kept and printed",
}


def page() -> str:
    """The whole page."""
    parts = [
        INTRODUCTION,
        "## Commands\n",
        *map(command, COMMANDS),
        *(f"## {title}\n\n{fields(model)}" for title, model in GROUPS.items()),
        f"## Columns of the CSV\n\n{columns()}",
        f"## Exit codes\n\n{exit_codes()}",
    ]
    return "\n".join(parts)


def command(name: str) -> str:
    """What a command is for, its own options, and which declared ones it takes."""
    found = typer.main.get_command(app).get_command(None, name)
    summary, *more = (" ".join(part.split()) for part in (found.help or "").split("\n\n"))
    own = [param for param in found.params if _group(param) not in GROUPS and param.name != "help"]
    parts = [f"### dlbench {name}", summary, *more, table(("option", "what it is"), map(_own, own))]
    return "\n\n".join([*parts, *_declared(found)]) + "\n"


def _own(param: Any) -> tuple[str, str]:  # noqa: ANN401 - typer's click is private
    metavar = param.metavar or ""
    if param.param_type_name == "argument":
        return f"`{metavar or param.name.upper()}`", _words(param.help)
    shown = " ".join(part for part in (param.opts[0], metavar) if part)
    return f"`{shown}`", _words(param.help)


def _words(said: str | None) -> str:
    """Without the terminal's markup."""
    return escaped(Text.from_markup(said or "").plain)


def _declared(found: Any) -> Iterator[str]:  # noqa: ANN401 - the same
    for title, model in GROUPS.items():
        names = [param.name for param in found.params if _group(param) == title]
        link = f"[{title}](#{_anchor(title)})"
        if len(names) > len(model.model_fields) / 2:
            options = [_option(name, model) for name in model.model_fields if name not in names]
            but = ", ".join(option for option in options if option.startswith("`"))
            yield f"{link}: all{f' but {but}' if but else ''}."
        elif names:
            yield f"{link}: {', '.join(_option(name, model) for name in names)}."


def _group(param: Any) -> str:  # noqa: ANN401 - the same
    return str(getattr(param, "rich_help_panel", None) or "")


def _anchor(title: str) -> str:
    """As Python-Markdown makes them."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).rstrip()


def fields(model: type[BaseModel]) -> str:
    """Every field of a declaration, in its order."""
    if model is not ServingConfig:
        return table(FIELD_HEAD, _rows(model)) + "\n"
    rows = (
        (*row, _yes(knob.restart), _yes(knob.searched))
        for knob, row in zip(KNOBS.values(), _rows(model), strict=True)
    )
    return table((*FIELD_HEAD, "restart", "searched"), rows) + "\n"


def _yes(it_is: object) -> str:
    return "yes" if it_is else "no"


def columns() -> str:
    """In the order of the file."""
    knobs = ("*one per knob*", f"`{next(iter(ServingConfig.model_fields))}` and so on, see above")
    rows = [(f"`{name}`", COLUMN_MEANINGS[name]) for name in COLUMNS if name in COLUMN_MEANINGS]
    rows.insert(len(HEAD), knobs)
    return table(("column", "what it is"), rows) + "\n"


def exit_codes() -> str:
    """From the lowest."""
    codes = {name: getattr(failure, name) for name in EXIT_MEANINGS if name.startswith("EXIT_")}
    rows = [(f"`{code}`", EXIT_MEANINGS[name]) for name, code in {"good": 0, **codes}.items()]
    return table(("code", "means"), rows) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in declarations(model).items():
        unit = f" {field.unit}" if field.unit else ""
        yield (
            _option(name, model),
            f"`{name}`",
            _values(model, field),
            _bounds(field, unit),
            _default(field.default, unit),
            escaped(field.help),
        )


def _option(name: str, model: type[BaseModel]) -> str:
    return ARGUMENTS.get(name) or f"`{option_name(name, model)}`"


def escaped(said: str) -> str:
    """Fit for a cell of a table."""
    return " ".join(said.replace("|", r"\|").replace("<", "&lt;").split())


def _values(model: type[BaseModel], field: Declaration) -> str:
    if model is not ServingConfig and field.is_duration:
        return "duration"
    return ", ".join(f"`{word}`" for word in field.words) or KINDS[field.kind]


def _bounds(field: Declaration, unit: str) -> str:
    found = field.bounds
    if {"ge", "le"} <= found.keys():
        return f"{found['ge']:,} to {found['le']:,}{unit}"
    return ", ".join(f"{SIGNS[sign]}{bound:,}{unit}" for sign, bound in found.items())


def _default(value: Any, unit: str) -> str:  # noqa: ANN401 - a field's default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, (int, float)):
        return f"{value:,g}{unit}"
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
