"""What a field of a model says of itself: the one view that options, files, docs and knobs read."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

BOUNDS = ("ge", "gt", "le")
# What a field's name says of its unit.
UNITS = {"_ms": "ms", "_s": "s", "_mb": "MiB", "_kb": "KiB"}


@dataclass(frozen=True)
class Declaration:
    """A field's name, help and default, and what it may be.

    `annotation` is its type without `| None`, `kind` the plain class of that: int, float, bool, str,
    tuple or dict. `choices` are a switch's or a word's, else (); `bounds` are by pydantic's names.
    """

    name: str
    help: str
    annotation: Any
    kind: Any
    choices: tuple[Any, ...]
    bounds: Mapping[str, float]
    default: Any

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it is one of; () where any text will do, and of other kinds."""
        return self.choices if self.kind is str else ()

    @property
    def unit(self) -> str:
        return next((unit for suffix, unit in UNITS.items() if self.name.endswith(suffix)), "")

    @property
    def is_duration(self) -> bool:
        return self.kind is float and self.unit in ("ms", "s")


def declare(name: str, field: FieldInfo) -> dict[str, Any]:
    """The fields of a `Declaration`, read from pydantic's."""
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    origin = get_origin(annotation)
    kind = str if origin is Literal else origin or annotation
    return {
        "name": name,
        "help": field.description or "",
        "annotation": annotation,
        "kind": kind,
        "choices": {bool: (False, True), str: get_args(annotation)}.get(kind, ()),
        "bounds": {b: getattr(m, b) for m in field.metadata for b in BOUNDS if hasattr(m, b)},
        "default": field.get_default(call_default_factory=True),
    }


@cache
def declarations(model: type[BaseModel]) -> Mapping[str, Declaration]:
    """Every field of a model, in its order."""
    return {n: Declaration(**declare(n, field)) for n, field in model.model_fields.items()}
