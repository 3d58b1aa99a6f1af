"""What a study was measured on and with, as lines for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.quantity import digits
from dlbench.proxy.knob import KNOBS
from dlbench.results.findings import shown
from dlbench.tuner.study_config import StudyConfig

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from pydantic import BaseModel

    from dlbench.tuner.point import Point

    Kept = Mapping[str, Any]

# What repeats and how requests arrive decides too much to go without saying.
ALWAYS_SAID = ("arrivals", "distinct", "zipf", "timeout_s")
# Enough to tell two models apart by eye.
HASH_DIGITS = 32
# A study sets these itself, for each measurement.
OF_A_RUN = ("rate", "users", "duration_s", "warmup_s")
# What was not measured, not said or not there.
NOTHING: tuple[object, ...] = (None, "", [], {})


def page_facts(
    identity: Kept,
    calibration: Kept,
    sittings: Sequence[Kept],
    points: Sequence[Point],
    spent_s: float = 0.0,
) -> dict[str, dict[str, str]]:
    """Heading -> term -> text, of what a study keeps; what it does not is not there."""
    last: Kept = sittings[-1] if sittings else {}
    machine: Kept = last.get("machine", {})
    found = {
        "Study": _study(identity, points, spent_s),
        "Command": {_when(s["began"]): s["command"] for s in sittings if s.get("command")},
        "Asked for": _unusual(last.get("study", {}), StudyConfig, always=("budget_s",)),
        "Machine": _machine(identity, machine) | _calibrated(calibration),
        "Load": _load(identity.get("load", {})) | _guessed(last.get("guessed", {})),
        "Searched": {k: _text(v) for k, v in searched(identity).items()},
        "Versions": dict(machine.get("versions") or calibration.get("versions", {})),
    }
    return {heading: terms for heading, terms in found.items() if terms}


def searched(identity: Kept) -> dict[str, list[Any]]:
    """Knob -> the values that the study could try, where there was more than one."""
    spaces = {knob: identity.get(knob) or [] for knob in KNOBS}
    return {knob: values for knob, values in spaces.items() if len(values) > 1}


def _study(identity: Kept, points: Sequence[Point], spent_s: float) -> dict[str, str]:
    begun = sorted(p.measurement.started_at for p in points if p.measurement)
    return {
        "model": str(identity.get("model", "")),
        "hash of the model": str(identity.get("model_hash", ""))[:HASH_DIGITS],
        "device": str(identity.get("device", "")),
        "seed": str(identity.get("seed", "")),
        "measured": f"{_when(begun[0])} to {_when(begun[-1])}" if begun else "nothing yet",
        "time spent": f"{len(points)} measurements in {spent_s / 60:.1f} minutes",
    }


def _when(started_at: str) -> str:
    """A time of the record without its fractions; it is UTC."""
    return f"{started_at[:10]} {started_at[11:19]} UTC"


def _machine(identity: Kept, machine: Kept) -> dict[str, str]:
    """The processor and the pinning are always kept, the rest by a sitting."""
    told = {"processor": identity.get("machine"), "pinning": identity.get("pin")}
    told |= {name: v for name, v in machine.items() if name not in ("cpu", "versions")}
    return {name: _text(v) for name, v in told.items() if v not in NOTHING}


def _calibrated(calibration: Kept) -> dict[str, str]:
    known = calibration.get("calibration") or calibration
    found = {}
    if known.get("client_rps"):
        found["the client can drive"] = f"{digits(known['client_rps'])}/s"
    if services := known.get("services"):
        alone = [s for s in services if s["threads"] == 1 and s["busy"] == 1]
        times = (f"{digits(s['seconds'] * 1e3)} ms for {s['batch']}" for s in alone)
        found["one worker takes"] = ", ".join(times)
    return found


def _load(load: Kept) -> dict[str, str]:
    said = _unusual(load, LoadProfile, always=ALWAYS_SAID, leave_out=OF_A_RUN)
    return said | ({"distinct": "every input is new"} if load.get("distinct") == 0 else {})


def _guessed(shapes: Kept) -> dict[str, str]:
    """Guessed shapes of inputs with symbolic dimensions."""
    return {f"shape of {name}, a guess": _text(shape) for name, shape in shapes.items()}


def _unusual(
    kept: Kept, model: type[BaseModel], always: Container[str], leave_out: Container[str] = ()
) -> dict[str, str]:
    """What is not as declared, and what is too important to go without saying."""
    usual = model().model_dump(mode="json")
    return {
        name: _text(value)
        for name, value in kept.items()
        if name not in leave_out
        and value not in NOTHING
        and (name in always or value != usual.get(name))
    }


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a study keeps
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(own)}" for name, own in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return digits(value) if isinstance(value, float) else shown(value)
