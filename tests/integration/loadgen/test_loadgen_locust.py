"""Loads that several processes share, Locust's page, and people's own locustfiles: real processes."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.control.roles import Role
from dlbench.loadgen.errors import DataError, GeneratorError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from testbed.patience import PATIENCE_S, eventually
from testbed.servers import measure, null_server

EXAMPLE = Path(__file__).parents[3] / "docs" / "locustfile.py"


@pytest.fixture(scope="module")
def several():
    with Generator(Role(processes=3)) as generator:
        yield generator


def profile(**changes):
    return LoadProfile(**{"rate": 400, "duration_s": 0.8, "warmup_s": 0.2, **changes})


# --- One load, several processes


def test_the_union_of_all_shares_is_the_schedule_asked_for(several, url):
    given = profile(seed=7)
    with Generator() as alone:
        whole = measure(alone, url, given).samples
    found, parts = measure(several, url, given)
    assert np.array_equal(parts.scheduled_ns, whole.scheduled_ns)
    assert parts.window_ns == whole.window_ns
    assert found.client_processes == 3
    assert found.error_rate == 0
    assert found.complete


@pytest.mark.slow
def test_every_request_is_sent_by_one_worker_alone(several):
    with recording_server() as (url, bodies):
        _, samples = measure(several, url, profile(rate=100))
    counts = np.unique(bodies[-len(samples.scheduled_ns) :], return_counts=True)[1]
    assert counts.sum() == len(samples.scheduled_ns)
    assert counts.max() == 1


def test_users_are_shared_out(several):
    with null_server("--delay-ms", 100) as url:
        found, samples = measure(several, url, profile(rate=None, users=5, duration_s=3))
    assert found.client_processes == 3
    assert most_at_once(samples) == 5


def most_at_once(samples):
    """Requests in flight."""
    begun, done = np.sort(samples.sent_ns), np.sort(samples.done_ns)
    return max(np.arange(1, len(begun) + 1) - np.searchsorted(done, begun, side="right"))


def test_progress_speaks_for_all_workers(several, url):
    seen = []
    _, samples = measure(several, url, profile(duration_s=2.5), on_progress=seen.append)
    assert len(seen) >= 2
    assert seen[-1].requests > 0.4 * len(samples.scheduled_ns)  # one of three has a third
    assert all(later.requests >= earlier.requests for earlier, later in pairwise(seen))
    assert seen[-1].p99_ms >= seen[-1].p50_ms


def test_a_stopped_load_hands_over_what_there_is(several, url):
    given = profile(duration_s=60)
    found = measure(several, url, given, on_progress=lambda _: several.stop()).measurement
    assert not found.complete
    assert found.duration_s < 30


def test_a_load_that_cannot_be_made_is_refused_in_one_line_and_the_workers_stay(several, url):
    given = profile()
    target = discover(url, given)
    with pytest.raises(DataError, match="nowhere"):
        several.measure(target, profile(data="/nowhere.npz"))
    assert several.measure(target, given).measurement.error_rate == 0


@contextmanager
def recording_server():
    """A V2 server's answers from Python's own HTTP server, and the hash of each input it got."""
    bodies = []
    answers = {
        "/v2": {"name": "recorder", "version": "1", "extensions": []},
        "/v2/repository/index": [{"name": "m", "state": "READY"}],
        "/v2/models/m": {
            "name": "m",
            "platform": "none",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        },
        "/v2/models/m/ready": {},
        "/v2/models/m/infer": {
            "model_name": "m",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}],
        },
    }

    class Recorder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("/infer"):
                bodies.append(hashlib.sha256(body).hexdigest())
            answer = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


# --- Workers that come and go


def workers_of(generator):
    return psutil.Process(generator._process.pid).children()


def test_the_death_of_a_worker_process_ends_the_load_with_one_line(url):
    with Generator(Role(processes=2)) as generator:
        workers = workers_of(generator)
        assert len(workers) == 2
        with pytest.raises(GeneratorError, match=r"a worker process ended \(exit code -9\)"):
            measure(generator, url, profile(duration_s=60), on_progress=lambda _: workers[0].kill())
        _, alive = psutil.wait_procs(workers, 60)
        assert not alive


@contextmanager
def worker(port):
    """A worker as `dlbench load --worker` starts it."""
    script = (
        f"from dlbench.loadgen.control.roles import work_for; raise SystemExit(work_for(':{port}'))"
    )
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_workers_from_elsewhere_share_a_load_and_go_home_with_the_master(url, free_port):
    port = free_port()
    role = Role(master=f"127.0.0.1:{port}", expect_workers=2)
    with worker(port) as first, worker(port) as second:
        with Generator(role) as generator:
            assert not workers_of(generator)
            for _ in range(2):  # they are there again after a run
                found, samples = measure(generator, url, profile())
                assert found.client_processes == 2
        assert len(samples.scheduled_ns) == found.requests + np.sum(~samples.counted)
        assert first.wait(PATIENCE_S) == 0
        assert second.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_worker_that_is_lost_makes_the_load_fail(url, how, free_port):
    port = free_port()
    role = Role(master=f"127.0.0.1:{port}", expect_workers=2)
    with worker(port) as lost, worker(port), Generator(role) as generator:
        own = psutil.Process(lost.pid).children()

        def lose(_):
            for process in own:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(how)

        with pytest.raises(GeneratorError, match=r"worker . of 2 .* was lost during the load"):
            measure(generator, url, profile(duration_s=60), on_progress=lose)


def test_a_worker_ends_with_whoever_started_it(url, free_port):
    port = free_port()
    with worker(port) as process:
        started = eventually(psutil.Process(process.pid).children)
        process.kill()
        _, alive = psutil.wait_procs(started, 60)
        assert not alive


CONTROLLER = """
import os, psutil, sys
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.control.roles import Role
profile = LoadProfile(rate=100, duration_s=60)
with Generator(Role(processes=2)) as generator:
    pids = [p.pid for p in psutil.Process(os.getpid()).children(recursive=True)]
    def tell(progress):
        print(*pids, flush=True)
    generator.measure(discover(sys.argv[1], profile), profile, on_progress=tell)
