"""Options, environment variables and TOML keys, all derived from the models that declare them.

A value comes from the first of: command line, environment (`DLBENCH_<FIELD>`), the file given
with --config, the declared default. Durations lose their suffix as options and need a unit:
the field `slo_p99_ms` is the option `--slo-p99 20ms`. Where the name says the unit, as a knob's, a
variable's and a key's do, a number is enough: `slo_p99_ms = 20`.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from dlbench.cli.failure import UsageError
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.declaration import declarations
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.spelling import instead, meant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dlbench.proxy.declaration import Declaration

M = TypeVar("M", bound=BaseModel)

ENVIRONMENT_PREFIX = "DLBENCH_"
UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|min|s|m|h|d)?", re.IGNORECASE)
NUMBER = re.compile(r"\s*\d+(\.\d*)?\s*")
# Tables that a file may have, so that several commands can share it.
TABLES = ("serve", "tune")
NO_MODEL = "MODEL is missing; give an .onnx file, demo:mlp or demo:cnn"

# What commands have in common, under the same names and with the same help.
AsJson = Annotated[
    bool,
    typer.Option("--json", help="print one JSON document, and nothing else"),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="no progress, no notes: only the result and errors"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file with any of these options"),
]
Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="an .onnx file, demo:mlp or demo:cnn"),
]


def options_from(
    *models: type[BaseModel], leave_out: Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option per field of `models`; it receives those that were set as `given`.

    `given` maps field names to values from the command line alone; `read` merges the rest in.
    """
    skipped = set(leave_out)
    fields = {
        name: (model, field)
        for model in models
        for name, field in declarations(model).items()
        if name not in skipped
    }

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "given"]
        derived = [_parameter(model, field) for model, field in fields.values()]

        @functools.wraps(command)
        def run(**values: Any) -> Any:  # noqa: ANN401 - whatever the command returns
            given = {name: values.pop(name) for name in fields}
            given = {name: value for name, value in given.items() if value not in (None, [])}
            return command(**values, given=given)

        order = sorted([*own, *derived], key=lambda p: p.kind)
        run.__signature__ = inspect.Signature(order)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in order}
        return run

    return decorate


def read(model: type[M], given: Mapping[str, Any], file: Mapping[str, Any]) -> M:
    """A model from command line, environment, file and defaults, in that order.

    Raises:
        UsageError: a value is wrong; the text names the option and the bounds.
    """
    _check_environment()
    fields = declarations(model)
    values = {name: _named(fields[name], file[name]) for name in fields if name in file}
    for name, field in fields.items():
        if (text := os.environ.get(ENVIRONMENT_PREFIX + name.upper())) is not None:
            values[name] = _named(field, _from_text(field, text))
    values |= {name: _typed(fields[name], value) for name, value in given.items() if name in fields}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(model, error)) from None


def _check_environment() -> None:
    """See to it that no variable is a misspelt one of ours; others may have theirs.

    Raises:
        UsageError: one is.
    """
    known = [name.upper() for name in _every_field()]
    given = [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]
    for name in (name.removeprefix(ENVIRONMENT_PREFIX) for name in given):
        if name not in known and (close := meant(name, known, alike=0.8)):
            raise UsageError(
                f"{ENVIRONMENT_PREFIX}{name}: no such variable; "
                f"did you mean {ENVIRONMENT_PREFIX}{close}?"
            )


@functools.cache
def _every_field() -> frozenset[str]:
    # Here, for nobody who looks at a proxy waits for a tuner.
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.tuner.study_config import StudyConfig

    models = (ServingConfig, ServerSettings, LoadProfile, StudyConfig)
    return frozenset(name for model in models for name in model.model_fields)


def read_settings(
    model: str | None, given: Mapping[str, Any], file: Mapping[str, Any]
) -> ServerSettings:
    """The settings of a server whose model the command line names, or else the file.

    Raises:
        UsageError: neither does.
    """
    settings = read(ServerSettings, {**given, **({"model": model} if model else {})}, file)
    if not settings.model:
        raise UsageError(NO_MODEL)
    return settings


