"""Servers that say on their first line where they are, and end with their standard input."""

import json
import subprocess
import sys
from contextlib import contextmanager

from dlbench.loadgen.protocols.discovery import discover
from testbed.patience import PATIENCE_S


@contextmanager
def served(*command):
    """The URL of a Python program."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *map(str, command)], **pipes) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.stdin.close()
            process.wait(PATIENCE_S)


def null_server(*arguments):
    return served("-m", "dlbench.loadgen.null_server", *arguments)


def measure(generator, url, profile, **options):
    """A load on whatever is served at a URL."""
    return generator.measure(discover(url, profile), profile, **options)


def measure_some(generator, target, profile):
    """A short window is empty where the machine has other things to do: then it is another."""
    while not (found := generator.measure(target, profile).measurement).requests:
        pass
    return found
