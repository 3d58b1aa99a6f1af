"""A report as a file: one document, packed scripts, nothing that could be taken for markup."""

import base64
import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.results.page.document import page_document
from dlbench.results.page.html import page, script_safe
from testbed import made

HOSTILE = "</script><script>alert(1)</script><!-- & '\" $data ${css}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "x.db"
    study = made.study(path, model=HOSTILE, seed=0, workers=[1, 2])
    study.record(made.point(sure=0.05))
    study.record(made.point("c02", measurement=None, failure=HOSTILE))
    return study


@pytest.fixture(scope="module")
def text(study):
    return page(page_document(study))


@given(st.text())
def test_no_text_ends_the_script_that_it_stands_in(text):
    found = script_safe({"text": [text]})
    assert json.loads(found) == {"text": [text]}
    assert not set("<>&") & set(found)


def test_what_json_has_no_number_for_is_a_text():
    assert json.loads(script_safe({"a": [float("inf"), 1.5]})) == {"a": ["Infinity", 1.5]}


def test_the_document_comes_through_the_page_whole(study, text):
    document = page_document(study)
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(data) == json.loads(json.dumps(document))
    assert "<script>alert" not in text
    assert len(re.findall("</script>", text)) == 3
    assert len(text.encode()) < 6e6


def test_the_drawing_library_is_in_the_page(text):
    [packed] = re.findall(r'id="plotly">(.*?)</script>', text)
    assert b"plotly.js" in gzip.decompress(base64.b64decode(packed))[:500]


def test_the_page_names_no_other_file(text):
    own = re.sub(r'id="plotly">.*?</script>', "", text)
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\(|@import', own) == []
    assert "default-src 'none'" in text


def test_a_study_under_way_has_no_answer_yet(study):
    document = page_document(study)
    assert not document["finished"]
    assert document["answer"] == {}
    assert document["progress"]["verified"] is None
    assert len(document["points"]) == 2