"""


def test_nothing_survives_the_death_of_the_controller(url):
    command = [sys.executable, "-c", CONTROLLER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        left = [psutil.Process(pid) for pid in pids]
        process.kill()
        assert len(left) == 3
        _, alive = psutil.wait_procs(left, 60)
        assert not alive


# --- Locust's page


@pytest.fixture(scope="module")
def page(free_port):
    port = free_port()
    with (
        Generator(Role(web=str(port))) as generator,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield generator, client


def figures(client):
    document = client.get("/stats/requests").json()
    table = next(t for t in document["extended_stats"] if t["key"] == "dlbench")
    return document, {row["figure"]: row["value"] for row in table["data"]}


def test_the_page_shows_the_load_under_way_and_its_result(page, url):
    generator, client = page
    seen = []

    def look(progress):
        if not progress.warming_up:
            seen.append(figures(client))

    found, samples = measure(generator, url, profile(duration_s=2), on_progress=look)
    document, under_way = seen[-1]
    assert document["state"] == "running"
    assert document["user_count"] == 1
    assert set(under_way) >= {"Verdict", "p99", "Lateness p99", "Rate", "Errors"}
    assert under_way["p99"].endswith("ms")
    final = eventually(lambda: figures(client)[1], lambda shown: "Throughput" in shown)
    assert final["p99"] == f"{found.p99_ms:.3g} ms"
    assert final["Verdict"] == found.verdict
    sent = len(samples.scheduled_ns)
    total = lambda: client.get("/stats/requests").json()["stats"][-1]["num_requests"]  # noqa: E731
    assert eventually(total, lambda count: count == sent) == sent


def test_the_page_has_our_tab(page):
    _, client = page
    text = client.get("/").text
    assert '"extended_tabs": [{"key": "dlbench", "title": "dlbench"}]' in text
    assert '"extended_tables"' in text


@pytest.mark.slow
def test_its_buttons_stop_and_repeat_the_load(page, url):
    generator, client = page
    pressed = []

    def stop(_):
        if not pressed:
            pressed.append(threading.Thread(target=client.post, args=("/stop",)))
            pressed[0].start()

    found = measure(generator, url, profile(duration_s=20), on_progress=stop).measurement
    pressed[0].join()
    assert not found.complete
    assert found.duration_s < 10
    eventually(lambda: client.get("/stats/requests").json()["state"], lambda s: s == "stopped")
    started = client.post("/swarm", data={"user_count": "1", "spawn_rate": "1"}).json()
    assert started["success"]
    eventually(
        lambda: figures(client)[1],
        lambda shown: "Elapsed" in shown and shown["Verdict"] != "warming up",
    )
    assert client.post("/stop").json()["success"]
    assert "Throughput" in figures(client)[1]
    # The controller's next load is not mixed up with that one.
    found, samples = measure(generator, url, profile())
    assert found.complete
    assert len(samples.scheduled_ns) < 1000


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        generator = Generator(Role(web=str(port)))
        with pytest.raises(GeneratorError, match=f"cannot listen at 127.0.0.1:{port}"):
            generator.startup()
        generator.shutdown()


# --- Locustfiles

LOCUSTFILE = """
import json
from pathlib import Path
from dlbench.loadgen.locust.user import InferenceUser

