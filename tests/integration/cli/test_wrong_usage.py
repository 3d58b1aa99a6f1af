"""What newcomers type: every command with the wrong thing ends in one line that helps, never a traceback."""

import os
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from dlbench.cli.main import COMMANDS
from dlbench.proxy.models.demo import demo_path
from testbed.commands import DLBENCH

NEEDS = {  # command -> what has to be said; the others do something without arguments
    **dict.fromkeys(["serve", "tune", "predict"], "MODEL is missing"),
    "worker": "MODEL",
    "load": "no server given",
    "compare": "'A'",
    **dict.fromkeys(["verify", "report", "export"], "STUDY"),
    "top": "URL",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that are not what they are taken for."""
    path = tmp_path_factory.mktemp("wrong")
    whole = demo_path("mlp").read_bytes()
    (path / "good.onnx").write_bytes(whole)
    for suffix in ("onnx", "db", "json", "toml"):
        (path / f"folder.{suffix}").mkdir()
        (path / f"text.{suffix}").write_text("hello world\n")
        (path / f"empty.{suffix}").touch()
    (path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (path / "cut.db").write_bytes(b"SQLite format 3\0" + bytes(50))
    with sqlite3.connect(path / "other.db") as other:
        other.execute("create table t(a)")
    other.close()
    return path


@pytest.fixture
def said(monkeypatch, run_here, folder):
    """A function that runs a command there and gives its exit code and the one line that it says."""
    monkeypatch.chdir(folder)

    def call(*arguments):
        done = run_here(*arguments)
        lines = [line for line in done.stderr.splitlines() if line != "calibrating, about 20 s"]
        assert (done.stdout, len(lines)) == ("", 1), done
        assert lines[0].startswith("error: ")
        assert "Traceback" not in done.stderr
        return done.returncode, lines[0]

    return call


@pytest.mark.parametrize("name", NEEDS)
def test_a_command_without_arguments_says_which(said, name):
    code, line = said(name)
    assert code == 2
    assert NEEDS[name] in line
    assert set(NEEDS) <= set(COMMANDS)


MODELS = {
    "folder.onnx": "is not a file; use an .onnx file",
    "text.onnx": "is an incomplete ONNX model; export or download it again",
    "empty.onnx": "is an incomplete ONNX model",
    "cut.onnx": "is an incomplete ONNX model",
    "gone.onnx": "no such file; use an .onnx file",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]])
def test_what_is_no_model(said, command, model):
    code, line = said(command[0], model, *command[1:])
    assert code == 1
    assert MODELS[model] in line


@pytest.mark.parametrize("command", [["tune", "--study", "new.db"], ["predict", "--rate", "1"]])
def test_nor_is_there_anything_to_measure(said, command):
    code, line = said(command[0], "cut.onnx", *command[1:])
    assert code == 1
    assert MODELS["cut.onnx"] in line


STUDIES = {
    "folder.db": "is a folder",
    "text.db": "not a usable study file",
    "empty.db": "this file contains no study",
    "cut.db": "not a usable study file",
    "other.db": "belongs to another program",
    "gone.db": "no such study file",
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize(
    "arguments",
    [["report"], ["verify"], ["export", "STUDY", "-"], ["export", "STUDY", "--to", "k8s", "-"]],
)
def test_what_is_no_study(said, arguments, study):
    command = [arguments[0], study, *arguments[2:]]
    code, line = said(*command)
    assert code == 1
    assert STUDIES[study] in line


@pytest.mark.parametrize(
    "file", ["folder.json", "text.json", "empty.json", "gone.json", "good.onnx"]
)
def test_what_is_no_result_and_no_calibration(said, file):
    assert said("compare", file, file)[0] == 1
    if file != "gone.json":
        assert said("predict", "demo:mlp", "--rate", "1", "--calibration", file)[0] == 1


@pytest.mark.parametrize("file", ["folder.toml", "text.toml", "gone.toml", "good.onnx"])
def test_what_is_no_configuration(said, file):
    for command in (["serve", "demo:mlp"], ["tune", "demo:mlp"], ["load", "http://127.0.0.1:1"]):
        code, line = said(*command, "--config", file)
        assert code == 2
        assert line.startswith(f"error: --config {file}: ")
    code, line = said("tune", "demo:mlp", "--space", file)
    assert (code, line.startswith(f"error: --space {file}: ")) == (2, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://", "grpc://127.0.0.1:1"])
def test_what_cannot_be_reached(said, url):
    for command in (["load", url, "--rate", "1"], ["top", url]):
        code, line = said(*command)
        assert code == 1
        assert url.strip("/") in line


def test_a_port_in_use(said):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        code, line = said("serve", "good.onnx", "--port", port)
    assert code == 1
    assert f"port {port}" in line
    assert "--port" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_no_permission(said, folder):
    (folder / "locked").mkdir(mode=0o500)
    for option in ("--study", "--csv", "--recommended"):
        code, line = said("tune", "demo:mlp", option, "locked/x")
        assert (code, option in line) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["export", "other.db"], 2, "name a FILE"),
        (["sreve"], 2, "unknown command sreve; did you mean serve? see"),
        (["serve", "demo:gpt"], 1, "demo:mlp, demo:cnn"),
        (["serve", "demo:mlp", "--max-batch-size", "0"], 2, "from 1 to 4096"),
        (["serve", "demo:mlp", "--max-batch", "1"], 2, "did you mean --max-batch-size?"),
        (["serve", "demo:mlp", "--workers"], 2, "--workers"),
        (["serve", "demo:mlp", "--scheduling-policy", "fair"], 2, "round_robin"),
        (["worker", "demo:mlp", "--listen", "here"], 2, "--listen 'here'"),
        (["load", "--rate", "5"], 2, "no server given"),
        (["load", "http://x", "--rate", "5", "--users", "5"], 2, "cannot be combined; choose one"),
        (["load", "ftp://x", "--rate", "5"], 1, "http[s]://HOST:PORT"),
        (["load", "http://x", "--max-rps-under-slo", "p99"], 2, "p99<50ms"),
        (
            ["load", "http://x", "--max-rps-under-slo", "p99<5ms", "--users", "3"],
            2,
            "picks the rate",
        ),
        (["load", "http://x", "--pattern", "ramp", "--rate", "10"], 2, "rate-to"),
        (["load", "http://x", "--rate", "10", "--think", "1s"], 2, "think"),
        (["load", "http://x", "--users", "3", "--zipf", "1"], 2, "distinct"),
        (["load", "http://x", "--rate", "5", "--request-class", "a=weight=0"], 2, "weight"),
        (["tune", "demo:mlp", "--budget", "soon"], 2, "--budget 'soon' is not a duration"),
        (
            ["tune", "demo:mlp", "--csv", "none/r.csv"],
            2,
            "--csv none/r.csv: folder none does not exist",
        ),
        (["tune", "demo:mlp", "--pin", "4096"], 2, "--pin 4096: no core 4096 here"),
        (["tune", "demo:mlp", "--proposer", "best"], 2, "nsga2"),
        (["compare", "a", "a", "--tolerance", "much"], 2, "--tolerance much: must be a share"),
        (["compare", "a", "a", "--tolerance", "500%"], 2, "--tolerance 500%: must be a share"),
        (["compare", "a", "a", "--json", "--junit", "-"], 2, "--json, --junit - and --markdown -"),
        (
            ["compare", "a", "a", "--junit", "no/j.xml"],
            2,
            "--junit no/j.xml: folder no does not exist",
        ),
        (["compare", "a", "cut.db"], 2, "two results of dlbench load, or two studies"),
        (["studies", "gone"], 2, "no such folder"),
        (["studies", "text.db"], 2, "is not a folder"),
        (["init", "--output", "gone/x.toml"], 2, "--output"),
        (["init", "--output", "folder.toml"], 2, "folder.toml"),
        (["tune", "demo:mlp", "--study", "gone/x.db"], 2, "folder gone does not exist"),
        (["tune", "demo:mlp", "--data", "gone.npz", "--study", "d.db"], 1, "gone.npz"),
        (["load", "http://127.0.0.1:1", "--rate", "fast"], 2, "--rate"),
        (["load", "http://127.0.0.1:1", "--rate", "1", "--processes", "0"], 2, "--processes"),
        (["load", "http://127.0.0.1:1", "--rate", "1", "--csv", "gone/x"], 2, "--csv"),
        (["load", "http://127.0.0.1:1"], 2, "no load given"),
        (["load", "--worker", "foo"], 2, "--worker foo: must be HOST:PORT"),
        (
            ["load", "http://x", "--rate", "1", "--master", "x:0"],
            2,
            "--master x:0: must be HOST:PORT",
        ),
        (
            ["load", "http://x", "--rate", "1", "--master", "80"],
            2,
            "--master 80: must be HOST:PORT",
        ),
        (
            ["load", "http://x", "--rate", "1", "--web", "foo"],
            2,
            "--web foo: must be PORT or HOST:PORT",
        ),
        (["load", "http://x", "--rate", "1", "--web", "a:99999"], 2, "--web a:99999: must be PORT"),
        (["load", "http://127.0.0.1:1", "--rate", "1", "--token-file", "gone"], 1, "gone"),
        (["serve", "demo:mlp", "--token-file", "gone"], 1, "gone"),
        (["serve", "demo:mlp", "--port", "80000"], 2, "--port 80000"),
        (["serve", "demo:mlp", "--host", "0.0.0.0"], 1, "--insecure"),
        (["serve", "demo:mlp", "--shape", "x", "--port", "0"], 2, "NAME=VALUE"),
        (["serve", "good.onnx", "--batch-axis", "nope=1", "--port", "0"], 1, "no such tensor"),
        (["serve", "--repository", "gone"], 1, "no such folder"),
        (["predict", "demo:mlp"], 2, "--rate is missing"),
        (["top", "http://127.0.0.1:1", "--interval", "1"], 2, "needs a unit"),
        (["doctor", "extra"], 2, "extra"),
    ],
)
def test_the_rest(said, arguments, code, text):
    found, line = said(*arguments)
    assert (found, text in line) == (code, True), line


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["init", "-o", "-"]])
def test_an_output_that_is_full_is_one_line(tmp_path, arguments):
    with Path("/dev/full").open("wb") as full:
        command, pipe = [*DLBENCH, *arguments], subprocess.PIPE
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=pipe, text=True)
    assert done.stderr == "error: standard output: No space left on device\n"
    assert done.returncode == 1


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command, pipe = [*DLBENCH, "init", "-o", "-"], subprocess.PIPE
        done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=pipe)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1
