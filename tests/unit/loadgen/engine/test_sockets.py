import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.engine.sockets import (
    RESERVED_DESCRIPTORS,
    TIME_WAIT_S,
    SystemLimits,
    check,
    descriptors,
    limits,
)
from dlbench.loadgen.errors import BudgetError
from dlbench.loadgen.profile import LoadProfile

NEVER, ALWAYS, ON_LOOPBACK = 0, 1, 2
AMPLE = SystemLimits(1024, 1_000_000, 64_000, ON_LOOPBACK)


class At:
    """What `check` wants to know of a target."""

    def __init__(self, host):
        self.host = host


HERE, THERE = At("127.0.0.1"), At("10.0.0.2")


def system(folder, **files):
    for name, text in files.items():
        file = folder / "proc/sys/net/ipv4" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return limits(folder)


def test_limits_are_the_systems(tmp_path):
    found = system(
        tmp_path,
        ip_local_port_range="32768\t60999\n",
        ip_local_reserved_ports="8080,32768,40000-40009,60990-65535\n",
        tcp_tw_reuse="2\n",
    )
    assert found.ports == 60999 - 32768 + 1 - 1 - 10 - 10
    assert found.tw_reuse == ON_LOOPBACK
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (found.descriptors_soft, found.descriptors_hard) == (soft, hard)


def test_no_ports_reserved(tmp_path):
    found = system(tmp_path, ip_local_port_range="1024 65535", ip_local_reserved_ports="\n")
    assert found.ports == 64512


def test_a_system_without_proc_has_limits_too(tmp_path):
    found = limits(tmp_path)
    assert found.ports == 28232
    assert found.tw_reuse == NEVER


def test_this_system():
    found = limits()
    assert found.ports > 0
    assert found.descriptors_soft <= found.descriptors_hard


def test_the_soft_limit_is_raised_as_far_as_it_goes():
    """In a process of its own: a hard limit does not come back."""
    code = (
        "import resource as r; from dlbench.loadgen.engine.sockets import descriptors;"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, 512)); print(descriptors(), "
        "r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == [str(512 - RESERVED_DESCRIPTORS), "(512, 512)\n"]


def test_descriptors_are_never_more_than_the_limit():
    assert 0 < descriptors() < resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_an_ordinary_load_needs_nothing():
    assert check(LoadProfile(rate=500), THERE, AMPLE) == ()
    assert check(LoadProfile(users=64), THERE, AMPLE) == ()


@pytest.mark.parametrize("load", [{"users": 5000}, {"rate": 10, "connections": 5000}])
def test_more_connections_than_descriptors(load):
    few = AMPLE._replace(descriptors_hard=4096)
    with pytest.raises(BudgetError, match=r"need 5,064 file descriptors, the limit is 4,096"):
        check(LoadProfile(**load), HERE, few)


def test_more_connections_than_ports():
    with pytest.raises(BudgetError, match=r"5,000 connections .* 1,000 .*ip_local_port_range"):
        check(LoadProfile(users=5000), HERE, AMPLE._replace(ports=1000))


@given(st.integers(1, 100_000), st.integers(65, 100_000), st.integers(1, 100_000))
def test_what_fits_is_never_refused_and_what_does_not_always(users, hard, ports):
    given_limits = SystemLimits(64, hard, ports, NEVER)
    profile = LoadProfile(users=users)
    if users <= min(hard - RESERVED_DESCRIPTORS, ports):
        check(profile, HERE, given_limits)
    else:
        with pytest.raises(BudgetError):
            check(profile, HERE, given_limits)


def fresh(**load):
    return LoadProfile(**{"keep_alive": False, "duration_s": 600, **load})


def test_a_new_connection_for_each_request_uses_ports_up():
    with pytest.raises(BudgetError, match=r"2,000 new .* 60 s .* 64,000 .*tcp_tw_reuse"):
        check(fresh(rate=2000), THERE, AMPLE)


def test_ports_that_may_be_used_again_last():
    assert check(fresh(rate=2000), THERE, AMPLE._replace(tw_reuse=ALWAYS)) == ()
    assert check(fresh(rate=2000), HERE, AMPLE) == ()
    with pytest.raises(BudgetError):
        check(fresh(rate=2000), HERE, AMPLE._replace(tw_reuse=NEVER))


def test_a_short_run_ends_before_the_ports_do():
    assert check(fresh(rate=2000, duration_s=9, warmup_s=1), THERE, AMPLE) == ()


def test_a_pattern_is_refused_only_where_its_lowest_rate_is_too_much():
    ramp = {"pattern": "ramp", "rate": 10, "rate_to": 2000}
    assert check(fresh(**ramp), THERE, AMPLE) == ()
    with pytest.raises(BudgetError, match="2,000 new"):
        check(fresh(**{**ramp, "rate": 4000}), THERE, AMPLE)


def test_users_without_keep_alive_are_warned_of_the_rate_that_their_ports_allow():
    (line,) = check(fresh(users=4), THERE, AMPLE)
    assert f"{AMPLE.ports / TIME_WAIT_S[False]:,.0f} new connections/s" in line
    assert "tcp_tw_reuse" in line


def test_an_open_loop_should_survive_a_stall():
    (line,) = check(LoadProfile(rate=8000), HERE, AMPLE._replace(descriptors_hard=1064))
    assert "1,000 connections at 8,000/s cover a stall of 125 ms" in line
    assert "ulimit" in line


def test_the_peak_of_a_pattern_is_what_a_stall_meets():
    spike = LoadProfile(rate=10, rate_to=8000, pattern="spike")
    assert len(check(spike, HERE, AMPLE._replace(descriptors_hard=1064))) == 1


def test_who_states_the_connections_is_not_warned():
    few = AMPLE._replace(descriptors_hard=1064)
    assert check(LoadProfile(rate=8000, connections=100), HERE, few) == ()


@pytest.mark.parametrize("limit", [32, 64])
@pytest.mark.parametrize(
    ("load", "needed"), [({"rate": 5}, 80), ({"users": 2}, 66), ({"rate": 5, "connections": 9}, 73)]
)
def test_too_few_descriptors_are_refused_with_what_is_needed(limit, load, needed):
    few = AMPLE._replace(descriptors_soft=limit, descriptors_hard=limit)
    with pytest.raises(BudgetError, match=f"need {needed} file descriptors, the limit is {limit}"):
        check(LoadProfile(**load), HERE, few)


@pytest.mark.parametrize("limit", [16, 32, 64])
def test_a_generator_without_descriptors_says_so(limit):
    code = (
        "import resource as r; from dlbench.loadgen.engine.sockets import descriptors;"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({limit}, {limit})); descriptors()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        f"1 connection needs 65 file descriptors, the limit is {limit}: ulimit -n 65" in done.stderr
    )
