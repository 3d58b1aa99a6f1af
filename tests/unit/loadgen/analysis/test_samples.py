import json
from dataclasses import replace

import numpy as np
import pytest

from dlbench.loadgen.analysis.samples import COLUMNS, Samples
from dlbench.loadgen.errors import DataError

MS = 1_000_000


def samples(**changes):
    given = {
        "latency_from": "scheduled",
        "scheduled_ns": np.array([0, 10, 20, 30, 40]) * MS,
        "sent_ns": np.array([0, 11, 20, 30, 45]) * MS,
        "done_ns": np.array([15, 14, 26, 55, 41]) * MS,
        "outcome": np.array([0, 0, 1, 0, 0], np.int16),
        "connect_ns": np.array([2, 0, 0, 0, 0]) * MS,
        "request_class": np.array([0, 1, 0, 1, 0], np.int8),
        "names": ("ok", "timeout"),
        "window_ns": (10 * MS, 40 * MS),
    }
    return Samples(**{**given, **changes})


def test_what_began_in_the_window_counts_and_only_successes_have_latencies():
    found = samples()
    assert found.requests == 3
    assert found.latencies_ns.tolist() == [4 * MS, 25 * MS]
    assert found.lateness_ns.tolist() == [1 * MS, 0, 0]
    assert found.errors == {"timeout": 1}


def test_throughput_counts_what_ended_in_the_window():
    warm = samples(window_ns=(15 * MS, 40 * MS))
    assert warm.completed_ns.tolist() == [15 * MS]
    assert warm.throughput_rps == pytest.approx(1 / 0.025)


def test_throughput_counts_from_when_the_first_replies_came_if_that_is_later():
    """The first request took 15 ms, the window begins after 10; nothing can be answered before."""
    cold = samples()
    assert cold.reply_window_ns == (15 * MS, 44 * MS)  # the last one's reply takes 4 ms at least
    assert cold.completed_ns.tolist() == [15 * MS, 41 * MS]
    assert not cold.fills


def test_a_run_that_is_over_before_its_first_replies_counts_what_came():
    slow = samples(done_ns=np.array([43, 35, 36, 38, 41]) * MS)
    assert slow.fills
    assert slow.reply_window_ns == slow.window_ns


def test_files_give_back_what_was_saved(tmp_path):
    path = tmp_path / "run.samples"
    samples().save(path)
    again = Samples.load(path)
    for name in COLUMNS:
        assert np.array_equal(getattr(again, name), getattr(samples(), name))
    assert (again.names, again.window_ns) == (samples().names, samples().window_ns)


def test_a_class_alone():
    assert samples().of_class(1).scheduled_ns.tolist() == [10 * MS, 30 * MS]
    assert samples().of_class(1).latencies_ns.tolist() == [4 * MS, 25 * MS]


def test_parts_of_a_run_are_one_record_again():
    whole = samples()
    even, odd = (
        replace(whole, **{name: getattr(whole, name)[start::2] for name in COLUMNS})
        for start in (0, 1)
    )
    odd = replace(odd, names=("ok", "closed", "timeout"))
    merged = Samples.merged([even, odd])
    assert merged.scheduled_ns.tolist() == whole.scheduled_ns.tolist()
    assert merged.done_ns.tolist() == whole.done_ns.tolist()
    assert merged.errors == whole.errors
    assert merged.names == ("ok", "timeout", "closed")


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "new.npz"
    np.savez(path, meta=np.array(json.dumps({"version": 99})))
    with pytest.raises(DataError, match="version 99"):
        Samples.load(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "none.npz"
    path.write_bytes(b"PK\3\4 nothing")
    for missing in (path, tmp_path / "absent"):
        with pytest.raises(DataError, match="no readable samples"):
            Samples.load(missing)