def read_file(
    path: Path | None, models: Iterable[type[BaseModel]], *commands: str
) -> dict[str, Any]:
    """The keys of a TOML file, each of them a field of one of `models`; empty without a file.

    A table named after a command holds for that one alone: those of `commands` count here.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as stream:
            found = tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path}: {error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path}: not UTF-8 at byte {error.start}") from None
    tables = {name: found.pop(name, {}) for name in TABLES}
    if odd := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise UsageError(f"--config {path}: {odd[0]} must be a table, written as [{odd[0]}]")
    for name in commands:
        found |= tables[name]
    known = {name for model in models for name in model.model_fields}
    if unknown := sorted(set(found) - known):
        words = sorted({*known, *TABLES})
        raise UsageError(
            f"--config {path}: unknown key {unknown[0]!r}; {instead(unknown[0], words)}"
        )
    return found


def option_name(name: str, model: type[BaseModel]) -> str:
    """The option of a field, for help and error texts."""
    takes_unit = _takes_unit(model, declarations(model)[name])
    return "--" + (name.rpartition("_")[0] if takes_unit else name).replace("_", "-")


def duration(text: str, *, option: str = "") -> float:
    """Seconds in a text such as "1.5s", "20ms", "5m", "1h30m" or "0". `option` is for errors.

    Raises:
        UsageError: not a duration, or a number without a unit.
    """
    found, rest = 0.0, text.strip()
    if not rest:
        raise UsageError(f"{option} is empty; write 10s, 20ms or 5m".lstrip())
    while rest:
        match = DURATION.match(rest)
        if not match:
            wrong = f"{option} {text!r} is not a duration; write 10s, 20ms or 5m"
            raise UsageError(wrong.lstrip())
        number, unit = match.groups()
        rest = rest[match.end() :].strip()
        if not unit and float(number) and not rest[:1].isalpha():
            raise UsageError(f"{option} {text} needs a unit: {number}ms or {number}s".lstrip())
        found += float(number) * UNITS_S[(unit or "s").lower()]
    return found


def _parameter(model: type[BaseModel], field: Declaration) -> inspect.Parameter:
    kind, metavar = _shown(model, field)
    option = typer.Option(
        option_name(field.name, model),
        help=_help(model, field),
        metavar=metavar,
        show_default=False,
        rich_help_panel=PANELS.get(model.__name__, "Options"),
        autocompletion=lambda incomplete: [c for c in field.words if c.startswith(incomplete)],
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


PANELS = {
    "ServingConfig": "Knobs (how to serve)",
    "ServerSettings": "Server",
    "LoadProfile": "Load",
    "StudyConfig": "Search",
}


def _shown(model: type[BaseModel], field: Declaration) -> tuple[Any, str | None]:
    """How an option looks to Typer: its type, and a metavar that leaves the help its room."""
    if field.kind is bool:
        # A switch that is on by default takes a value: how else could it be switched off?
        return (str | None, "on|off") if field.default else (bool | None, None)
    if field.kind is dict:
        return (list[str] | None), "NAME=VALUE"
    if field.kind is tuple:
        return (str | None), "LIST"
    if _takes_unit(model, field):
        return (str | None), "DURATION"
    return (field.kind | None), "CHOICE" if field.words else METAVARS.get(field.kind)


METAVARS = {int: "N", float: "NUMBER", str: "TEXT"}


def _help(model: type[BaseModel], field: Declaration) -> str:
    text = field.help.replace("[", r"\[")
    if field.words:
        text = f"{', '.join(field.words)}: {text}"
    default = field.default
    if default in (None, "", (), {}) or "(default" in text or default is PydanticUndefined:
        return text
    unit = field.unit if _takes_unit(model, field) else ""
    shown = f"{default:g}{unit}" if isinstance(default, float) else _plain(default)
    return f"{text} (default {shown})"


def _plain(default: Any) -> str:  # noqa: ANN401 - a field's default
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return ("off", "on")[default] if isinstance(default, bool) else str(default)


def _typed(field: Declaration, value: Any) -> Any:  # noqa: ANN401 - whatever Typer parsed
    """A value as the command line gives it, as the model wants it."""
    if isinstance(value, list):
        return dict(_pair(field, text) for text in value)
    if not isinstance(value, str):
        return value
    if field.is_duration:
        option = "--" + field.name.rpartition("_")[0].replace("_", "-")
        return duration(value, option=option) / UNITS_S[field.unit]
    return _from_text(field, value)


def _named(field: Declaration, value: Any) -> Any:  # noqa: ANN401 - what a file may hold
    """A value under a name that says its unit: a number is in that, a text may be in another."""
    if not field.is_duration or not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return duration(value, option=field.name) / UNITS_S[field.unit]


def _from_text(field: Declaration, text: str) -> Any:  # noqa: ANN401 - the field's type
    if field.kind is dict:
        return dict(_pair(field, part) for part in text.split())
    if field.kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _pair(field: Declaration, text: str) -> tuple[str, Any]:
    """`NAME=1,2` or `NAME=1`, by what the field maps to."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UsageError(f"--{field.name.replace('_', '-')} {text}: must be NAME=VALUE")
    many = get_origin(get_args(field.annotation)[1]) is tuple
    return key, (tuple(value.split(",")) if many else value)


def _takes_unit(model: type[BaseModel], field: Declaration) -> bool:
    """Whether its option is a duration: a knob's name says the unit, and a number is enough."""
    return model is not ServingConfig and field.is_duration


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first complaint of pydantic as one line that names the option and the bounds."""
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{name.upper()} is missing"
    if first["type"] == "extra_forbidden" and len(first["loc"]) > 1:
        return _unknown_part(model, name, first["loc"])
    message = str(first["msg"]).replace("Input should be ", "must be ")
    if first["type"] == "literal_error" and (close := meant(str(first["input"]), _choices(first))):
        message += f"; did you mean {close}?"
    bounds = _bounds(declarations(model)[name])
    inner = "".join(f" {part}" for part in first["loc"][1:])
    return f"{option_name(name, model)}{inner} {first['input']}: {message}{bounds}"


def _choices(error: Any) -> list[str]:  # noqa: ANN401 - pydantic's ErrorDetails
    """The words of a message such as "Input should be 'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _unknown_part(model: type[BaseModel], name: str, where: tuple[Any, ...]) -> str:
    """An unknown field of a model within a field, as of `--request-class`."""
    parts = get_args(declarations(model)[name].annotation)[-1].model_fields
    path = " ".join(map(str, where[1:-1]))
    return (
        f"{option_name(name, model)} {path}: no such key {where[-1]!r}; {instead(where[-1], parts)}"
    )


def _bounds(field: Declaration) -> str:
    low, high = field.bounds.get("ge"), field.bounds.get("le")
    return f" (from {low:g} to {high:g})" if low is not None and high is not None else ""
