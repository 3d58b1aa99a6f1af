"""`dlbench top`: what a running proxy does right now."""

from __future__ import annotations

import ssl
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from rich.live import Live

from dlbench.cli.failure import UsageError
from dlbench.cli.options import AsJson, Quiet, duration
from dlbench.cli.terminal.dashboard import dashboard
from dlbench.cli.terminal.output import notes_console, print_json, result_console
from dlbench.cli.terminal.scrape import Scrape, between, parse
from dlbench.loadgen.transport.timed_http import TimedTransport
from dlbench.proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from dlbench.cli.terminal.scrape import View

NAME = "top"
EXAMPLES = """[bold]Examples[/]

dlbench top http://127.0.0.1:8000

dlbench top http://127.0.0.1:8000 --once --interval 10s

dlbench top http://127.0.0.1:8000 --json | jq '.models[0].p99_ms'
"""

TIMEOUT_S = 5.0


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="a proxy that `dlbench serve` started")],
    interval: Annotated[
        str,
        typer.Option(
            "--interval", metavar="DURATION", help="time over which rates and latencies are taken"
        ),
    ] = "1s",
    once: Annotated[
        bool,
        typer.Option("--once", help="exit after one interval; implied by --json and by a pipe"),
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="file whose first line is a bearer token"
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Watch a running proxy: rates, latencies and load of the last interval, until Ctrl-C."""
    interval_s = duration(interval, option="--interval")
    if interval_s <= 0:
        raise UsageError(f"--interval {interval}: must be over 0")
    with _client(url, token_file) as http:
        views = _patiently(_views(http, interval_s), interval_s, quiet=quiet)
        console = result_console()
        if as_json:
            print_json(asdict(next(views)))
        elif once or not console.is_terminal:
            console.print(dashboard(url, next(views)))
        else:
            _watch(console, url, views)


def _patiently(views: Iterator[View], interval_s: float, *, quiet: bool) -> Iterator[View]:
    """The same, and before the first of them what is waited for."""
    with notes_console(quiet=quiet).status(f"watching for {interval_s:g} s"):
        first = next(views)
    yield first
    yield from views


def _watch(console: Console, url: str, views: Iterator[View]) -> None:
    """Until Ctrl-C, which is how one leaves."""
    try:
        first = dashboard(url, next(views))
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            for view in views:
                live.update(dashboard(url, view), refresh=True)
    except KeyboardInterrupt:
        return


def _views(http: httpx.Client, interval_s: float) -> Iterator[View]:
    """One view per interval, without drift."""
    before = _scrape(http)
    while True:
        time.sleep(max(0.0, before.at_s + interval_s - time.monotonic()))
        after = _scrape(http)
        yield between(before, after)
        before = after


def _client(url: str, token_file: Path | None) -> httpx.Client:
    headers = {} if token_file is None else {"authorization": f"Bearer {_token(token_file)}"}
    base = url if "://" in url else f"http://{url}"
    try:
        transport = TimedTransport(TIMEOUT_S, ssl.create_default_context())
        return httpx.Client(base_url=base, headers=headers, transport=transport, trust_env=False)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url}: {error}") from None


def _token(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path}: {error}") from None
    token = next((line for line in lines if line and not line.startswith("#")), None)
    if token is None:
        raise UsageError(f"--token-file {path}: the file contains no token")
    return token


def _scrape(http: httpx.Client) -> Scrape:
    """One look.

    Raises:
        ProxyError: nobody answers, or not a proxy of ours.
    """
    where = str(http.base_url).rstrip("/")
    try:
        response = http.get("/metrics", headers={"accept": "text/plain"})
    except httpx.RequestError as error:
        raise ProxyError(f"cannot reach {where}: {error}") from None
    at_s = time.monotonic()
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ProxyError(f"{where} requires a token; add --token-file FILE")
    try:
        scrape = parse(response.text, at_s)
    except ValueError:
        scrape = Scrape(at_s, {})
    if not scrape.labels_of("dlbench_connections"):
        raise ProxyError(f"{where}/metrics does not belong to a dlbench proxy")
    return scrape
