"""Writes the table of every knob and setting into serving.md: `python docs/serving_table.py`."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from dlbench.cli.options import option_name
from dlbench.proxy.config import ServingConfig, restart_knobs, search_values
from dlbench.proxy.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PAGE = Path(__file__).with_name("serving.md")
MARKER = "<!-- table -->"
HEAD = ("option", "TOML key", "values", "bounds", "default", "restart", "searched", "what it is")
# What a field's name says of its unit.
UNITS = {"_ms": " ms", "_s": " s", "_mb": " MiB", "_kb": " KiB"}
KINDS = {
    bool: "on or off",
    int: "integer",
    float: "number",
    str: "text",
    tuple: "list",
    dict: "NAME=VALUE",
}
SIGNS = {"ge": "at least ", "gt": "over ", "le": "at most "}
# These have no option: they are the command's arguments.
ARGUMENTS = {"model": "the first MODEL", "also": "the other MODELs"}


def rewritten(page: str) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the page does not have exactly two markers.
    """
    before, _, after = page.split(MARKER)
    return f"{before}{MARKER}\n\n{table()}\n{MARKER}{after}"


def table() -> str:
    """Every knob, then every setting, in the order of their declarations."""
    rows = [HEAD, ("---",) * len(HEAD), *_rows(ServingConfig), *_rows(ServerSettings)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    in_place = set(ServingConfig.model_fields) - restart_knobs()
    for name, field in model.model_fields.items():
        unit = next((text for suffix, text in UNITS.items() if name.endswith(suffix)), "")
        yield (
            ARGUMENTS.get(name) or f"`{option_name(name, model)}`",
            f"`{name}`",
            _values(name, model, field),
            _bounds(field, unit),
            _default(field.get_default(call_default_factory=True), unit),
            "no" if name in in_place else "yes",
            "yes" if name in search_values() else "no",
            (field.description or "").replace("|", r"\|"),
        )


def _values(name: str, model: type[BaseModel], field: FieldInfo) -> str:
    takes_unit = option_name(name, model) != option_name(name, ServingConfig)
    return "duration" if takes_unit else _kind(field.annotation)


def _kind(annotation: Any) -> str:  # noqa: ANN401 - a type
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    return _kind(get_args(annotation)[0]) if origin is UnionType else KINDS[origin]


def _bounds(field: FieldInfo, unit: str) -> str:
    found = {sign: getattr(m, sign) for m in field.metadata for sign in SIGNS if hasattr(m, sign)}
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
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
