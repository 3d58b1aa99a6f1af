"""A gRPC server that answers every call with the same V2 reply and computes nothing.

    python null_grpc.py

Prints one JSON line with its port; ends when its standard input does. It knows no headers, no
windows and no errors: enough for grpcio's client and ours, and too fast to be what limits them.
"""

import asyncio
import json
import os

import uvloop
from tritonclient.grpc import service_pb2

from dlbench.loadgen.transport import http2
from dlbench.loadgen.transport.grpc_connection import PREFIX
from dlbench.loadgen.transport.http2 import Flag, Kind, frame

HEADERS = http2.header_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = http2.header_block([(b"grpc-status", b"0")])
HELLO = http2.settings({}) + http2.window_update(http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW)


def message() -> bytes:
    """One float, whatever was asked."""
    output = service_pb2.ModelInferResponse.InferOutputTensor(
        name="y", datatype="FP32", shape=[1, 1]
    )
    reply = service_pb2.ModelInferResponse(
        model_name="null", outputs=[output], raw_output_contents=[bytes(4)]
    ).SerializeToString()
    return PREFIX.pack(0, len(reply)) + reply


class NullGrpc(asyncio.Protocol):
    """One connection."""

    def __init__(self, reply: bytes) -> None:
        self._reply, self._frames = reply, http2.Frames()
        self._greeting = len(http2.PREFACE)

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        skipped, self._greeting = self._greeting, max(0, self._greeting - len(data))
        answers = []
        for kind, flags, stream, payload in self._frames.feed(data[skipped:]):
            if kind == Kind.DATA and flags & Flag.END_STREAM:
                answers.append(self._answer(stream))
            elif kind in (Kind.SETTINGS, Kind.PING) and not flags & Flag.ACK:
                answers.append(frame(kind, Flag.ACK, 0, payload if kind == Kind.PING else b""))
        if answers:
            self._transport.write(b"".join(answers))

    def _answer(self, stream: int) -> bytes:
        return (
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, HEADERS)
            + frame(Kind.DATA, 0, stream, self._reply)
            + frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, TRAILERS)
        )


async def serve() -> None:
    loop, reply, ended = asyncio.get_running_loop(), message(), asyncio.Event()
    server = await loop.create_server(lambda: NullGrpc(reply), "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    loop.add_reader(0, lambda: os.read(0, 4096) or ended.set())
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(serve())