class Load(InferenceUser):
    load = {"rate": 300, "duration_s": 0.8, "warmup_s": 0.2, "seed": 3}

    @classmethod
    def measured(cls, found, samples):
        super().measured(found, samples)
        document = {"processes": found.client_processes, "errors": found.errors,
                    "scheduled_ns": samples.scheduled_ns.tolist()}
        Path("found.json").write_text(json.dumps(document))
"""


def run_locust(folder, *arguments):
    command = [sys.executable, "-m", "locust", *map(str, arguments), "--headless"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCUST_")}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            children = psutil.Process(process.pid).children() if process.poll() is None else []
            for left in (process, *children):
                left.kill()
    return process.returncode, out, err


def counted_by_locust(out):
    """The one row of `--json`; Locust's workers print theirs, which are empty by then, too."""
    (entry,) = json.loads("[" + out[out.index("{") : out.rindex("}") + 1] + "]")
    return entry


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_locustfile_offers_a_load_and_locust_counts_it(tmp_path, url, processes):
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    several = () if processes == 1 else ("--processes", processes)
    code, out, err = run_locust(
        tmp_path, "-f", "locustfile.py", "--host", url, "-u", processes, *several, "--json"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    with Generator() as alone:
        same = measure(alone, url, profile(rate=300, seed=3)).samples
    assert found["scheduled_ns"] == same.scheduled_ns.tolist()
    assert found["processes"] == processes
    entry = counted_by_locust(out)
    assert entry["num_requests"] == len(found["scheduled_ns"])
    assert entry["num_failures"] == 0
    assert "from the scheduled time" in err


SLOW_WORKERS = """
from gevent.monkey import get_original

def block(seconds):
    get_original("time", "sleep")(seconds)

Load.on_start = lambda self: block(5)
Load.on_stop = lambda self: block(1.5)
"""


@pytest.mark.slow
def test_workers_that_have_no_time_for_locust_are_waited_for(tmp_path, url):
    """Silent for longer than Locust likes before the load, and when it quits."""
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE + SLOW_WORKERS)
    code, out, err = run_locust(
        tmp_path, "-f", "locustfile.py", "--host", url, "-u", 2, "--processes", 2, "--json"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    assert counted_by_locust(out)["num_requests"] == len(found["scheduled_ns"])


def test_a_server_that_is_not_there_is_said_and_fails(tmp_path, dead_port):
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    host = f"http://127.0.0.1:{dead_port}"
    code, _, err = run_locust(tmp_path, "-f", "locustfile.py", "--host", host)
    assert code == 1
    assert f"Load: {host}" in err or "Load: cannot" in err, err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_example_offers_its_load_and_sends_single_requests(tmp_path, url):
    common = ("-f", EXAMPLE, "--host", url, "-t", "3s", "--json")
    code, out, err = run_locust(tmp_path, *common, "-u", "1", "SteadyLoad")
    assert code == 0, err
    assert "p99" in out
    code, out, err = run_locust(tmp_path, *common, "-u", "2", "-r", "2", "Sequence")
    assert code == 0, err
    entry = counted_by_locust(out)
    assert entry["name"].endswith("/infer")
    assert entry["num_requests"] > 10
    assert entry["num_failures"] == 0


def test_single_requests_that_fail_are_errors_by_kind(tmp_path):
    (tmp_path / "locustfile.py").write_text(
        "from locust import task\n"
        "from dlbench.loadgen.locust.user import InferenceUser\n"
        "class One(InferenceUser):\n"
        "    load = {'timeout_s': 0.3}\n"
        "    @task\n"
        "    def one(self):\n"
        "        self.infer()\n"
        "        total = self.environment.stats.total\n"
        "        if 0 < total.num_failures < total.num_requests:\n"
        "            self.environment.runner.quit()\n"
    )
    with null_server("--stall-every-s", 1.0, "--stall-s", 0.9) as url:
        code, out, err = run_locust(tmp_path, "-f", "locustfile.py", "--host", url, "--json")
    entry = counted_by_locust(out)
    assert 0 < entry["num_failures"] < entry["num_requests"]
    assert "timeout" in err
    assert code == 1  # Locust's own: there were failures
