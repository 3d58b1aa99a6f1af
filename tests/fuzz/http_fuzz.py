"""Mutated requests against a real front: `python tests/fuzz/http_fuzz.py --seconds 60 --seed 1`.

Every round opens some connections, sends each a few requests of `corpus/` with mistakes in them, cut
anywhere, and closes its side. Whatever was sent, the front has to answer in HTTP or end the
connection, serve the next client, write nothing to its log and keep its memory. A round depends on
seed and number alone: `--seed S --first R --rounds 1` runs it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
CORPUS = [path.read_bytes() for path in sorted((HERE / "corpus").iterdir())]
LIMITS = {"body_timeout_s": 1.0, "header_timeout_s": 1.0, "idle_timeout_s": 5.0}
CONNECTIONS = 20
# What a busy machine may need; nothing in here waits so long when it works.
PATIENCE_S = 60
# Rounds until the front has seen everything that it keeps, and what it may grow by after that.
WARM_ROUNDS = 20
GROWTH_BYTES = 64 << 20
TOKENS = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\0",
        b"\xff",
        b"0",
        b"-1",
    ),
    *(
        b"chunked",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.1",
        b"gzip",
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"Expect: 100-continue\r\n",
    ),
]


def mutated(stream: bytes, chance: random.Random) -> bytes:
    """The stream with one mistake in it."""
    at = chance.randrange(len(stream) + 1)
    size = chance.choice((1, 1, 2, 8, 64, 512))
    return (
        stream[:at] + chance.choice(MISTAKES)(stream[at : at + size], chance) + stream[at + size :]
    )


MISTAKES = [
    lambda piece, chance: b"",
    lambda piece, chance: piece + piece,
    lambda piece, chance: piece * chance.randrange(2, 200),
    lambda piece, chance: chance.choice(TOKENS) + piece,
    lambda piece, chance: chance.choice(TOKENS),
    lambda piece, chance: chance.randbytes(len(piece)),
    lambda piece, chance: bytes(byte ^ 1 << chance.randrange(8) for byte in piece),
    lambda piece, chance: chance.choice(CORPUS),
]


def pieces(chance: random.Random) -> list[bytes]:
    """A few requests with a few mistakes, cut anywhere."""
    stream = b"".join(chance.choice(CORPUS) for _ in range(chance.randrange(1, 5)))
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        stream = mutated(stream, chance)
    edges = sorted(
        chance.randrange(len(stream) + 1) for _ in range(chance.choice((0, 0, 1, 3, 30)))
    )
    return [stream[a:b] for a, b in zip([0, *edges], [*edges, len(stream)], strict=True)]


async def converse(port: int, sent: list[bytes]) -> bytes:
    """Send and then close our side; what came back before the front closed its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = asyncio.create_task(reader.read(-1))
    try:
        for piece in sent:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
    except OSError:
        pass  # the front has closed first, as it may
    try:
        return await said
    except OSError:
        return b""  # what it said was lost when it did not take all that we sent
    finally:
        writer.close()


async def play_round(port: int, seed: int, number: int) -> None:
    """One round; raises AssertionError or TimeoutError if the front misbehaves."""
    chance = random.Random(f"{seed}/{number}")
    tasks = [asyncio.create_task(converse(port, pieces(chance))) for _ in range(CONNECTIONS)]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            witness = b"POST /release HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
            answer = await converse(port, [witness])
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
            assert answer.endswith(b"\r\n\r\nhi"), answer
            if (await asyncio.wait(tasks, timeout=0.05))[1] == set():
                break
    for task in tasks:
        said = task.result()
        assert said == b"" or said.startswith(b"HTTP/1.1 "), said[:200]


async def play(port: int, front: psutil.Process, options: argparse.Namespace) -> int:
    """Rounds until the time or their number is up; returns how many."""
    ends = time.monotonic() + options.seconds
    memory, number = 0, options.first
    while time.monotonic() < ends and number < options.first + options.rounds:
        try:
            await play_round(port, options.seed, number)
        except (AssertionError, TimeoutError) as error:
            raise SystemExit(f"round {number} of seed {options.seed}: {error!r}") from error
        number += 1
        if number == options.first + WARM_ROUNDS:
            memory = front.memory_info().rss
    if memory and front.memory_info().rss > memory + GROWTH_BYTES:
        raise SystemExit(f"the front grew from {memory} to {front.memory_info().rss} bytes")
    return number - options.first


def main() -> None:
    """Start a front, play, and look at what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    command = [sys.executable, str(HERE / "echo_front.py"), json.dumps({"limits": LIMITS})]
    with tempfile.TemporaryFile("w+") as log:
        front = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            port = int(front.stdout.readline())
            rounds = asyncio.run(play(port, psutil.Process(front.pid), options))
            alive = front.poll() is None
        finally:
            front.stdin.close()
            front.wait(PATIENCE_S)
            front.stdout.close()
        log.seek(0)
        if (said := log.read()) or not alive or front.returncode:
            raise SystemExit(f"the front ended with {front.returncode} and said: {said[-4000:]}")
    print(f"{rounds} rounds of {CONNECTIONS} connections with seed {options.seed}: nothing found")


if __name__ == "__main__":
    main()
