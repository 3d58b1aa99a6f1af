"""What a study was measured on and with, as lines for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.report import digits, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.tuner.point import Point

    Kept = Mapping[str, Any]

# What repeats and how requests arrive decides too much to go without saying.
ALWAYS_SAID = ("arrivals", "distinct", "zipf", "timeout_s")
# A study sets these itself, for each measurement.
OF_A_RUN = ("rate", "users", "duration_s", "warmup_s")


def page_facts(
    identity: Kept, calibration: Kept, points: Sequence[Point]
) -> dict[str, dict[str, str]]:
    """Heading -> term -> text; what the study does not keep is not there."""
    found = {
        "Study": _study(identity, points),
        "Machine": _machine(identity, calibration),
        "Load": _load(identity.get("load", {})),
        "Searched": {k: _listed(v) for k, v in searched(identity).items()},
        "Versions": dict(calibration.get("versions", {})),
    }
    return {heading: terms for heading, terms in found.items() if terms}


def searched(identity: Kept) -> dict[str, list[Any]]:
    """Knob -> the values that the study could try, where there was more than one."""
    spaces = {knob: identity.get(knob) or [] for knob in ServingConfig.model_fields}
    return {knob: values for knob, values in spaces.items() if len(values) > 1}


def _study(identity: Kept, points: Sequence[Point]) -> dict[str, str]:
    begun = sorted(p.measurement.started_at for p in points if p.measurement)
    spent_s = sum(point.cost_s for point in points)
    return {
        "model": str(identity.get("model", "")),
        "hash of the model": str(identity.get("model_hash", "")),
        "device": str(identity.get("device", "")),
        "seed": str(identity.get("seed", "")),
        "measured": f"{_when(begun[0])} to {_when(begun[-1])}" if begun else "nothing yet",
        "time spent": f"{len(points)} measurements in {spent_s / 60:.1f} minutes",
    }


def _when(started_at: str) -> str:
    """A time of the record without its fractions; it is UTC."""
    return f"{started_at[:10]} {started_at[11:19]} UTC"


def _machine(identity: Kept, calibration: Kept) -> dict[str, str]:
    known = calibration.get("calibration", {})
    found = {"processor": identity.get("machine"), "pinning": identity.get("pin")}
    if known.get("client_rps"):
        found["the client can drive"] = f"{digits(known['client_rps'])}/s"
    if services := known.get("services"):
        alone = [s for s in services if s["threads"] == 1 and s["busy"] == 1]
        found["one worker takes"] = ", ".join(
            f"{digits(s['seconds'] * 1e3)} ms for {s['batch']}" for s in alone
        )
    return {term: str(text) for term, text in found.items() if text}


def _load(load: Kept) -> dict[str, str]:
    """What was said of the load, and what is too important not to be."""
    usual = LoadProfile.model_fields
    said = {
        name: value
        for name, value in load.items()
        if name not in OF_A_RUN
        and (name in ALWAYS_SAID or (name in usual and value != usual[name].get_default()))
        and value not in (None, {}, [])
    }
    texts = {name: _listed(v) if isinstance(v, list) else shown(v) for name, v in said.items()}
    return texts | ({"distinct": "every input is new"} if said.get("distinct") == 0 else {})


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(shown, values))
