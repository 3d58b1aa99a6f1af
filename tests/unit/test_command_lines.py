"""Every `dlbench` line of the README, the pages and the help is one that the program understands."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from dlbench.cli.main import COMMANDS, app
from dlbench.cli.options import read
from dlbench.loadgen.profile import LoadProfile

ROOT = Path(__file__).parents[2]
NO_CHECKOUT = 128  # git's
PACKAGES = ("cli", "results", "doctor", "tuner", "proxy", "loadgen")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines():
    for page in PAGES:
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            if line.startswith("dlbench "):
                yield f"{page.name}: {line}"


def examples():
    """The lines of every command's --help."""
    for name in COMMANDS:
        for line in getattr(command_of(name), "epilog", "").splitlines():
            for part in line.split(" && "):
                if part.startswith("dlbench "):
                    yield f"{name} --help: {part}"


def command_of(name):
    return typer.main.get_command(app).get_command(None, name)


@pytest.mark.parametrize("line", [*lines(), *examples()])
def test_it_is_understood(line):
    command_line = re.split(r" [>|] ", line.partition(": ")[2])[0]
    _, name, *words = shlex.split(command_line, comments=True)
    command = command_of(name)
    given = command.make_context(name, words).params
    if name == "load":
        wanted = {n: list(v) if isinstance(v, tuple) else v for n, v in given.items()}
        set_ = {
            n: v for n, v in wanted.items() if v not in (None, []) and n in LoadProfile.model_fields
        }
        read(LoadProfile, set_, {})


def test_there_are_lines_on_every_page():
    found = {line.partition(":")[0] for line in lines()}
    assert {"README.md", "serving.md", "load-testing.md"} <= found


def test_git_ignores_what_they_leave():
    """Run in a fresh checkout, as a newcomer does it, and `make demo` too."""
    text = "\n".join([*lines(), (ROOT / "Makefile").read_text()])
    found = set(
        re.findall(
            r"(?:[ >])((?:image/)?\w[\w.]*\.(?:db|csv|html|json|npz|toml|svg|xml|md|yaml|pbtxt|png|parquet))\b",
            text,
        )
    )
    written = sorted(
        {"demo.html", "Dockerfile", "mlp.samples/x.npz", "mlp.log", *found} - {"pyproject.toml"}
    )
    assert {"mlp.db", "results.csv", "config.pbtxt", "image/compose.yaml"} <= set(written)
    done = subprocess.run(
        ["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode == NO_CHECKOUT:
        pytest.skip("not a checkout")
    assert done.stdout.split() == written
    tracked = subprocess.run(
        ["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    assert tracked.stdout == b""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_the_options_of_scripts(name):
    assert any(line.startswith(f"{name} --help") for line in examples())
    options = {option: p for p in command_of(name).params for option in p.opts}
    assert options["--quiet"] is options["-q"]
    assert "--json" in options


# What is a word, or words, of a shell already.
QUOTED = ("quote(", "word(", "join(", ".command", "told")
A_COMMAND = re.compile(rf"\bdlbench (?:{'|'.join(COMMANDS)})(?: --[\w-]+| \{{\}})*[ =]$")


def values_in_commands():
    """Every value that a text of ours puts into a command line: where, and what it is."""
    for path in sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")):
        for text in ast.walk(ast.parse(path.read_text())):
            if isinstance(text, ast.JoinedStr):
                yield from ((path.name, value) for value in in_command(text))


def in_command(text):
    before = ""
    for part in text.values:
        if isinstance(part, ast.Constant):
            before += part.value
        else:
            if A_COMMAND.search(before):
                yield ast.unparse(part.value)
            before += "{}"


def test_every_value_in_a_command_that_is_printed_is_quoted():
    found = list(values_in_commands())
    assert ("load.py", "quote(role.master)") in found
    assert [one for one in found if not any(mark in one[1] for mark in QUOTED)] == []
