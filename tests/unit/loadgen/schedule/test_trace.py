import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.schedule.trace import scheduled_s, times_s


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Writes a trace and returns its path."""
    folder = tmp_path_factory.mktemp("traces")

    def written(text, encoding="utf-8"):
        path = folder / "trace.csv"
        path.write_text(text, encoding=encoding)
        return str(path)

    return written


@pytest.mark.parametrize(
    "text",
    [
        "0\n0.5\n2\n",
        "0\n0.5\n2",
        "arrival_s\n0\n0.5\n2\n",
        "10\n10.5\n12\n",
        'time,user,note\n0,7,\n0.5,8,"a, b"\n2,9\n',
        "\n0\n\n0.5\r\n2\n",
        " 0 \n 0.5\n2\n",
        "-1\n-0.5\n1\n",
    ],
    ids=["plain", "no end", "header", "absolute", "columns", "empty lines", "blanks", "negative"],
)
def test_is_read_relative_to_its_first_arrival(trace, text):
    assert times_s(trace(text)).tolist() == [0, 0.5, 2]


def test_the_mark_of_a_spreadsheet_is_forgiven(trace):
    assert times_s(trace("5\n6\n", encoding="utf-8-sig")).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no arrival times"),
        ("arrival_s\n", "no arrival times"),
        ("0\n1\noops\n2\n", "line 3: could not convert string to float: 'oops'"),
        ("0\n,1\n", "line 2: could not convert"),
        ("0\n2\n1\n", "not sorted, 1 s comes after 2 s"),
        ("0\nnan\n", "finite"),
        ("0\ninf\n", "finite"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_place(trace, text, error):
    with pytest.raises(DataError, match=error):
        times_s(trace(text))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"1\n\xff\xfe\x00\n")
    with pytest.raises(DataError, match=r"trace\.csv"):
        times_s(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: No such file"):
        times_s(str(tmp_path / "none.csv"))


@given(
    st.lists(st.floats(0, 1e6), min_size=1).map(sorted),
    st.floats(0.01, 100),
    st.floats(0.01, 1e6),
)
def test_is_stretched_and_cut_at_the_span(trace, recorded, scale, span_s):
    path = trace("\n".join(map(repr, recorded)))
    expected = (np.array(recorded) - recorded[0]) * scale
    assert scheduled_s(path, scale, span_s).tolist() == expected[expected < span_s].tolist()
