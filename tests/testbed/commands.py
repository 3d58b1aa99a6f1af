"""`dlbench` as a person calls it: in a process of its own."""

import subprocess
import sys

DLBENCH = (sys.executable, "-m", "dlbench.cli.main")


def ran(*command, timeout=120, **options):
    """How a command ended and what it said."""
    words = map(str, command)
    return subprocess.run([*words], capture_output=True, text=True, timeout=timeout, **options)


def dlbench(*arguments, **options):
    return ran(*DLBENCH, *arguments, **options)


def python(script, *arguments, **options):
    return ran(sys.executable, "-c", script, *arguments, **options)


def started(*arguments, **options):
    """A `dlbench` that goes on; what it says is to be read."""
    command = [*DLBENCH, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{**pipes, **options})
