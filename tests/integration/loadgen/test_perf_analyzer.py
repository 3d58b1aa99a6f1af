"""NVIDIA's perf_analyzer, unmodified: what it measures, and what it reads of our statistics."""

import csv
import os
import subprocess

import httpx
import pytest

# The program, and one of the libraries that it needs; the other, libb64.so.0d, is Debian's libb64-0d.
PERF_ANALYZER = ("tritonclient==2.46.0", "tritonclient-2.46.0.data/data/bin/perf_analyzer")
CUDART = ("nvidia-cuda-runtime-cu12", "nvidia/cuda_runtime/lib/libcudart.so.12")
REQUESTS = 100
SHAPES = {"mlp": (), "second_axis": ("--shape", "x:1,3", "--shape", "state:2,1,4")}
SERVER_TIMES = {
    "Server Queue": "queue",
    "Server Compute Input": "compute_input",
    "Server Compute Infer": "compute_infer",
    "Server Compute Output": "compute_output",
}
US = 1000

pytestmark = pytest.mark.slow  # ten runs of several seconds


@pytest.fixture(scope="session")
def perf_analyzer(wheel_file):
    """A function that runs the program and returns the finished process."""
    program = wheel_file(*PERF_ANALYZER)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(wheel_file(*CUDART).parent)}

    def run(*options):
        return subprocess.run(
            [str(program), *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    if (tried := run("--version")).returncode:
        pytest.skip(f"perf_analyzer does not run here: {tried.stderr.strip()}")
    return run


@pytest.fixture(params=SHAPES)
def proxy(request, models, start_proxy):
    model = "demo:mlp" if request.param == "mlp" else models.second_axis()
    return start_proxy(model, {"grpc_port": 0}, max_batch_size=4)


def statistics(proxy):
    (found,) = httpx.get(f"{proxy.url}/v2/models/{proxy.name}/stats").json()["model_stats"]
    return found


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_its_server_side_figures_are_ours(perf_analyzer, proxy, tmp_path, protocol, concurrency):
    address = proxy.first["grpc"] if protocol == "grpc" else "{}:{}".format(*proxy.address)
    report = tmp_path / "report.csv"
    done = perf_analyzer(
        *("-m", proxy.name, "-u", address, "-i", protocol, *SHAPES[proxy.name]),
        *("--concurrency-range", str(concurrency), "--request-count", str(REQUESTS)),
        *("-f", str(report), "--verbose-csv"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    found = statistics(proxy)
    seen = found["inference_stats"]
    assert (seen["success"]["count"], seen["fail"]["count"]) == (REQUESTS, 0)
    assert found["inference_count"] == REQUESTS
    if concurrency == 1:  # with more, many are answered before its first look at our figures
        for column, name in SERVER_TIMES.items():
            mean_us = seen[name]["ns"] / seen[name]["count"] / US
            assert int(row[column]) == pytest.approx(mean_us, rel=0.05, abs=3), column
    assert int(row["Server Compute Infer"]) > 0
    assert 0 < int(row["p50 latency"]) <= int(row["p99 latency"])
    server_us = sum(int(row[column]) for column in SERVER_TIMES)
    assert server_us <= int(row["Avg latency"])


def test_batches_of_its_own_are_counted_in_rows(perf_analyzer, start_proxy):
    proxy = start_proxy("demo:mlp", max_batch_size=8)
    address = "{}:{}".format(*proxy.address)
    done = perf_analyzer("-m", "mlp", "-u", address, "-b", "8", "--request-count", str(REQUESTS))
    assert done.returncode == 0, done.stdout + done.stderr
    found = statistics(proxy)
    assert found["inference_count"] == 8 * REQUESTS
    assert found["inference_stats"]["success"]["count"] == REQUESTS
    assert found["execution_count"] == REQUESTS


def test_measured_in_windows_with_a_cache(perf_analyzer, start_proxy):
    proxy = start_proxy("demo:mlp", cache_size=64)
    address = "{}:{}".format(*proxy.address)
    done = perf_analyzer(
        *("-m", "mlp", "-u", address, "--concurrency-range", "4"),
        *("--measurement-interval", "500", "--stability-percentage", "999"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Cache hit count" in done.stdout  # which it asks of servers with a response cache
    found = statistics(proxy)
    seen = found["inference_stats"]
    assert found["inference_count"] == seen["cache_miss"]["count"] == 1
    assert seen["success"]["count"] == seen["cache_hit"]["count"] + seen["cache_miss"]["count"]
