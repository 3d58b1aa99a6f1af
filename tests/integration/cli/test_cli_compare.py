"""`dlbench compare` as a pipeline calls it: real loads on real proxies, and studies as files."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from testbed import made
from testbed.commands import DLBENCH, dlbench

RECIPE = Path(__file__).parents[3] / "docs" / "ci.yml"


@pytest.fixture(scope="module")
def results(shared_proxies, models, tmp_path_factory):
    """Two results of the same load: a proxy that waits 5 ms for a fuller batch, and one 50 ms.

    In a closed loop nothing is sent late, however busy the machine is.
    """
    folder = tmp_path_factory.mktemp("results")
    load = ["--users", "4", "--duration", "1.5s", "--warmup", "0.1s", "--calibration", "off"]
    running = {}
    for name, delay_ms in {"quick": 5, "slow": 50}.items():
        proxy = shared_proxies(models.affine(), max_queue_delay_ms=delay_ms, max_batch_size=64)
        command = [*DLBENCH, "load", proxy.url, *load, "--samples", f"{name}.npz", "--json"]
        with (folder / f"{name}.json").open("w") as out:
            running[name] = subprocess.Popen(command, cwd=folder, stdout=out)
    for process in running.values():
        assert process.wait(60) == 0
    return folder


def test_a_slower_server_ends_with_4_and_says_so_everywhere(results):
    words = "quick.json slow.json --tolerance 10% --junit dlbench.xml --markdown summary.md"
    done = dlbench("compare", *words.split(), cwd=results)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "REGRESSION: " in done.stdout
    assert "throughput_rps" in done.stdout.partition("REGRESSION: ")[2]
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "**REGRESSION**" in (results / "summary.md").read_text()
    suite = ET.parse(results / "dlbench.xml").find("testsuite")
    assert int(suite.get("failures")) >= 2
    assert suite.find("testcase[@name='throughput_rps']/failure") is not None


@pytest.fixture
def run(run_here):
    """A function that runs a command in this process and gives its code and all that it said."""

    def call(*arguments):
        done = run_here(*arguments)
        return done.returncode, done.stdout + done.stderr

    return call


def test_the_other_way_round_it_got_better(results, run):
    code, said = run("compare", results / "slow.json", results / "quick.json", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["outcome"] != "regression"
    verdicts = {change["figure"]: change["verdict"] for change in found["changes"]}
    assert verdicts["throughput_rps"] == "better"


def test_markdown_goes_to_standard_output_alone(results, run):
    code, said = run("compare", *[results / "quick.json"] * 2, "--markdown", "-")
    assert code == 0
    assert said.startswith("### dlbench compare quick.json quick.json\n")
    assert said.count("|") > 20


def test_two_studies(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.study(tmp_path / "open.db")
    for name, rate in {"before": 400, "after": 150}.items():
        points = (("default", 0.3, False, 100, 5), ("c01", 0.3, True, rate, 20))
        made.study(tmp_path / f"{name}.db", *(verified(*known) for known in points))
    code, said = run("compare", "before.db", "after.db")
    assert code == 4
    assert "REGRESSION: recommended throughput_rps 2.67 times lower" in " ".join(said.split())
    assert "note: B recommends c01@0.3: 150/s" in said
    assert max(map(len, said.splitlines())) <= 80
    code, said = run("compare", "after.db", "before.db", "--quiet")
    assert code == 0
    assert "note" not in said
    code, said = run("compare", "before.db", "open.db")
    assert code == 1
    assert "open.db is unfinished; resume it with dlbench tune" in said
    code, said = run("compare", "before.db", "gone.db")
    assert code == 1
    assert "gone.db: no such study file" in said


def verified(name, share, recommended, rate, p99):
    return made.verified(name, share, recommended, rate=rate, p99=p99, sure=0.02)


def two_ports():
    """Tens of two free ports that end in 1 and 2, as those of the recipe do."""
    for tens in range(2100, 3200):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for last in (1, 2):
                held.enter_context(socket.create_server(("127.0.0.1", 10 * tens + last)))
            return str(tens)
    raise AssertionError("no two ports are free")


@pytest.mark.slow
@pytest.mark.parametrize(("slower", "code"), [(True, 4), (False, 0)])
def test_the_recipe_for_a_pipeline(tmp_path, models, slower, code):
    """Its own lines, on a repository with a base branch; only ports and times are others.

    The slower model cannot take the load, which is seen however busy the machine is.
    """
    yaml = pytest.importorskip("yaml")
    script = yaml.safe_load(RECIPE.read_text())["jobs"]["performance"]["steps"][-1]["run"]
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(tmp_path)]
    shutil.copy(models.slow(300), tmp_path / "model.onnx")
    for words in (
        "init -q",
        "add .",
        "commit -qm base",
        "update-ref refs/remotes/origin/main HEAD",
    ):
        subprocess.run([*git, *words.split()], check=True)
    if slower:
        shutil.copy(models.slow(2200), tmp_path / "model.onnx")
    environment = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": "summary.md"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shorter = script.replace("800", two_ports()).replace("30s", "4s")
    process = subprocess.Popen(
        ["bash", "-e", "-c", shorter],
        cwd=tmp_path,
        env={**os.environ, **environment, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        # Both servers hold standard output open: what the shell itself says comes first.
        ended = process.wait(100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    if ended == 3:
        pytest.skip(f"the client was the limit: {said[-300:]}")
    assert ended == code, said
    assert (
        (tmp_path / "summary.md").read_text().startswith("### dlbench compare base.json new.json")
    )
    assert ET.parse(tmp_path / "dlbench.xml").find("testsuite") is not None
