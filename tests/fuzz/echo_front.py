"""The HTTP front alone, as a process: HttpProtocol with a handler that echoes.

`python echo_front.py '{"limits": {...}, "tokens": FILE, "tls": [cert, key, ca], "uvloop": true}'`
prints its port, then every 0.1 s looks at the clock for slow clients. SIGTERM drains; the end of
standard input ends it at once. On standard output it says `drained` when no connection is left.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import uvloop

from dlbench.proxy.errors import MethodNotAllowed
from dlbench.proxy.http.access import NoTokens, Tokens
from dlbench.proxy.http.connection import HttpProtocol, Limits
from dlbench.proxy.http.head import HeadMemo
from dlbench.proxy.http.tls import tls_context

LIMITS = {
    "head_bytes": 4096,
    "body_bytes": 1 << 20,
    "header_timeout_s": 10.0,
    "body_timeout_s": 10.0,
    "idle_timeout_s": 60.0,
    "connections": 1000,
}
SWEEP_S = 0.1


class Handler:
    """What the paths do; anything else is echoed at once."""

    def __init__(self) -> None:
        self._held: list = []

    def __call__(self, request, respond) -> None:
        name = request.target.strip(b"/").partition(b"?")[0].decode("latin-1")
        getattr(self, f"do_{name}", self.echo)(request, respond)

    def echo(self, request, respond) -> None:
        """The body, with what was understood of the head in a header."""
        seen = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers.items()}
        told = [request.method.decode(), request.target.decode("latin-1"), seen]
        line = b"x-request: %b\r\n" % json.dumps(told).encode()
        respond(200, b"content-type: text/plain\r\n" + line, [request.body])

    def do_hold(self, request, respond) -> None:
        """Answer when /release comes."""
        self._held.append((request, respond))

    def do_release(self, request, respond) -> None:
        """Answer, and then what was held, the last first."""
        self.echo(request, respond)
        while self._held:
            self.echo(*self._held.pop())

    def do_tensor(self, request, respond) -> None:
        """The body as raw bytes, in two pieces."""
        half = len(request.body) // 2
        pieces = [request.body[:half], memoryview(request.body)[half:]]
        respond(200, b"content-type: application/octet-stream\r\n", pieces)

    def do_fault(self, request, respond) -> None:
        """A bug."""
        raise ZeroDivisionError

    def do_allow(self, request, respond) -> None:
        """An error with a header of its own."""
        raise MethodNotAllowed([b"PUT"])


async def serve(options: dict) -> None:
    """Listen, say where, and stop as told."""
    loop = asyncio.get_running_loop()
    connections: set[HttpProtocol] = set()
    limits = Limits(**{**LIMITS, **options.get("limits", {})})
    access = Tokens.from_file(options["tokens"]) if "tokens" in options else NoTokens()
    handler, heads = Handler(), HeadMemo()
    context = tls_context(*options.get("tls", ("", "", "")))
    server = await loop.create_server(
        lambda: HttpProtocol(handler, limits, connections, access=access, heads=heads),
        "127.0.0.1",
        0,
        ssl=context,
        ssl_handshake_timeout=limits.header_timeout_s if context else None,
    )
    ended, draining = asyncio.Event(), asyncio.Event()
    loop.add_reader(0, lambda: sys.stdin.read(1) or ended.set())
    loop.add_signal_handler(signal.SIGTERM, draining.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    while not ended.is_set():
        await asyncio.sleep(SWEEP_S)
        for connection in list(connections):
            if draining.is_set():
                connection.drain()
                connection.close_if_idle()
            connection.check_time(loop.time())
        if draining.is_set() and not connections:
            print("drained", flush=True)
            break
    server.close()


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    factory = uvloop.new_event_loop if chosen.pop("uvloop", True) else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(chosen))
