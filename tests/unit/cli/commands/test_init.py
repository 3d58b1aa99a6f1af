"""The file that `dlbench init` writes: every line of it may be uncommented."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlbench.cli.commands import serve, tune
from dlbench.cli.commands.init import INSTEAD_OF_NONE, document, sections
from dlbench.cli.failure import UsageError
from dlbench.cli.main import app
from dlbench.cli.options import read, read_file
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.study_config import StudyConfig

SETTING = re.compile(r"^#(\w+) = (.+)$", re.MULTILINE)
KEYS = [name for _, fields in sections() for name in fields]
COMMANDS = {
    serve.NAME: (ServerSettings, ServingConfig),
    tune.NAME: tune.MODELS,
}


@pytest.fixture
def text():
    return document(Path("dlbench.toml"), {})


def as_read(path, name):
    """What a command makes of the file."""
    models = COMMANDS[name]
    file = read_file(path, models, name)
    return {model: read(model, {}, file) for model in models}


def test_every_setting_of_the_declarations_is_in_it_once(text):
    named = SETTING.findall(text)
    assert [name for name, _ in named] == KEYS
    assert len(set(KEYS)) == len(KEYS)
    for model in (ServerSettings, ServingConfig, StudyConfig):
        assert set(model.model_fields) <= set(KEYS)
    assert {"distinct", "zipf", "data"} < set(KEYS)
    assert not {"rate", "users", "template"} & set(KEYS)  # a study has its own load


def test_as_it_is_it_changes_nothing(text, tmp_path):
    path = tmp_path / "dlbench.toml"
    path.write_text(text)
    for name, models in COMMANDS.items():
        assert as_read(path, name) == {model: model() for model in models}


@pytest.mark.parametrize("key", KEYS)
def test_a_line_may_be_uncommented(key, text, tmp_path):
    """Then it says the default, or, where the default is nothing, something that is valid.

    An empty text is as good as none: `token_file` is both, of server and client.
    """
    path = tmp_path / "dlbench.toml"
    path.write_text(re.sub(rf"^#({key} = )", r"\1", text, flags=re.MULTILINE))
    assert path.read_text() != text
    found = {
        name: value
        for command in COMMANDS
        for model, given in as_read(path, command).items()
        for name, value in given
        if (value or None) != (getattr(model(), name) or None)
    }
    assert found == ({key: INSTEAD_OF_NONE[key]} if key in INSTEAD_OF_NONE else {})


def test_ranges_choices_units_and_what_is_searched_are_said(text):
    said = dict(re.findall(r"^# (.+)\n#(?:   .+\n#)*(\w+) = ", text, re.MULTILINE))
    about = {name: line for line, name in said.items()}
    assert about["max_batch_size"] == "1 to 4,096; tune tries 1, 2, 4, 8, 16, 32, 64"
    assert about["batching"] == "one of: greedy, adaptive"
    assert about["cache_size"].startswith("0 to 10,000,000;")
    assert about["budget_s"] == "over 0 s and at most 604,800 s"
    assert about["slo_p99_ms"] == "over 0 ms; unset by default"


def test_lines_fit_a_screen(text):
    assert max(map(len, text.splitlines())) <= 100


def test_a_table_counts_for_its_command_alone(tmp_path):
    path = tmp_path / "dlbench.toml"
    path.write_text("[serve]\nworkers = 3\n[tune]\nseed = 7\n")
    assert as_read(path, "serve")[ServingConfig].workers == 3
    assert as_read(path, "tune")[StudyConfig].seed == 7


def test_a_key_in_the_place_of_a_table_is_told_so(tmp_path):
    path = tmp_path / "dlbench.toml"
    path.write_text("serve = 3\n")
    with pytest.raises(UsageError, match=r"written as \[serve\]"):
        as_read(path, "tune")


def init(*arguments):
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def test_a_model_is_filled_in(tmp_path, models):
    model, path = models.affine(), tmp_path / "mine.toml"
    assert init(model, "--output", path).exit_code == 0
    assert tomllib.loads(path.read_text()) == {"model": str(model), "serve": {}, "tune": {}}
    assert f"dlbench serve --config {path}" in path.read_text()


def test_what_is_there_is_overwritten_only_by_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dlbench.toml"
    path.write_text("mine")
    refused = init()
    assert refused.exception
    assert "--force" in str(refused.exception)
    assert path.read_text() == "mine"
    assert init("--force").exit_code == 0
    assert tomllib.loads(path.read_text())


def test_standard_output_holds_the_file_alone():
    done = init("--output", "-")
    assert tomllib.loads(done.stdout) == {"serve": {}, "tune": {}}
    assert isinstance(init("--output", "-", "--json").exception, UsageError)


def test_scripts_are_told_where_it_is(tmp_path):
    path = tmp_path / "mine.toml"
    done = init("demo:mlp", "--output", path, "--json", "--quiet")
    assert json.loads(done.stdout) == {"config": str(path), "model": "demo:mlp"}


def test_a_full_disk_leaves_no_empty_file(tmp_path):
    full = (
        "import resource; from dlbench.cli.main import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "app(['init'], standalone_mode=False)"
    )
    command = [sys.executable, "-B", "-c", full]  # no bytecode that is cut short
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "--output dlbench.toml: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["missing.onnx"], ["--output", "/proc/no/such.toml"]])
def test_what_cannot_be_done_writes_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init(*arguments).exit_code != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["my file.toml", "a'b.toml", "x\ny.toml", "$HOME # .toml"])
def test_its_own_name_is_quoted_and_on_one_line(name):
    text = document(Path(name), {"model": "a\nb \x7f.onnx"})
    assert tomllib.loads(text)["model"] == "a\nb \x7f.onnx"
    first = text.splitlines()[0].removeprefix("# ")
    assert shlex.split(first) == ["dlbench", "serve", "--config", name.replace("\n", "\\u000a")]
