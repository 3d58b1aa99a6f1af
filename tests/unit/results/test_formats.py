"""The formats of a study's points: the same rows in each, and pictures that are there."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.results.formats import FORMATS, Content
from dlbench.results.markdown import HEAD, markdown
from dlbench.results.missing import ExtraMissing, NothingToShow, needing
from dlbench.results.parquet import kind
from dlbench.results.records import COLUMNS
from dlbench.tuner.point import Resources
from dlbench.tuner.search.correction import Estimate
from dlbench.tuner.verify.verification import Verified
from testbed import made

ABOUT = {"model": "/m/mlp.onnx", "device": "cpu", "machine": "AMD EPYC, 2 cores"}


@pytest.fixture(scope="module")
def content():
    """Screened and verified points, one that failed, and knobs of every type."""
    odd = ServingConfig(preferred_batch_sizes=(4, 8), worker_weights=(1.5, 1), memory_arena=False)
    screened = made.verified("c01", config=odd).model_copy(
        update={"phase": "screen", "on_front": False, "resources": Resources(server_cpu=0.5)}
    )
    failed = screened.model_copy(update={"measurement": None, "failure": 'out of "memory", 1|2'})
    default = made.verified("default", 0.7, rate=50.0, config=ServingConfig())
    best = made.verified("c01", recommended=True, config=odd)
    baseline = default.model_copy(update={"phase": "baseline", "on_front": False})
    estimates = {best.name: Estimate(99.123456789, 98, 99, 11, 9, 13)}
    result = Verified((default, best), "none", estimates=estimates)
    return Content([baseline, screened, failed], result, {"use": "c01 | it"}, ABOUT)


def test_json_and_parquet_hold_the_same_rows(content):
    pq = pytest.importorskip("pyarrow.parquet")
    rows = json.loads(FORMATS["json"](content))["points"]
    table = pq.read_table(io.BytesIO(FORMATS["parquet"](content)))
    assert tuple(table.column_names) == COLUMNS
    known = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    assert known == rows
    assert len(rows) == 5
    assert rows[-1]["throughput_est_rps"] == 99.1235


def test_the_csv_holds_them_too(content):
    rows = json.loads(FORMATS["json"](content))["points"]
    text = FORMATS["csv"](content).decode()
    found = [{k: v for k, v in row.items() if v} for row in csv.DictReader(io.StringIO(text))]
    written = [{k: as_text(v) for k, v in row.items() if v != ""} for row in rows]
    assert found == written


def as_text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_a_column_without_a_value_has_a_type_too():
    kinds = {name: kind(name) for name in COLUMNS}
    assert kinds["gpu_util"] == kinds["max_queue_delay_ms"] == "float64"
    assert kinds["requests"] == kinds["workers"] == "int64"
    assert kinds["on_front"] == kinds["memory_arena"] == "bool"
    assert kinds["batching"] == kinds["preferred_batch_sizes"] == kinds["reason"] == "string"


def test_what_is_not_a_number_is_no_json_number(content):
    nan = made.verified("c02", rate=float("nan"), config=ServingConfig())
    assert json.loads(FORMATS["json"](Content([nan], Verified((), "none"), {}, ABOUT)))


def test_the_table_is_one(content):
    text = FORMATS["md"](content).decode()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {len(HEAD) + 1}
    assert "**c01@0.5** (recommended)" in table[-1]
    assert "- **use**: c01 \\| it" in text


@given(st.text(max_size=30))
def test_a_model_may_be_called_anything(content, name):
    text = markdown(content.recorded, content.result, {"use": name}, ABOUT | {"model": name})
    assert len(text.splitlines()) <= 12 + len(name.splitlines())
    assert text.startswith("### Front of ")


def test_a_study_under_way_has_a_front_of_what_was_screened(content):
    under_way = Content(content.recorded, Verified((), "none"), {}, ABOUT)
    assert "not verified" in FORMATS["md"](under_way).decode()
    assert "not verified" in FORMATS["svg"](under_way).decode()


@pytest.mark.parametrize("name", ["md", "svg"])
def test_without_a_point_that_held_there_is_no_front(name):
    with pytest.raises(NothingToShow, match="no operating point that held"):
        FORMATS[name](Content([], Verified((), "none"), {}, ABOUT))


def test_the_picture_shows_the_recommendation(content):
    svg = FORMATS["svg"](content).decode()
    words = [e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "recommended: c01@0.5" in words
    assert "c01 at shares of its capacity" in words


def test_the_png_has_the_pictures_words(content):
    pytest.importorskip("resvg_py")
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(FORMATS["png"](content))) as picture:
        assert picture.width == 1040
        key = picture.convert("L").crop((96, 0, 600, 60))  # beside the first mark: its words
        assert key.getextrema()[0] < 80  # black on white


def test_a_missing_package_names_its_extra():
    with pytest.raises(ExtraMissing, match=r"pip install 'dlbench\[parquet\]'"), needing("parquet"):
        import a_package_that_nobody_has  # noqa: F401
