"""The report of `dlbench doctor`, on machines that are not this one."""

import pytest
from typer.testing import CliRunner

from dlbench.cli.commands import doctor
from dlbench.cli.main import app
from dlbench.doctor.finding import Finding

LONG = "a processor with a name that is longer than a line of eighty columns can ever be, surely"


def reported(monkeypatch, *rows):
    """Exit code and lines of a report with these groups, names, verdicts, sights and advices."""
    fields = ("group", "name", "verdict", "seen", "advice")
    findings = [Finding(**dict(zip(fields, row, strict=True))) for row in rows]
    monkeypatch.setattr(doctor, "gather", lambda folder: folder)
    monkeypatch.setattr(doctor, "examine", lambda facts: findings)
    done = CliRunner().invoke(app, ["doctor", "--quiet"])
    return done.exit_code, [line.rstrip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("verdict", "code", "conclusion"),
    [
        ("good", 0, "Nothing here spoils a measurement."),
        ("unknown", 0, "Nothing here is known to spoil a measurement."),
        ("note", 0, "Figures measured here are reliable; mind the notes."),
        ("bad", 1, "Figures measured here are not reliable; see the lines marked bad."),
    ],
)
def test_scripts_go_by_whether_anything_is_bad(monkeypatch, verdict, code, conclusion):
    row = ("time", "others", verdict, "busy", "")
    exit_code, lines = reported(monkeypatch, ("models", "CPU", "good", "runs", ""), row)
    assert exit_code == code
    assert lines[-1] == conclusion


def test_it_is_plain_in_a_pipe_and_fits_80_columns(monkeypatch):
    advice = "x" * 72
    _, lines = reported(
        monkeypatch,
        ("models", "CPU", "good", LONG, ""),
        ("time", "others", "note", "half a core [busy]", advice),
        ("time", "clock", "unknown", "not reported", ""),
    )
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "\x1b" in line]
    assert lines[0] == "models"
    assert lines[3:7] == [
        "time",
        "note    others         half a core [busy]",
        f"        {advice}",
        "unknown clock          not reported",
    ]
