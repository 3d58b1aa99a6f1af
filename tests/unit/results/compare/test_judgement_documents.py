"""A judgement as JUnit XML, as Markdown and as JSON, read back by what reads such things."""

import json
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.results.compare.comparison import Change, Compared, loads
from dlbench.results.compare.junit import junit
from dlbench.results.compare.regression import judge
from dlbench.results.compare.renderings import document, markdown
from testbed import made

junitparser = pytest.importorskip("junitparser")

# Of Jenkins' junit-10.xsd: element -> its attributes, (must, may), and what may stand in it.
SCHEMA = {
    "testsuites": ((), ("name", "time", "tests", "failures", "errors"), ("testsuite",)),
    "testsuite": (
        ("name", "tests", "failures", "errors"),
        ("skipped", "time", "timestamp", "hostname", "id"),
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": ((), (), ("property",)),
    "property": (("name", "value"), (), ()),
    "testcase": (("name",), ("time", "classname"), ("skipped", "failure", "error", "system-out")),
    "failure": ((), ("type", "message"), ()),
    "skipped": ((), ("type", "message"), ()),
    "system-out": ((), (), ()),
}


def conforms(element):
    must, may, inside = SCHEMA[element.tag]
    assert set(must) <= set(element.keys()) <= {*must, *may}
    for child in element:
        assert child.tag in inside
        conforms(child)


@pytest.fixture(scope="module")
def worse():
    """A throughput that held, a p99 that did not, a p99.9 of which nobody knows."""
    after = made.load(p99=30, sure=0.01, p999_ms=50, model="a|b")
    return judge(loads(made.load(sure=0.01, p999_ms=40), after))


def test_junit_has_a_case_for_each_figure_and_one_for_the_whole(worse):
    text = junit(worse, "dlbench compare a.json b.json")
    root = ET.fromstring(text)
    conforms(root)
    (suite,) = junitparser.JUnitXml.fromstring(text.encode())
    cases = {case.name: case for case in suite}
    assert next(iter(cases)) == "nothing is worse"
    assert set(cases) - {"nothing is worse"} == {c.figure for c in worse.compared.changes}
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (6, 3, 1, 0)
    assert [type(r).__name__ for r in cases["p99_ms"].result] == ["Failure"]
    assert cases["p99_ms"].result[0].message.startswith("regression: 10 to 30, 3 times slower (")
    assert [type(r).__name__ for r in cases["p999_ms"].result] == ["Skipped"]
    assert cases["throughput_rps"].result == []
    assert cases["throughput_rps"].classname == "dlbench"
    assert {p.name: p.value for p in suite.properties()}["note"].endswith("mlp and a|b")


@given(st.text(), st.text(min_size=1))
def test_junit_is_xml_whatever_stands_in_a_note_or_a_reason(note, reason):
    bad = Compared(("A", "B"), (), (note,), broken=(reason,))
    root = ET.fromstring(junit(judge(bad), "x"))
    conforms(root)
    assert root.find(".//failure") is not None


def test_a_subject_is_no_package():
    change = Change("p99_ms", 1.0, 1.0, (1.0, 1.0), "default@0.7")
    root = ET.fromstring(junit(judge(Compared(("A", "B"), (change,))), "x"))
    assert [c.get("classname") for c in root.iter("testcase")] == ["dlbench", "dlbench.default@0_7"]


def test_markdown_says_the_outcome_first_and_every_row_has_every_cell(worse):
    text = markdown(worse, "dlbench compare a.json b.json")
    title, outcome = [line for line in text.splitlines() if line][:2]
    assert title == "### dlbench compare a.json b.json"
    assert outcome.startswith("**REGRESSION**: p50\\_ms 3 times")
    assert "- they differ in the server: model mlp and a\\|b" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}
    assert len(table) == 2 + len(worse.compared.changes)
    assert any(
        re.match(
            r"\| p99\\_ms \| 10 \| 30 \| 3 times slower \| 2\.\d+ to 3\.\d+ times slower \| regression \|",
            line,
        )
        for line in table
    )


@given(st.text())
def test_a_note_is_one_line_of_markdown(note):
    text = markdown(judge(Compared(("A", "B"), (), (note,))), "x")
    assert len([line for line in text.split("\n") if line.startswith("- ")]) == 1


def test_json_has_every_figure_with_its_interval(worse):
    found = json.loads(json.dumps(document(worse)))
    assert found["outcome"] == "regression"
    (p99,) = (c for c in found["changes"] if c["figure"] == "p99_ms")
    assert (p99["first"], p99["second"], p99["ratio"], p99["verdict"]) == (10, 30, 3, "regression")
    assert p99["low"] < 3 < p99["high"]
    (rare,) = (c for c in found["changes"] if c["figure"] == "p999_ms")
    assert rare["low"] is None
