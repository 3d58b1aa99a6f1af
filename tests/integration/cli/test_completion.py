"""Completion in a real bash: installed as a person does it, asked as the Tab key does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash")
PROGRAM = Path(sys.executable).with_name("dlbench")
# What bash does at a Tab: it finds the function that is registered, and runs it on the words.
TAB = """
source ~/.bashrc
ask() {
    local words=("$@")
    COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMPREPLY=()
    $(complete -p dlbench | sed -E 's/.*-F ([^ ]+) .*/\\1/') dlbench "${words[-1]}" "${words[-2]}"
    echo "${COMPREPLY[@]}"
}
"""

pytestmark = [
    pytest.mark.skipif(BASH is None, reason="there is no bash here"),
    pytest.mark.skipif(not PROGRAM.exists(), reason="dlbench is not installed beside this Python"),
]


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """Runs a script with a home folder of its own, where dlbench's completion is installed."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"HOME": str(tmp_path_factory.mktemp("home")), "PATH": path}

    def run(script):
        done = subprocess.run(
            [BASH, "--norc", "-c", script], capture_output=True, text=True, env=environment
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    # Two commands: for one alone bash would step aside, and no shell would be seen above dlbench.
    assert "bash completion installed" in run("dlbench --install-completion; true")[0]
    return run


def test_commands_options_and_choices_are_completed(bash):
    asked = [
        'ask dlbench ""',
        "ask dlbench tu",
        "ask dlbench serve --max-b",
        "ask dlbench serve --queue-order p",
    ]
    commands, tu, max_b, order = bash(TAB + "\n".join(asked))
    assert {"serve", "tune", "load", "doctor", "init"} <= set(commands.split())
    assert tu == "tune"
    assert set(max_b.split()) == {"--max-batch-size", "--max-body-mb"}
    assert order == "priority"


def test_the_script_can_be_shown_instead(bash):
    assert "_DLBENCH_COMPLETE=complete_bash" in "\n".join(bash("dlbench --show-completion; true"))
