"""HTTPS: our generator, which verifies the certificate, and stock Locust, which does not by default."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.generator.loadgen_clients import Run, locust, measured, serving
from benchmarks.generator.loadgen_closed import Contest
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).with_name("null_tls.py")
NEW = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
OF_LOCALHOST = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """A self-signed certificate of localhost and its key; gone with the process."""
    made = tempfile.TemporaryDirectory()
    files = ("-days", "2", "-keyout", "key.pem", "-out", "cert.pem")
    command = ["openssl", *NEW, *files, *OF_LOCALHOST]
    subprocess.run(command, cwd=made.name, check=True, capture_output=True)
    return made


def certificate(name: str) -> str:
    return f"{folder().name}/{name}.pem"


@contextmanager
def server(core: int) -> Iterator[int]:
    with serving(SERVER, certificate("cert"), certificate("key"), core=core) as port:
        yield port


def dlbench(port: int, users: int, warm_s: float, seconds: float) -> Run:
    profile = LoadProfile(
        users=users, warmup_s=warm_s, duration_s=seconds, tls_ca=certificate("cert")
    )
    return measured(discover(f"https://localhost:{port}", profile), profile)


def fast_http_user(port: int, users: int, warm_s: float, seconds: float) -> Run:
    return locust(f"https://localhost:{port}", users, warm_s, seconds)


CONTEST = Contest(
    "HTTPS, closed loop, against a server that computes nothing",
    {"dlbench": dlbench, "FastHttpUser": fast_http_user},
    server,
    {"FastHttpUser": 3},
)
