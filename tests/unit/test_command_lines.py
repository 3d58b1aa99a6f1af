"""Every `dlbench` line of the README and of the pages is one that the program understands."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dlbench.cli.main import app
from dlbench.cli.options import read
from dlbench.loadgen.profile import LoadProfile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines():
    for page in PAGES:
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            if line.startswith("dlbench "):
                yield f"{page.name}: {line}"


@pytest.mark.parametrize("line", list(lines()))
def test_it_is_understood(line):
    command_line = line.partition(": ")[2].partition(" > ")[0]
    _, name, *words = shlex.split(command_line, comments=True)
    command = typer.main.get_command(app).get_command(None, name)
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
