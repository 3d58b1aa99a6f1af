"""What a report says of how it was measured."""

from dlbench.loadgen.profile import LoadProfile
from dlbench.results.page.provenance import page_facts, searched
from dlbench.tuner.study_config import StudyConfig
from testbed import made


def facts(calibration=None, sittings=(), **profile):
    load = LoadProfile(**profile).model_dump(mode="json", exclude={"seed"})
    identity = {"model": "demo:mlp", "device": "cpu", "seed": 3, "pin": "auto", "load": load}
    identity |= {"machine": "AMD EPYC, 2 cores", "workers": [1, 2], "cache_size": [0]}
    return page_facts(identity, calibration or {}, sittings, [made.verified()])


def test_what_repeats_is_always_said():
    assert facts()["Load"]["distinct"] == "every input is new"
    said = facts(distinct=500, zipf=1.1)["Load"]
    assert (said["distinct"], said["zipf"], said["arrivals"]) == ("500", "1.1", "poisson")


def test_of_the_rest_only_what_is_not_as_usual():
    assert "gamma_cv" not in facts()["Load"]
    assert facts(arrivals="gamma", gamma_cv=4.0)["Load"]["gamma_cv"] == "4"


def test_searched_is_what_had_a_choice():
    assert facts()["Searched"] == {"workers": "1, 2"}
    assert searched({}) == {}


def test_what_is_not_kept_is_not_there():
    assert "Versions" not in facts()
    known = {"versions": {"numpy": "2"}, "calibration": {"client_rps": 1234.5}}
    found = facts(known)
    assert found["Versions"] == {"numpy": "2"}
    assert found["Machine"]["the client can drive"] == "1,234/s"


def test_times_are_told_without_fractions():
    found = facts()["Study"]
    assert found["measured"] == "2026-01-01 00:00:00 UTC to 2026-01-01 00:00:00 UTC"
    assert found["seed"] == "3"


def test_each_sitting_has_its_command_and_the_last_its_machine():
    machine = {**made.MACHINE.model_dump(mode="json"), "memory_mb": 8192.0}
    study = StudyConfig(budget_s=60, slo_p99_ms=20.0, slo=("error_rate<0.1%",))
    sitting = {"machine": machine, "study": study.model_dump(mode="json")}
    sittings = [
        {**sitting, "began": f"2026-01-0{day}T10:00:00+00:00", "command": f"dlbench tune m{day}"}
        for day in (1, 2)
    ]
    found = facts(sittings=sittings)
    assert found["Command"] == {
        "2026-01-01 10:00:00 UTC": "dlbench tune m1",
        "2026-01-02 10:00:00 UTC": "dlbench tune m2",
    }
    assert found["Asked for"] == {"budget_s": "60", "slo_p99_ms": "20", "slo": "error_rate<0.1%"}
    assert found["Machine"]["memory_mb"] == "8,192"
    assert "governor" not in found["Machine"]
    assert found["Versions"] == made.MACHINE.versions
