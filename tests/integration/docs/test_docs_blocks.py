"""Every code block of the README and the pages is run, or says why it is not.

What costs little is run here on a study made by hand; everything is run, page after page in one
folder, by `make slow`. A block is left out by a comment above it: `<!-- not run: why -->`.
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dlbench.cli.main import app
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.demo import demo_path
from dlbench.proxy.models.model import resolve_model
from dlbench.tuner.point import Point, Resources
from dlbench.tuner.storage.study import Identity, Study
from testbed import made

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<why>[^\n]+?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
# Blocks without a language are what a program printed, or a drawing.
LANGUAGES = {"sh", "python", "toml", "yaml", ""}
# Where studies come from in these tests is the page on tuning: what needs one stands after it.
CHEAP = {"init", "studies", "report", "export"}
CHEAP_PAGES = ("report.md", "deploying.md", "studies.md")

# What the slow test makes smaller, so that all pages take minutes and not hours. What sets the
# project up is left to CI, which begins with that.
SMALLER = (
    (r"^(make|git clone|pip install \.).*", ""),
    (r"--budget \d+(m|min|h)\b|--budget [1-9]\d\d+s", "--budget 45s"),
    (r"--duration \d+s", "--duration 2s"),
    (r"--slo-p99 \S+", "--slo-p99 10s"),  # a bound that a busy machine holds
    (r"^(dlbench load http(?!.*--duration)\S+)", r"\1 --duration 2s"),
)
# Lines that go on until they are stopped, and what they say when they are ready.
SERVERS = re.compile(r"^(dlbench serve|\S*optuna-dashboard sqlite)")
READY = re.compile(r"https?://")
# How a command may end on a machine that measures beside other tests.
PRELUDE = """
set -e
dlbench() {
    local code=0
    command dlbench "$@" || code=$?
    case "$1:$code" in
        tune:3 | load:3 | doctor:1 | compare:4 | verify:4) ;; # undecided, unfit, a regression
        *) return $code ;;
    esac
}
curl() { command curl --silent --show-error --fail-with-body "$@"; }
"""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    why_not: str
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def in_order():
    """The README, then the pages as the site lists them."""
    listed = re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    return [ROOT / "README.md", *(DOCS / name for name in listed)]


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text[: found.start("text")].count("\n")
        code = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(page.name, line, found["why"] or "", found["language"], code)


ALL = [block for page in in_order() for block in blocks(page)]


def test_the_site_lists_every_page():
    assert sorted(DOCS.glob("*.md")) == sorted(in_order()[1:])


def test_no_fence_is_overlooked():
    fences = sum(len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) for page in in_order())
    assert fences == 2 * len(ALL) > 60


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_is_of_a_kind_that_is_run_or_read(block):
    assert block.language in LANGUAGES
    if block.language == "toml":
        assert tomllib.loads(block.text)
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    if block.language == "python":
        compile(block.text, str(block), "exec")


def test_recipes_are_those_of_the_file_that_is_run():
    """By tests/integration/cli/test_cli_compare.py; a page may show a part of it."""
    known = {line.strip() for line in (DOCS / "ci.yml").read_text().splitlines()}
    shown = [block for block in ALL if block.language == "yaml"]
    assert "comparing.md" in {block.page for block in shown}
    for block in shown:
        assert {line.strip() for line in block.text.splitlines()} <= known, str(block)


def measured(rate, p99):
    ends = {"p99_low_ms": 0.8 * p99, "p99_high_ms": 1.3 * p99}
    return made.measurement(rate=rate, p99=p99, sure=0.1, **ends)


@pytest.fixture(scope="module")
def with_a_study(tmp_path_factory):
    """A folder with mlp.db: two baselines and a configuration, verified."""
    folder = tmp_path_factory.mktemp("cheap")
    digest = resolve_model("demo:mlp").fingerprint().hex()
    about = {"model": "demo:mlp", "model_hash": digest, "device": "cpu", "load": {}}
    about["machine"] = "AMD EPYC, 2 cores"
    study = Study.create_or_resume(folder / "mlp.db", Identity(about))
    used = Resources(server_cpu=0.5, server_rss_mb=200.0)
    points = [
        Point(
            configuration=name,
            config=ServingConfig(max_batch_size=size, workers=2),
            phase=phase,
            share=0.7,
            measurement=measured(rate, p99),
            resources=used,
            cost_s=3.0,
        )
        for name, phase, size, rate, p99 in (
            ("naive", "baseline", 1, 700.0, 9.0),
            ("default", "baseline", 8, 2000.0, 12.0),
            ("c06", "screen", 64, 9000.0, 20.0),
        )
    ]
    for point in points:
        study.record(point)
    best = points[-1].model_copy(update={"phase": "verify", "on_front": True, "recommended": True})
    study.verified = {"points": [best.model_dump(mode="json")], "slo": "none"}
    return folder


@pytest.mark.parametrize("page", CHEAP_PAGES)
def test_what_costs_little_works_on_a_study(page, with_a_study, monkeypatch):
    monkeypatch.chdir(with_a_study)
    (with_a_study / "image").mkdir(exist_ok=True)
    done = 0
    for block in (b for b in ALL if b.page == page and not b.why_not):
        if block.language == "python":
            exec_python(block)
        for line in block.text.splitlines() if block.language == "sh" else ():
            name, *words = shlex.split(line, comments=True)[1:] or [""]
            if line.startswith("dlbench ") and name in CHEAP:
                ended = CliRunner().invoke(app, [name, *words])
                assert ended.exit_code == 0, (str(block), line, ended.output, ended.exception)
                done += 1
    assert done


def exec_python(block):
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(block.text, str(block), "exec"), {})
    assert said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, real_model):
    """What a reader is taken to have: a model, real ones, and the repository's pages."""
    made = tmp_path_factory.mktemp("pages")
    (made / "models").mkdir()
    (made / "docs").symlink_to(DOCS)
    (made / "model.onnx").symlink_to(demo_path("mlp"))
    for name, path in (("silero", real_model("silero-vad")), ("magika", real_model("magika"))):
        (made / f"{name}.onnx").symlink_to(path)
    return made


