"""A word that nobody knows: what was meant is said, in one line, wherever a word is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.cli.main import COMMANDS
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.spelling import instead, meant
from dlbench.results.deploy.targets import TARGETS


@pytest.fixture
def said(monkeypatch, run_here, tmp_path):
    """A function that runs a command, which fails as a wrong use, and gives the one line it says."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=2):
        done = run_here(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
        return done.stderr

    return call


@pytest.mark.parametrize(
    ("arguments", "intended"),
    [
        (["tunee"], "tune"),
        (["lod", "http://127.0.0.1:1"], "load"),
        (["tune", "demo:mlp", "--bugdet", "5s"], "--budget"),
        (["tune", "demo:mlp", "--slo_p99", "5ms"], "--slo-p99"),
        (["serve", "demo:mlp", "--max-batchsize=4"], "--max-batch-size"),
        (["tune", "demo:mlp", "--fix", "wokers=2"], "workers"),
        (["tune", "demo:mlp", "--fix", "max-batch-size=2"], "max_batch_size"),
        (["tune", "demo:mlp", "--range", "max_batchsize=1..2"], "max_batch_size"),
        (["tune", "demo:mlp", "--recommend", "kne"], "knee"),
        (["tune", "demo:mlp", "--proposer", "nsga"], "nsga2"),
        (["serve", "demo:mlp", "--scheduling-policy", "round-robin"], "round_robin"),
        (["load", "http://127.0.0.1:1", "--rate", "1", "--arrivals", "poison"], "poisson"),
        (["load", "http://127.0.0.1:1", "--rate", "1", "--request-class", "a=wieght=1"], "weight"),
        (["export", "x.db", "--to", "k8"], "k8s"),
        (["export", "x.db", "--to", "Docker"], "docker"),
        (["export", "x.db", "--format", "jsn"], "json"),
    ],
)
def test_what_was_meant_is_said(said, arguments, intended):
    assert f"did you mean {intended}?" in said(*arguments)


def test_of_a_demo_and_a_key_and_a_table_too(said, tmp_path):
    assert "did you mean demo:mlp?" in said("tune", "demo:mpl", code=1)
    file = tmp_path / "s.toml"
    for text, intended in (("wokers = 2", "workers"), ("[serv]\nworkers = 2", "serve")):
        file.write_text(text)
        assert f"did you mean {intended}?" in said("serve", "demo:mlp", "--config", "s.toml")
    file.write_text("wokers = 2")
    assert "did you mean workers?" in said("tune", "demo:mlp", "--space", "s.toml")


def test_a_variable_that_is_nearly_ours_is_and_another_is_somebody_elses(said, monkeypatch):
    monkeypatch.setenv("DLBENCH_HOME", "/x")
    assert "port" in said("serve", "demo:mlp", "--port", "70000")
    monkeypatch.setenv("DLBENCH_WROKERS", "3")
    assert "DLBENCH_WROKERS: no such variable; did you mean DLBENCH_WORKERS?" in said(
        "serve", "demo:mlp"
    )


@pytest.mark.parametrize("known", [COMMANDS, TARGETS, ServingConfig.model_fields])
def test_a_letter_too_many_or_too_few_is_seen_through(known):
    for name in known:
        for at in range(1, len(name)):
            assert meant(name[:at] + "x" + name[at:], known) == name


@given(st.text(), st.lists(st.text(min_size=1), min_size=1))
def test_what_resembles_nothing_is_told_all_there_is(word, known):
    text = instead(word, known)
    assert text == f"did you mean {meant(word, known)}?" or text.endswith(", ".join(known))
