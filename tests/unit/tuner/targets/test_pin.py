"""Which cores are the server's and which the client's."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.targets.pin import Pinning, cores_apart, on_cores, pinned

EIGHT = range(8)


def test_off_pins_nothing_and_says_nothing():
    assert cores_apart("off", EIGHT) == Pinning(None, None, "")


@pytest.mark.parametrize(("cores", "client"), [(4, (3,)), (7, (6,)), (8, (6, 7)), (64, (62, 63))])
def test_with_cores_to_spare_the_client_gets_the_last_ones(cores, client):
    found = cores_apart("auto", range(cores))
    assert found.client == client
    assert found.server == tuple(range(cores - len(client)))


@pytest.mark.parametrize(("cores", "said"), [(1, "1 core:"), (2, "2 cores:"), (3, "3 cores:")])
def test_with_few_cores_they_are_shared_and_it_is_said(cores, said):
    found = cores_apart("auto", range(cores))
    assert found.server is found.client is None
    assert found.note.startswith(said)


def test_hyperthreads_are_not_divided():
    found = cores_apart("auto", EIGHT, [(0, 4), (1, 5), (2, 6), (3, 7)])
    assert found.server == (0, 1, 2, 4, 5, 6)
    assert found.client == (3, 7)


def test_hyperthreads_are_no_cores_to_spare():
    assert cores_apart("auto", range(4), [(0, 1), (2, 3)]).server is None


@pytest.mark.parametrize(
    ("quota", "server", "client"),
    [(2.0, None, None), (3.9, None, None), (4.5, 3, 1), (8.0, 6, 2), (100.0, 62, 2), (None, 62, 2)],
)
def test_both_together_have_no_more_cores_than_a_quota_pays_for(quota, server, client):
    found = cores_apart("auto", range(64), quota=quota)
    assert (found.server and len(found.server), found.client and len(found.client)) == (
        server,
        client,
    )


def test_a_list_is_the_server_s_and_the_rest_the_client_s():
    found = cores_apart("0-3,6", EIGHT)
    assert found == Pinning(
        (0, 1, 2, 3, 6), (4, 5, 7), "the server has cores 0-3,6, the client 4-5,7"
    )


def test_a_server_with_all_cores_shares_them():
    found = cores_apart("0-7", EIGHT)
    assert (found.server, found.client) == (tuple(EIGHT), None)
    assert "shares" in found.note


@pytest.mark.parametrize("wrong", ["", "some", "3-1", "8", "0-9"])
def test_a_wrong_list_is_one_line_that_names_the_option(wrong):
    with pytest.raises(ValueError, match=r"^--pin .*$"):
        cores_apart(wrong, EIGHT)


def test_where_cores_cannot_be_chosen_it_is_said():
    found = cores_apart("0", ())
    assert found.server is found.client is None
    assert "cannot be chosen" in found.note


@given(st.sets(st.integers(0, 128), min_size=1))
def test_auto_gives_every_core_to_one_side_or_pins_nothing(cores):
    found = cores_apart("auto", sorted(cores))
    if found.server is None or found.client is None:
        assert len(cores) < 4
    else:
        assert sorted(found.server + found.client) == sorted(cores)
        assert 1 <= len(found.client) <= 2 < len(found.server)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_the_thread_has_its_cores_back_afterwards():
    before = os.sched_getaffinity(0)
    with on_cores([min(before)]):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with on_cores(None):
        assert os.sched_getaffinity(0) == before


def test_this_machine_has_an_answer():
    assert pinned("auto").server is not None or pinned("auto").note
