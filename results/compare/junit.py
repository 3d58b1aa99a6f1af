"""A judged comparison as JUnit XML, which every CI system can show. Pure.

A figure is a test case: a regression fails, what cannot be told is skipped. There is no standard;
what is written here is what Jenkins' junit-10.xsd (its xUnit plug-in) and Surefire's allow.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from dlbench.results.compare.renderings import conclusion, how_to_read, rows

if TYPE_CHECKING:
    from dlbench.results.compare.regression import Judgement
    from dlbench.results.compare.renderings import ChangeRow

# XML 1.0, section 2.2: what may not stand in a document at all, as in the log of a crashed server.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
WHOLE = "nothing is worse"


def junit(judgement: Judgement, name: str) -> str:
    """The document of a suite `name`; its first case is the outcome of the whole."""
    suite = ET.Element("testsuite", {"name": name})
    _add_properties(suite, judgement)
    _add(suite, "", WHOLE, judgement.outcome, conclusion(judgement))
    for row in rows(judgement):
        _add(suite, row.subject, row.figure, row.verdict, _told(row))
    _count(suite)
    suites = ET.Element("testsuites", {"name": "dlbench"})
    suites.append(suite)
    ET.indent(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + _allowed(ET.tostring(suites, "unicode")) + "\n"
    )


def _add_properties(suite: ET.Element, judgement: Judgement) -> None:
    """What to read first, in the place for facts about a run."""
    properties = ET.SubElement(suite, "properties")
    given = [("tolerance", f"{judgement.tolerance:g}"), ("reading", how_to_read(judgement))]
    for key, value in given + [("note", note) for note in judgement.compared.notes]:
        ET.SubElement(properties, "property", {"name": key, "value": value})


def _add(suite: ET.Element, subject: str, name: str, verdict: str, told: str) -> None:
    # A dot would end the name of a package.
    classname = f"dlbench.{subject.replace('.', '_')}".rstrip(".")
    case = ET.SubElement(suite, "testcase", {"classname": classname, "name": name, "time": "0"})
    if verdict == "regression":
        ET.SubElement(case, "failure", {"type": "regression", "message": told}).text = told
    elif verdict == "cannot tell":
        ET.SubElement(case, "skipped", {"message": told})
    else:
        ET.SubElement(case, "system-out").text = told


def _told(row: ChangeRow) -> str:
    return f"{row.verdict}: {row.first} to {row.second}, {row.change or '?'} ({row.interval})"


def _count(suite: ET.Element) -> None:
    counts = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}
    for name, path in counts.items():
        suite.set(name, str(len(suite.findall(path))))
    suite.set("errors", "0")


def _allowed(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
