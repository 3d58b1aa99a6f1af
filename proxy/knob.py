"""One view of a knob: what its declaration in `ServingConfig` says of it, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from dlbench.proxy.config import ServingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Knob:
    """What a knob may be and when it matters.

    `kind` is int, float, bool, str or tuple; numbers have `low` and `high`, the others `choices`
    (a tuple neither). `searched` are the values that the tuner tries, () for none. It means nothing
    while another knob has a value, (name, value) in `moot`. `naive` is what a tutorial's server has,
    None: the default. More than `per_core` times the cores is no value to search; 0: any is.
    """

    name: str
    kind: type
    default: Any
    low: Any
    high: Any
    choices: tuple[Any, ...]
    searched: tuple[Any, ...]
    restart: bool
    moot: tuple[str, Any] | None
    naive: Any
    per_core: int


def _knob(name: str, field: FieldInfo) -> Knob:
    origin = get_origin(field.annotation)
    kind: Any = str if origin is Literal else origin or field.annotation
    names = get_args(field.annotation) if kind is str else ()
    low, high = (
        next((kind(getattr(m, end)) for m in field.metadata if hasattr(m, end)), None)
        for end in ("ge", "le")
    )
    extra: Any = field.json_schema_extra
    declared: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in extra.items()
    }
    choices = (False, True) if kind is bool else names
    return Knob(name, kind, field.default, low, high, choices, **declared)


KNOBS: Mapping[str, Knob] = {n: _knob(n, field) for n, field in ServingConfig.model_fields.items()}


def restart_knobs() -> frozenset[str]:
    """Names of the knobs that need new worker processes."""
    return frozenset(knob.name for knob in KNOBS.values() if knob.restart)


def search_values() -> dict[str, tuple[Any, ...]]:
    """Knob name -> the values the tuner may try; knobs that are not searched are left out."""
    return {knob.name: knob.searched for knob in KNOBS.values() if knob.searched}
