"""What a person said of the knobs: `--fix workers=2`, `--range max_batch_size=1..64`. Pure.

A text is checked against the knob's one declaration; what is wrong raises ValueError with a line
that names the option, the knob and what it may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.knob import KNOBS
from dlbench.proxy.spelling import instead

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BETWEEN = ".."
KINDS = {int: "a whole number", float: "a number"}
# 0 workers are as many as the machine has cores: no value to search or to compare.
AUTOMATIC = {"workers": 0}
# Doubling reaches every declared upper bound within so many steps.
DOUBLINGS = 26


def fixed(given: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Knob -> its only value, from `--fix`."""
    return {knob: (_value("--fix", knob, value),) for knob, value in given.items()}


def ranged(given: Mapping[str, Any], option: str = "--range") -> dict[str, tuple[Any, ...]]:
    """Knob -> the values it may take, ascending, from `LOW..HIGH` or a list.

    Inside LOW..HIGH lie the values that are declared, beyond those (or without any) powers of two,
    and both ends. An end left out is the declared one; `..` frees every choice of a knob.
    """
    return {knob: _values(option, knob, value) for knob, value in given.items()}


def restriction(
    space: Mapping[str, Any], ranges: Mapping[str, Any], fixes: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Knob -> the only values it may take. Options win over `space`, the keys of a space file."""
    if both := sorted(set(ranges) & set(fixes)):
        raise ValueError(f"--fix {both[0]} and --range {both[0]} cannot be combined; choose one")
    return {**ranged(space, "--space"), **ranged(ranges), **fixed(fixes)}


def _values(option: str, knob: str, given: Any) -> tuple[Any, ...]:  # noqa: ANN401 - TOML or text
    if _is_list(option, knob):
        if option == "--range":
            raise ValueError(f"--range {knob}: a list can only be fixed, with --fix {knob}=…")
        return (_value(option, knob, given),)
    if isinstance(given, str) and BETWEEN in given:
        return _between(option, knob, given)
    parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    parts = parts if isinstance(parts, list) else [parts]
    if not parts:
        raise ValueError(f"{option} {knob}: no value is left")
    return _ordered(knob, {_value(option, knob, part) for part in parts})


def _between(option: str, knob: str, text: str) -> tuple[Any, ...]:
    low, _, high = (part.strip() for part in text.partition(BETWEEN))
    if choices := KNOBS[knob].choices:
        if low or high:
            raise ValueError(f"{option} {knob}={text}: must be .. or {_allowed(knob)}")
        return choices
    first, last = _ends(knob)
    bottom = _value(option, knob, low) if low else first
    top = _value(option, knob, high) if high else last
    if bottom > top:
        raise ValueError(f"{option} {knob}={text}: the lower bound comes first ({_allowed(knob)})")
    return _ordered(knob, {bottom, *(v for v in _ladder(knob) if bottom < v < top), top})


def _ladder(knob: str) -> Iterable[Any]:
    """The values that make sense to try: what is declared, and doubling from there on."""
    declared, kind = KNOBS[knob].searched, KNOBS[knob].kind
    doubled = (kind(2**n) for n in range(DOUBLINGS))
    return (*declared, *(value for value in doubled if value > max(declared, default=0)))


def _ends(knob: str) -> tuple[Any, Any]:
    ends = KNOBS[knob].searched or (KNOBS[knob].low, KNOBS[knob].high)
    return min(ends), max(ends)


def _ordered(knob: str, values: set[Any]) -> tuple[Any, ...]:
    declared = KNOBS[knob].choices
    return tuple(sorted(values, key=declared.index if declared else None))


def _value(option: str, knob: str, given: Any) -> Any:  # noqa: ANN401 - the knob's type
    as_list = _is_list(option, knob) and isinstance(given, str)
    raw = [part.strip() for part in given.split(",")] if as_list else given
    try:
        value = getattr(ServingConfig.model_validate({knob: raw}), knob)
    except ValidationError:
        value = None
    if value is None or (knob in AUTOMATIC and value == AUTOMATIC[knob]):
        raise ValueError(f"{option} {knob}={given}: must be {_allowed(knob)}")
    return value


def _is_list(option: str, knob: str) -> bool:
    if knob not in KNOBS:
        raise ValueError(f"{option} {knob}: no such knob; {instead(knob, KNOBS)}")
    return KNOBS[knob].kind is tuple


def _allowed(name: str) -> str:
    """What a knob may be, in words."""
    knob = KNOBS[name]
    if knob.kind is bool:
        return "on or off"
    if knob.kind is tuple:
        return "numbers over 0, as 4,8"
    if knob.choices:
        return f"one of {', '.join(knob.choices)}"
    low = knob.low + 1 if AUTOMATIC.get(name) == knob.low else knob.low
    return f"{KINDS[knob.kind]} from {low:g} to {knob.high:g}"
