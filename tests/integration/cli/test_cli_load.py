"""`dlbench load` and `dlbench compare` as they are called, against the null server."""

import json
import re
import shlex

import pytest

from dlbench.loadgen.control.headroom import null_server
from dlbench.loadgen.tensors import TensorSpec
from testbed.commands import DLBENCH, dlbench, ran

SHAPE = {"datatype": "FP32", "shape": (-1, 4), "batch_axis": 0}


@pytest.fixture(scope="module")
def url():
    inputs, outputs = TensorSpec(name="x", **SHAPE), TensorSpec(name="y", **SHAPE)
    with null_server((inputs,), (outputs,)) as url:
        yield url


def load(url, *arguments, calibration="off"):
    """A result that may be invalid: the machine is not ours alone."""
    times = ("--duration", "0.6s", "--warmup", "0.1s", "--calibration", calibration)
    done = dlbench("load", url, *times, "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(url, tmp_path_factory):
    """Three files: two of the same load with samples, one that waits in a closed loop."""
    folder = tmp_path_factory.mktemp("results")
    loads = {"a": ("--rate", 50), "b": ("--rate", 50, "--seed", 1), "slow": ("--users", 2)}
    for name, how in loads.items():
        samples = folder / f"{name}.npz"
        found = load(url, *how, "--samples", samples)
        (folder / f"{name}.json").write_text(json.dumps(found))
    return folder


def test_a_result_says_what_it_takes_to_judge_it(url):
    found = load(url, "--rate", 400, "--arrivals", "constant", calibration="fresh")
    assert found["load"]["rate"] == 400
    assert "constant" in found["schedule"].lower()
    assert found["machine"]["cpu"]
    assert found["machine"]["versions"]["locust"]
    assert found["requests"] == 240
    assert found["p50_low_ms"] is None or found["p50_low_ms"] <= found["p50_ms"]
    assert found["headroom"] > 1
    assert found["overhead_p50_ms"] > 0
    parts = ("lateness_mean_ms", "connect_mean_ms")
    assert 0 <= sum(found[part] for part in parts) <= found["mean_ms"]


def test_classes_are_told_apart(url):
    given = ("often=weight=3,priority=1", "rare=deadline_ms=0.000001")
    found = load(url, "--rate", 500, *(x for text in given for x in ("--request-class", text)))
    assert set(found["classes"]) == {"often", "rare"}
    often, rare = found["classes"]["often"], found["classes"]["rare"]
    assert often["requests"] + rare["requests"] == found["requests"]
    assert often["requests"] > 1.5 * rare["requests"]
    assert rare["missed_rate"] == 1
    assert often["missed_rate"] is None


def test_two_results_are_compared(results, run_here):
    done = run_here("compare", results / "a.json", results / "slow.json", "--json")
    found = json.loads(done.stdout)
    throughput = next(c for c in found["changes"] if c["figure"] == "throughput_rps")
    assert throughput["ratio"] > 2
    assert found["reason"] == "they were measured under different loads"
    for width in ("a", "slow"):
        text = run_here("compare", results / "a.json", results / f"{width}.json").stdout
        assert max(map(len, text.splitlines())) <= 80
    assert "they differ in the load" in " ".join(text.split())


def test_without_samples_the_reported_intervals_are_compared(results, run_here):
    for name in ("a", "b"):
        (results / f"{name}.npz").unlink()
    done = run_here("compare", results / "a.json", results / "b.json", "--json")
    assert done.returncode in (0, 4), done.stderr
    assert "throughput_rps" in {c["figure"] for c in json.loads(done.stdout)["changes"]}


@pytest.mark.parametrize("text", ["", "{}", '{"verdict": "ok"}', "[1]"])
def test_what_is_no_result_is_one_line(results, tmp_path, text, run_here):
    path = tmp_path / "none.json"
    path.write_text(text)
    done = run_here("compare", results / "slow.json", path)
    assert done.returncode == 1
    assert "is not a result of `dlbench load --json`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_several_processes_are_one_result(url):
    found = load(url, "--rate", 300, "--processes", 2)
    assert found["client_processes"] == 2
    assert found["errors"] == {}
    assert found["requests"] > 100


@pytest.mark.parametrize("limit", [64, 32])
@pytest.mark.parametrize(
    "command", ["serve demo:mlp --port 0", "tune demo:mlp", "load URL --rate 5"]
)
def test_too_few_descriptors_are_refused_with_the_cause(command, limit, url, tmp_path):
    words = [*DLBENCH, *command.replace("URL", url).split()]
    done = ran("sh", "-c", f"ulimit -n {limit}; exec {shlex.join(words)}", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(rf"needs? \d+ file descriptors, the limit is {limit}: ulimit -n \d+", line)
    assert [file for file in tmp_path.iterdir() if file.suffix == ".db"] == []
