"""What HTTP/2 costs a client for each gRPC call: ours, which knows what repeats, against `h2`.

Both send the same call and read the same reply, as bytes, in turns. What is left out on our side is
the connection's bookkeeping around them (some ten attribute accesses a call).
"""

from __future__ import annotations

from statistics import median
from time import perf_counter_ns

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes, Settings

from dlbench.loadgen.transport import http2
from dlbench.loadgen.transport.http2 import Flag, Kind

CALLS, TURNS = 2000, 9
MESSAGE = bytes(5) + bytes(2048)
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/inference.GRPCInferenceService/ModelInfer"),
    (":authority", "127.0.0.1:8001"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "dlbench"),
]
REPLY = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]


def client() -> H2Connection:
    """A client of `h2` that has announced what ours announces: no table, no push, a large window."""
    made = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    values = {
        SettingCodes.HEADER_TABLE_SIZE: 0,
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.INITIAL_WINDOW_SIZE: 2**28,
    }
    made.local_settings = Settings(client=True, initial_values=values)
    made.initiate_connection()
    made.increment_flow_control_window(2**31 - 1 - 65_535)
    return made


def exchange() -> tuple[bytes, list[bytes]]:
    """The server's greeting and its replies to CALLS calls."""
    asking, server = client(), H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.increment_flow_control_window(2**31 - 1 - 65_535)
    server.receive_data(asking.data_to_send())
    greeting = server.data_to_send()
    asking.receive_data(greeting)
    replies = []
    for stream in range(1, 2 * CALLS, 2):
        asking.send_headers(stream, HEADERS)
        asking.send_data(stream, MESSAGE, end_stream=True)
        server.receive_data(asking.data_to_send())
        server.send_headers(stream, REPLY)
        server.send_data(stream, MESSAGE)
        server.send_headers(stream, TRAILERS, end_stream=True)
        replies.append(server.data_to_send())
        for event in asking.receive_data(replies[-1]):
            if isinstance(event, DataReceived):
                asking.acknowledge_received_data(event.flow_controlled_length, stream)
        asking.data_to_send()
    return greeting, replies


def with_h2(greeting: bytes, replies: list[bytes]) -> float:
    """Microseconds for each call."""
    asking = client()
    asking.data_to_send()
    asking.receive_data(greeting)
    asking.data_to_send()
    began = perf_counter_ns()
    for number, reply in enumerate(replies):
        stream, body, ended = 2 * number + 1, b"", False
        asking.send_headers(stream, HEADERS)
        asking.send_data(stream, MESSAGE, end_stream=True)
        asking.data_to_send()
        for event in asking.receive_data(reply):
            if isinstance(event, DataReceived):
                body += event.data
                asking.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, StreamEnded):
                ended = True
        assert ended
        assert len(body) == len(MESSAGE)
    return (perf_counter_ns() - began) / len(replies) / 1e3


def with_ours(replies: list[bytes]) -> float:
    """Microseconds for each call."""
    block = http2.header_block((k.encode(), v.encode()) for k, v in HEADERS)
    frames, blocks = http2.Frames(), http2.Blocks()
    began = perf_counter_ns()
    for number, reply in enumerate(replies):
        stream, body, ended = 2 * number + 1, [], False
        opening = http2.frame(Kind.HEADERS, Flag.END_HEADERS, stream, block)
        _ = opening + http2.frame(Kind.DATA, Flag.END_STREAM, stream, MESSAGE)
        for frame in frames.feed(reply):
            payload = http2.unpadded(frame.flags, frame.payload)
            if frame.kind == Kind.HEADERS:
                ended = blocks.read(payload).get(b"grpc-status") == b"0"
            elif frame.kind == Kind.DATA:
                body.append(payload)
        assert ended
        assert len(b"".join(body)) == len(MESSAGE)
    return (perf_counter_ns() - began) / len(replies) / 1e3


def main() -> None:
    """Print one line for each side, and the ratio of their medians."""
    greeting, replies = exchange()
    pairs = [(with_h2(greeting, replies), with_ours(replies)) for _ in range(TURNS)]
    for name, times in zip(("h2", "ours"), zip(*pairs, strict=True), strict=True):
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(
            f"{name:4}  {median(times):6.1f} us a call ({spread}, {TURNS} turns of {CALLS} calls)"
        )
    print(f"h2 takes {median(h2 / ours for h2, ours in pairs):.1f} times as long")


if __name__ == "__main__":
    main()
