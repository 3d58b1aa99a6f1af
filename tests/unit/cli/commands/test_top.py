"""`dlbench top`: what two looks say, against what happened; and the command against a real socket."""

import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from dlbench.cli.commands import top
from dlbench.cli.failure import UsageError
from dlbench.cli.terminal.dashboard import dashboard
from dlbench.cli.terminal.scrape import between, parse, quantile
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.telemetry.metrics import Exposition, WorkerSeen
from dlbench.proxy.telemetry.resources import GpuUsage
from dlbench.proxy.telemetry.stats import ModelStats

app = typer.Typer()
app.command()(top.command)


class Model:
    """A model that the test makes busy."""

    def __init__(self, name="mlp", workers=2):
        self.name, self.version, self.stats = name, "1", ModelStats()
        self.waiting = self.in_flight = self.cache_entries = self.cache_bytes = 0
        self.seen = [WorkerSeen(f"worker-{n}", True, 0, 0, 0) for n in range(workers)]

    def workers_seen(self):
        return self.seen

    def serve(self, latencies_ns, rows=1):
        for ns in latencies_ns:
            self.stats.received()
            self.stats.batch_sent(rows, [ns // 2])
            self.stats.batch_done(1, rows, 0, ns // 2, 0)
            self.stats.succeeded(ns)


class OneGpu:
    def usage(self):
        return [GpuUsage(0, 0.5, 2_000_000, 8_000_000)]


def look(at_s, *models, connections=3):
    _, body = Exposition(lambda: models, lambda: connections, OneGpu()).render()
    return parse(body.decode(), at_s)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(10_000, 10**10), min_size=1, max_size=50), st.sampled_from([0.5, 0.99]))
def test_quantiles_are_of_the_interval_alone_and_as_fine_as_the_buckets(latencies, q):
    model = Model()
    model.serve([60_000_000_000] * 100)  # a slow past
    before = look(0.0, model)
    model.serve(latencies)
    (row,) = between(before, look(2.0, model)).models
    exact_ms = sorted(latencies)[math.ceil(q * len(latencies)) - 1] / 1e6
    found_ms = {0.5: row.p50_ms, 0.99: row.p99_ms}[q]
    assert exact_ms / 1.5 <= found_ms <= exact_ms * 1.5
    assert row.throughput_rps == pytest.approx(len(latencies) / 2.0)
    assert row.mean_ms == pytest.approx(sum(latencies) / len(latencies) / 1e6, rel=1e-3)
    assert row.queue_mean_ms == pytest.approx(row.mean_ms / 2, rel=1e-3)


def test_what_lies_above_the_last_bound_is_given_as_that_bound():
    assert quantile(0.99, [(1.0, 0), (2.0, 1), (float("inf"), 100)]) == 2.0
    assert quantile(0.5, [(1.0, 0), (2.0, 100), (float("inf"), 100)]) == 1.5
    assert quantile(0.5, [(1.0, 0), (float("inf"), 0)]) is None
    assert quantile(0.5, []) is None


def test_cache_batches_and_errors_are_of_the_interval():
    model = Model()
    model.serve([1_000_000] * 10, rows=1)
    model.stats.refused(400)
    before = look(0.0, model)
    model.serve([1_000_000] * 4, rows=6)
    for _ in range(3):
        model.stats.cache_hit(100)
        model.stats.succeeded(2000)
    model.stats.joined()
    model.stats.succeeded(1_000_000)
    for _ in range(4):
        model.stats.cache_miss(100)
    for _ in range(2):
        model.stats.refused(503)
    model.waiting, model.in_flight = 5, 9
    view = between(before, look(1.0, model))
    (row,) = view.models
    assert row.mean_batch_size == pytest.approx(6)
    assert row.cache_hit_ratio == pytest.approx(4 / 8)
    assert row.errors == {"503": 2}
    assert row.error_rate == pytest.approx(2 / 10)
    assert (row.queue_length, row.in_flight, view.connections) == (5, 9, 3)
    assert [(g.gpu, g.gpu_util, g.gpu_mem_mb) for g in view.gpus] == [("0", 0.5, 2.0)]


def test_workers_have_their_own_rates_and_the_front_counts_for_the_server():
    model = Model()
    before = look(0.0, model)
    model.seen = [
        model.seen[0]._replace(requests=50, outstanding=4),
        model.seen[1]._replace(alive=False, restarts=1),
    ]
    view = between(before, look(0.5, model))
    busy, down = view.models[0].workers
    assert (busy.name, busy.up, busy.throughput_rps, busy.outstanding) == ("worker-0", True, 100, 4)
    assert (down.name, down.up, down.restarts) == ("worker-1", False, 1)
    assert view.server_rss_mb > 1  # of this very process, which plays the front
    assert view.server_cpu >= 0


def test_an_interval_without_requests_has_no_latency_and_no_ratio():
    model = Model()
    model.serve([1_000_000] * 10)
    (row,) = between(look(0.0, model), look(1.0, model)).models
    assert (row.p50_ms, row.p99_ms, row.mean_ms, row.mean_batch_size) == (None, None, None, None)
    assert (row.cache_hit_ratio, row.error_rate, row.throughput_rps) == (None, None, 0)


def test_a_proxy_that_was_started_again_in_between_counts_from_zero():
    old, new = Model(), Model()
    old.serve([40_000_000] * 1000)
    new.serve([1_000_000] * 20)
    (row,) = between(look(0.0, old), look(1.0, new)).models
    assert row.throughput_rps == 20
    assert 0.6 < row.p99_ms < 1.6


def test_a_model_that_was_loaded_in_between_is_there():
    first, second = Model("a"), Model("b")
    before = look(0.0, first)
    second.serve([1_000_000] * 3)
    view = between(before, look(1.0, first, second))
    assert [(row.model, row.throughput_rps) for row in view.models] == [("a", 0), ("b", 3)]


@pytest.mark.parametrize(("models", "workers"), [(1, 1), (1, 64), (3, 4), (0, 0)])
def test_it_fits_80_columns(models, workers):
    served = [Model("m" * 40 + str(n), workers) for n in range(models)]
    before = look(0.0, *served)
    for model in served:
        model.serve([123_456_789] * 500, rows=8)
        model.stats.refused(503)
        model.waiting, model.in_flight = 4096, 12345
        model.seen = [w._replace(outstanding=100 + n) for n, w in enumerate(model.seen)]
    text = drawn(dashboard("http://127.0.0.1:8000", between(before, look(1.0, *served))))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("…") == models, "only the long names may be cut"
    for shown in ("4,096", "12,345", "0.20%") if models else ():
        assert text.count(shown) >= models
    assert text.count("worker-") == models * workers
    assert text.count("1 of status 503") == models


def drawn(view):
    stream = io.StringIO()
    Console(width=80, file=stream).print(view)
    return stream.getvalue()


class MetricsPage(BaseHTTPRequestHandler):
    """Serves what the server's `page` returns, to whoever has its token."""

    def do_GET(self):
        known = self.server.token is None or self.headers["authorization"] == self.server.token
        body = self.server.page().encode() if known else b"{}"
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    """A model served by nobody, with its metrics on a real port; each look finds ten requests more."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsPage)
    model, server.token = Model(), None

    def page():
        model.serve([1_000_000] * 10)
        return Exposition(lambda: [model], lambda: 1, OneGpu()).render()[1].decode()

    server.page, server.url = page, f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments):
    return CliRunner().invoke(app, [*arguments, "--interval", "10ms"])


def test_json_is_one_document_with_the_names_of_the_csv(proxy):
    result = run(proxy.url, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    (model,) = document["models"]
    assert model["throughput_rps"] == pytest.approx(10 / document["duration_s"])
    assert 0.6 < model["p99_ms"] < 1.6
    assert {"server_cpu", "server_rss_mb", "connections", "gpus"} <= set(document)
    assert {"p50_ms", "cache_hit_ratio", "mean_batch_size", "error_rate"} <= set(model)


PROGRAM = "import sys, typer; from dlbench.cli.commands import top; typer.run(top.command)"


def test_on_a_terminal_it_goes_on_until_ctrl_c(proxy):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, proxy.url, "--interval", "20ms"]
    env = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while seen.count(b"connections") < 3:
                seen += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            while piece := _rest(ours):
                seen += piece
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(ours)
    assert b"Traceback" not in seen


def _rest(terminal):
    """What is left to read; a terminal whose other end is closed is an error on Linux."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_in_a_pipe_it_prints_one_table_and_exits(proxy, options):
    result = run(proxy.url.removeprefix("http://"), *options)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert result.stdout.count("connections 1") == 1


def test_a_token_is_sent_and_its_absence_is_named(proxy, tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# ours\nsesame\n")
    proxy.token = "Bearer sesame"
    assert run(proxy.url, "--json", "--token-file", str(path)).exit_code == 0
    error = run(proxy.url, "--json").exception
    assert isinstance(error, ProxyError)
    assert "--token-file" in str(error)


@pytest.mark.parametrize("page", ["", "no metrics at all {", "<html>", "other_metric 1\n"])
def test_what_is_no_proxy_of_ours_is_said_in_one_line(proxy, page):
    proxy.page = lambda: page
    error = run(proxy.url).exception
    assert isinstance(error, ProxyError)
    assert "does not belong to a dlbench proxy" in str(error)


def test_nobody_there_is_one_line(proxy):
    proxy.shutdown()
    proxy.server_close()
    error = run(proxy.url).exception
    assert isinstance(error, ProxyError)
    assert str(error).startswith(f"cannot reach {proxy.url}")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://127.0.0.1:1", "--interval", "0"],
        ["http://127.0.0.1:1", "--interval", "soon"],
        ["http://127.0.0.1:1", "--token-file", "/does/not/exist"],
        ["http://127.0.0.1:no"],
    ],
)
def test_wrong_usage(arguments):
    assert isinstance(CliRunner().invoke(app, arguments).exception, UsageError)