@pytest.fixture
def servers(folder):
    """Starts what goes on until it is stopped, one at a time; none outlives its page."""
    running = []

    def stop():
        while running:
            process = running.pop()
            process.terminate()
            process.communicate(timeout=60)

    def start(line, environment):
        stop()
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        said = ""
        while not READY.search(said):
            more = process.stdout.readline()
            assert more, f"{line} ended: {said}"
            said += more

    yield start
    stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", in_order(), ids=lambda page: page.name)
def test_a_page_works_as_it_stands(page, folder, servers, free_port):
    environment = reader(free_port())
    for block in blocks(page):
        if block.why_not:
            continue
        if block.language == "python":
            text = smaller(block.text, environment)
            run([sys.executable, "-c", text], folder, environment, block)
        for server, script in parts(block) if block.language == "sh" else ():
            if server:
                servers(smaller(script, environment), environment)
            else:
                script = smaller(script, environment)
                run(["bash", "-c", PRELUDE + script], folder, environment, block)


def reader(port):
    """The environment: this virtual one first on the path, and a port that nobody else has."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DLBENCH_PORT": str(port), "COLUMNS": "100"}


def parts(block):
    """(is a server, lines): servers by themselves, what stands between them as scripts."""
    lines = block.text.replace("\\\n", " ").splitlines()
    script = []
    for line in lines:
        if SERVERS.match(line):
            yield from [(False, "\n".join(script))] if script else []
            yield True, line
            script = []
        else:
            script.append(line)
    if script:
        yield False, "\n".join(script)


def smaller(script, environment):
    for pattern, replacement in SMALLER:
        script = re.sub(pattern, replacement, script, flags=re.MULTILINE)
    return script.replace("127.0.0.1:8000", f"127.0.0.1:{environment['DLBENCH_PORT']}")


def run(command, folder, environment, block):
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{block}\n{command[-1]}\n{done.stdout}\n{done.stderr}"
