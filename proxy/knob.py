"""One view of a knob: its declaration in `ServingConfig`, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.declaration import Declaration, declare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Knob(Declaration):
    """What a knob may be and when it matters.

    `kind` is int, float, bool, str or tuple; numbers have `low` and `high`, the others `choices`
    (a tuple neither). `searched` are the values that the tuner tries, () for none. It means nothing
    while another knob has a value, (name, value) in `moot`. `naive` is what a tutorial's server has,
    None: the default. More than `per_core` times the cores is no value to search; 0: any is.
    """

    searched: tuple[Any, ...]
    restart: bool
    moot: tuple[str, Any] | None
    naive: Any
    per_core: int

    @property
    def low(self) -> Any:  # noqa: ANN401 - a number of the knob's kind
        return self.kind(self.bounds["ge"])

    @property
    def high(self) -> Any:  # noqa: ANN401 - the same
        return self.kind(self.bounds["le"])


def _knob(name: str, field: FieldInfo) -> Knob:
    extra: Any = field.json_schema_extra
    own: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in extra.items()}
    return Knob(**declare(name, field), **own)


KNOBS: Mapping[str, Knob] = {n: _knob(n, field) for n, field in ServingConfig.model_fields.items()}


def restart_knobs() -> frozenset[str]:
    """Names of the knobs that need new worker processes."""
    return frozenset(knob.name for knob in KNOBS.values() if knob.restart)


def search_values() -> dict[str, tuple[Any, ...]]:
    """Knob name -> the values the tuner may try; knobs that are not searched are left out."""
    return {knob.name: knob.searched for knob in KNOBS.values() if knob.searched}
