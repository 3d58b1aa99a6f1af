"""The pictures and the code of docs/how-tuning-works.md."""

import importlib
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.results import chart
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.twin.predictions import Predictions
from dlbench.tuner.verify.verification import Verified
from testbed import made

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-tuning-works.md").read_text(encoding="utf-8")
SHARES = (0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def figures():
    """Scripts find each other beside themselves; nobody else should find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("tuning_figures")
    sys.modules.pop("tuning_figures")


def point(name, config, phase, share, rate, p99, **more):
    return made.point(name, phase, share, config=config, rate=rate, p99=p99, **more)


def curve(name, config, phase, capacity):
    loaded = [(share, share * capacity, 5 / (1 - share)) for share in SHARES]
    probe = point(name, config, "probe", None, capacity, 50.0)
    return [probe, *(point(name, config, phase, *load) for load in loaded)]


@pytest.fixture(scope="module")
def evidence(figures):
    """Three configurations; one verified interval is far wider than its picture."""
    space = made.space(repeats_inputs=True)
    configs = list(dict.fromkeys([space.naive, space.default, *space.configurations()]))
    capacity = np.linspace(400.0, 9000.0, len(configs))
    p99 = np.repeat([[6.0, 9.0, 14.0, 40.0]], len(configs), axis=0)
    names = {"naive": "baseline", "default": "baseline", "c01": "screen"}
    picked = dict(zip(names, (space.naive, space.default, configs[-1]), strict=True))
    points = [p for n, c in picked.items() for p in curve(n, c, names[n], 500 * (1 + len(n)))]
    pooled = (
        point("default", space.default, "verify", 0.7, 2800.0, 20.0, p99_low_ms=18.0, p99_high_ms=25.0, on_front=True),
        point(
            "c01", configs[-1], "verify", 0.9, 1800.0, 60.0, p99_low_ms=0.01, p99_high_ms=1e7, on_front=True,
            recommended=True,
        ),
    )  # fmt: skip
    known = Predictions.of(space, configs, SHARES, capacity, p99)
    return figures.Evidence(points, Verified(pooled, "none"), known)


@pytest.mark.parametrize("name", ["operating-points", "twin", "correction", "verification"])
def test_nothing_is_drawn_outside_the_picture(figures, evidence, name):
    drawn = ET.fromstring(figures.PICTURES[name](evidence))
    _, _, width, height = map(float, drawn.get("viewBox").split())
    inside = 0
    for element, top in walk(drawn, 0.0):
        for x, y in coordinates(element):
            assert 0 <= x <= width
            assert 0 <= y + top <= height
            inside += 1
    assert inside > 20


def walk(element, top):
    for child in element:
        moved = re.match(r"translate\(0 ([\d.]+)\)", child.get("transform", ""))
        yield from walk(child, top + float(moved[1])) if moved else [(child, top)]


def coordinates(element):
    """Where an element is: a text, a mark, or every vertex of a curve."""
    if element.tag.endswith("text"):
        yield float(element.get("x")), float(element.get("y"))
    elif at := re.match(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", "")):
        yield float(at[1]), float(at[2])
    elif element.tag.endswith("path"):
        for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", element.get("d")):
            yield float(x), float(y)


def test_every_picture_of_the_page_is_there_and_drawn_by_the_script(figures):
    shown = set(re.findall(r"\]\(([a-z-]+)\.svg\)", PAGE))
    assert shown == set(figures.PICTURES)
    assert all((DOCS / f"{name}.svg").is_file() for name in shown)


@given(low=st.floats(1e-3, 1e5), room=st.floats(1.5625, 1e12))
def test_a_logarithmic_axis_has_some_numbers_but_not_many(low, room):
    axis = chart.Axis("", low, low * room)
    assert 1 <= len(axis.ticks) <= chart.MOST_TICKS
    assert all(0 <= axis.place(value) <= 1 for value in axis.ticks)


@given(high=st.floats(0.1, 1e6))
def test_an_even_axis_has_some_numbers_but_not_many(high):
    axis = chart.Axis("", 0.0, high, even=True)
    assert 2 <= len(axis.ticks) <= chart.MOST_TICKS
    assert all(0 <= axis.place(value) <= 1 for value in axis.ticks)


def test_the_page_s_code_reads_a_study(tmp_path, monkeypatch, capsys, evidence):
    monkeypatch.chdir(tmp_path)
    study = Study.create_or_resume(Path("demo.db"), Identity({"model": "demo:mlp"}))
    for recorded in evidence.points:
        study.record(recorded)
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "how-tuning-works.md", "exec"), {})
    assert "default at 0.3: 1,200/s, 7.1 ms" in capsys.readouterr().out
