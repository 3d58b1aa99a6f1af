"""Lists of cores, and which of them are hyperthreads of one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.cores import core_list, hyperthreads


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), ("6, 0-1", (0, 1, 6)), ("1,1", (1,))],
)
def test_a_list_is_read_as_linux_writes_it(text, cores):
    assert core_list(text) == cores


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,", "-1", "1-2-3"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        core_list(text)


def test_hyperthreads_stay_together(tmp_path):
    for core, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert hyperthreads([0, 1, 2, 3], tmp_path) == [(0, 2), (1, 3)]
    assert hyperthreads([0, 1, 3], tmp_path) == [(0,), (1, 3)]


@given(st.sets(st.integers(0, 64)))
def test_where_nothing_is_known_each_core_stands_alone(cores):
    assert hyperthreads(cores, Path("/nonexistent")) == [(core,) for core in sorted(cores)]
