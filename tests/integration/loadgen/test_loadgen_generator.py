"""The generator process against the null server: open loop, closed loop, stalls, stops, deaths."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.errors import BudgetError, DataError, GeneratorError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from testbed.servers import measure, null_server, served

KNOWN_SERVER = Path(__file__).parents[3] / "benchmarks" / "generator" / "known_server.py"


def profile(**changes):
    return LoadProfile(**{"duration_s": 0.8, "warmup_s": 0.2, **changes})


def test_open_loop_sends_the_whole_schedule(generator, url):
    found, samples = measure(generator, url, profile(rate=500, arrivals="constant"))
    assert found.latency_from == "scheduled"
    assert found.requests == 400
    assert found.offered_rps == pytest.approx(500)
    assert len(samples.scheduled_ns) == 500  # the warm-up's are kept, and not counted
    assert found.error_rate == 0
    assert found.errors == {}
    assert found.complete
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms <= found.p999_ms
    assert found.lateness_p99_ms is not None
    assert 0 < found.client_cpu <= 1.1
    assert found.net_mbps > 0


def test_no_request_is_sent_early_and_each_has_an_order(generator, url):
    _, samples = measure(generator, url, profile(rate=800))
    assert np.all(samples.sent_ns >= samples.scheduled_ns)
    assert np.all(samples.done_ns > samples.sent_ns)


def test_closed_loop_keeps_every_user_busy(generator):
    with null_server("--delay-ms", 20) as url:
        found, samples = measure(generator, url, profile(users=4))
    assert found.latency_from == "sent"
    assert found.offered_rps is None
    assert found.lateness_p99_ms is None
    assert found.throughput_rps > 0
    assert found.error_rate == 0
    # Little's law: L = lambda * W.
    assert found.throughput_rps * found.mean_ms / 1000 == pytest.approx(4, rel=0.25)
    assert len(samples.latencies_ns) == found.requests


@pytest.mark.parametrize("load", [{"rate": 20, "arrivals": "constant"}, {"users": 30}])
def test_replies_that_take_longer_than_the_warmup_do_not_lower_the_throughput(generator, load):
    """The server answers each request 1.5 s later, whatever the load: 20/s of 30 users."""
    given = LoadProfile(**load, warmup_s=0.2, duration_s=3)
    with served(KNOWN_SERVER, "slow") as url:
        found, samples = measure(generator, url, given)
    assert samples.reply_window_ns[0] >= 1.5e9
    if "rate" in load:
        assert found.throughput_rps == pytest.approx(20, rel=0.1)
        assert found.verdict in ("ok", "invalid")  # invalid: this machine is busy
    else:
        assert found.verdict in ("unsteady", "invalid")
        assert "is too short for replies of 1.5" in found.reason or found.verdict == "invalid"


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_encodings(generator, url, encoding):
    found, _ = measure(generator, url, profile(rate=200, encoding=encoding))
    assert found.error_rate == 0


def test_the_same_seed_is_the_same_schedule(generator, url):
    runs = [measure(generator, url, profile(rate=300, seed=seed))[1] for seed in (1, 1, 2)]
    assert np.array_equal(runs[0].scheduled_ns, runs[1].scheduled_ns)
    assert not np.array_equal(runs[0].scheduled_ns, runs[2].scheduled_ns)


def test_progress_and_a_samples_file(generator, url, tmp_path):
    seen = []
    path = tmp_path / "run.npz"
    given = profile(rate=200, duration_s=1.2)
    found, samples = measure(generator, url, given, on_progress=seen.append, samples_path=path)
    assert len(seen) >= 2
    assert seen[0].elapsed_s < seen[-1].elapsed_s
    assert seen[-1].p99_ms > 0
    assert seen[-1].errors == 0
    assert np.array_equal(Samples.load(path).done_ns, samples.done_ns)
    assert found.requests == samples.requests


def test_a_stall_is_in_the_tail(generator):
    """A closed loop would lose 7 requests to it; the schedule has a quarter of them in it."""
    with null_server("--stall-every-s", 1.2, "--stall-s", 0.3) as url:
        found, _ = measure(generator, url, profile(rate=400, duration_s=2.4))
    assert found.p99_ms > 200
    assert found.error_rate == 0
    assert found.p99_low_ms is None
    assert found.verdict != "ok"


def test_too_few_connections_are_said_to_be_too_few(generator):
    """So slow a server that nothing the client does to itself is material beside it."""
    with null_server("--delay-ms", 300) as url:
        found, _ = measure(generator, url, profile(rate=40, connections=2, timeout_s=3))
    assert found.verdict == "saturated"
    assert "--connections" in found.reason


def test_waiting_for_a_connection_that_was_asked_for_is_latency_and_not_lateness(generator):
    with null_server("--delay-ms", 300) as url:
        found, samples = measure(generator, url, profile(rate=10, connections=2, duration_s=2))
    assert found.connect_mean_ms > found.lateness_mean_ms
    assert samples.lateness_ns.max() < samples.connect_ns.max()
    assert found.p99_ms > 300 + found.connect_mean_ms


def test_stop_keeps_what_was_measured(generator, url):
    given = profile(rate=500, duration_s=60)
    timer = []

    def stop_soon(progress):
        if progress.elapsed_s > 0.6 and not timer:
            timer.append(threading.Thread(target=generator.stop))
            timer[0].start()

    found, samples = measure(generator, url, given, on_progress=stop_soon)
    timer[0].join()
    assert not found.complete
    assert 0 < found.duration_s < 30
    assert found.requests == samples.requests > 50
    assert found.offered_rps == pytest.approx(500, rel=0.3)
    # And the process is ready for the next job.
    assert measure(generator, url, profile(rate=100))[0].complete


def test_refused_jobs_leave_the_process_alive(generator, url, tmp_path):
    target = discover(url, profile())
    with pytest.raises(BudgetError, match="lower --rate"):
        generator.measure(target, profile(rate=1e6, duration_s=3600))
    with pytest.raises(DataError, match="absent"):
        generator.measure(target, profile(rate=10, data=str(tmp_path / "absent.npz")))
    assert generator.measure(target, profile(rate=100)).measurement.requests > 0


def test_many_runs_leave_nothing_behind(generator, url):
    process = psutil.Process(generator._process.pid)
    given = profile(rate=200, duration_s=0.1, warmup_s=0)
    measure(generator, url, given)
    before = process.num_fds(), process.num_threads()
    for _ in range(10):
        measure(generator, url, given)
    assert (process.num_fds(), process.num_threads()) == before


def test_the_death_of_the_process_is_an_error_with_its_code(url):
    given = profile(rate=100, duration_s=30)
    with Generator() as generator:
        target = discover(url, given)

        def kill(_):
            generator._process.kill()

        with pytest.raises(GeneratorError, match="died"):
            generator.measure(target, given, on_progress=kill)


def test_a_generator_that_is_not_started_says_so():
    with pytest.raises(GeneratorError, match="not running"):
        Generator().stop()


CONTROLLER = """
import sys
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile

with Generator() as generator:
    profile = LoadProfile(rate=200, duration_s=60)
    def tell(progress):
        print(generator._process.pid, flush=True)
    found = generator.measure(discover(sys.argv[1], profile), profile, on_progress=tell)
    print("complete" if found.measurement.complete else "incomplete", flush=True)
"""


@pytest.fixture
def controller(url):
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, url],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        generator = psutil.Process(int(process.stdout.readline()))
        yield process, generator
        process.kill()


def test_nothing_survives_the_death_of_the_controller(controller):
    process, generator = controller
    process.kill()
    generator.wait(60)  # raises when it is still there


def test_ctrl_c_ends_the_run_early_and_keeps_it(controller):
    process, generator = controller
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    assert process.stdout.read().split()[-1] == "incomplete"
    assert process.wait(60) == 0
    generator.wait(60)
