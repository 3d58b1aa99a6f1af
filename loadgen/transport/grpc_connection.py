"""One HTTP/2 connection that makes unary gRPC calls, one at a time, in the same callback style.

The requests are serialised messages. A call that ends with grpc-status 0 is a reply of 200 whose
body is the message; any other status is the outcome `grpc_<its name>`.
(The protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.)
"""

from __future__ import annotations

from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dlbench.loadgen.transport import http2
from dlbench.loadgen.transport.http2 import Flag, Http2Error, Http2Frame, Kind, Setting
from dlbench.loadgen.transport.keepalive import CHUNK, IDLE, Connection, Plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.transport.keepalive import Address, Bytes, Owner, Result, Wires

STATUSES = (
    *("ok", "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found"),
    *("already_exists", "permission_denied", "resource_exhausted", "failed_precondition"),
    *("aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss"),
    "unauthenticated",
)
# What a stream's reset means to its caller (the protocol's table "HTTP2 Error Codes").
OF_RESET = {
    "REFUSED_STREAM": "grpc_unavailable",
    "CANCEL": "grpc_cancelled",
    "ENHANCE_YOUR_CALM": "grpc_resource_exhausted",
    "INADEQUATE_SECURITY": "grpc_permission_denied",
}
PREFIX = Struct(">BI")  # of a message: whether it is compressed, and its length
# The largest reply; below it, no reply waits for us to say that we have read it.
STREAM_WINDOW = 2**28
SETTINGS: dict[int, int] = {
    Setting.HEADER_TABLE_SIZE: 0,
    Setting.ENABLE_PUSH: 0,
    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
}
REFILL_AT = 2**30
REFILL = http2.window_update(http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW)
GREETING = http2.PREFACE + http2.settings(SETTINGS) + REFILL


class _GoneError(Exception):
    """The server takes no more calls on this connection."""


class Grpc:
    """Makes the connections of one load; each call goes to `path` ("/package.Service/Method")."""

    def __init__(
        self,
        address: Address,
        wires: Wires = Plain,
        *,
        authority: str,
        path: str,
        token: str = "",
        scheme: str = "http",
    ) -> None:
        headers = {
            ":method": "POST",
            ":scheme": scheme,
            ":path": path,
            ":authority": authority,
            "content-type": "application/grpc",
            "te": "trailers",
            "user-agent": "dlbench",
        } | ({"authorization": f"Bearer {token}"} if token else {})
        self._address, self._wires = address, wires
        self._block = http2.header_block((k.encode(), v.encode()) for k, v in headers.items())
        self._blocks = http2.Blocks()

    def __call__(self, loop: Any, owner: Owner) -> GrpcConnection:  # noqa: ANN401 - untyped
        """Raises OSError if no socket is available."""
        return GrpcConnection(loop, self._address, self._wires, owner, self._block, self._blocks)


class GrpcConnection(Connection):
    """A request is a message without its prefix; `block` holds the headers of every call."""

    __slots__ = (
        "_answers",
        "_block",
        "_blocks",
        "_fragments",
        "_frames",
        "_initial_window",
        "_largest_frame",
        "_pieces",
        "_received",
        "_result",
        "_status",
        "_stream",
        "_stream_window",
        "_unended",
        "_unsent",
        "_window",
    )

    def __init__(
        self,
        loop: Any,  # noqa: ANN401 - untyped
        address: Address,
        wires: Wires,
        owner: Owner,
        block: bytes,
        blocks: http2.Blocks,
    ) -> None:
        super().__init__(loop, address, wires, owner)
        self._outbox = GREETING
        self._block, self._blocks, self._frames = block, blocks, http2.Frames()
        # What the server has allowed to be sent, and in which frames.
        self._window = self._initial_window = self._stream_window = http2.DEFAULT_WINDOW
        self._largest_frame = http2.LARGEST_FRAME
        self._received = 0
        # Frames to be sent after those that have just been read.
        self._answers = b""
        # The call: what waits for a window, a header block that goes on, the reply so far.
        self._stream = -1
        self._unsent = memoryview(b"")
        self._unended, self._fragments = Http2Frame(Kind.HEADERS, 0, 0, b""), b""
        self._status = b""
        self._pieces: list[bytes] = []
        self._result: tuple[Result, bytes] | None = None

    def submit(self, request: Bytes, index: int, since_ns: int) -> None:
        """Make a call; its time-out counts from `since_ns`."""
        self._stream += 2
        if self._stream >= http2.LAST_STREAM:
            self.closing = True
        self._status, self._pieces, self._result = b"", [], None
        self._stream_window = self._initial_window
        self._unsent = memoryview(PREFIX.pack(0, len(request)) + request)
        opening = http2.frame(Kind.HEADERS, Flag.END_HEADERS, self._stream, self._block)
        super().submit(opening + self._data(), index, since_ns)

    def _data(self) -> bytes:
        """As much of the message as the server's windows have room for."""
        frames = []
        while self._unsent:
            room = min(self._window, self._stream_window, self._largest_frame)
            if room <= 0:
                break
            piece, self._unsent = self._unsent[:room], self._unsent[room:]
            self._window -= len(piece)
            self._stream_window -= len(piece)
            flags = 0 if self._unsent else Flag.END_STREAM
            frames.append(http2.frame(Kind.DATA, flags, self._stream, bytes(piece)))
        return b"".join(frames)

    def _on_readable(self) -> None:
        try:
            data = self._recv(CHUNK)
        except OSError as error:
            self._read_failed(error)
            return
        self._traffic[1] += len(data)
        if not data:
            self._end_early(bool(self._status))
            return
        try:
            for frame in self._frames.feed(data):
                HANDLERS.get(frame.kind, _ignore)(self, frame)
        except Http2Error as error:
            self.fail("bad_reply", f"{error}: {data.decode(errors='replace')}")
        except _GoneError as gone:
            self.fail("closed", str(gone))
        else:
            self._respond(monotonic_ns())

    def _respond(self, now_ns: int) -> None:
        if self._answers:
            answers, self._answers = self._answers, b""
            self._push(answers)
        # A push that failed has ended the call already.
        if self._result is not None and self.index != IDLE:
            result, self._result = self._result, None
            self._replied(self, result[0], now_ns, result[1])

    # --- frames -----------------------------------------------------------------------------------

    def _on_headers(self, frame: Http2Frame) -> None:
        block = http2.unpadded(frame.flags, frame.payload)
        if frame.flags & Flag.END_HEADERS:
            self._take_headers(frame, block)
        else:
            self._unended, self._fragments = frame, block

    def _on_continuation(self, frame: Http2Frame) -> None:
        self._fragments += frame.payload
        if frame.flags & Flag.END_HEADERS:
            self._take_headers(self._unended, self._fragments)

    def _take_headers(self, frame: Http2Frame, block: bytes) -> None:
        if not self._is_awaited(frame):
            return
        headers = self._blocks.read(block)
        self._status = headers.get(b":status", self._status)
        if frame.flags & Flag.END_STREAM:
            self._result = self._outcome(headers)

    def _on_data(self, frame: Http2Frame) -> None:
        self._received += len(frame.payload)
        if self._received > REFILL_AT:
            self._answers += http2.window_update(self._received)
            self._received = 0
        if not self._is_awaited(frame):
            return
        self._pieces.append(http2.unpadded(frame.flags & Flag.PADDED, frame.payload))
        if frame.flags & Flag.END_STREAM:
            self._result = self._outcome({})

    def _on_reset(self, frame: Http2Frame) -> None:
        if self._is_awaited(frame):
            reason = http2.reason(http2.read_number(frame.payload))
            kind = OF_RESET.get(reason, "grpc_internal")
            self._result = kind, f"RST_STREAM {reason}".encode()

    def _on_settings(self, frame: Http2Frame) -> None:
        if frame.flags & Flag.ACK:
            return
        for key, value in http2.read_settings(frame.payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif key == Setting.MAX_FRAME_SIZE:
                self._largest_frame = value
        self._answers += http2.frame(Kind.SETTINGS, Flag.ACK) + self._data()

    def _on_ping(self, frame: Http2Frame) -> None:
        if not frame.flags & Flag.ACK:
            self._answers += http2.frame(Kind.PING, Flag.ACK, 0, frame.payload)

    def _on_goaway(self, frame: Http2Frame) -> None:
        """The call under way is the last; a connection without one has nothing left to do."""
        last, number = http2.read_number(frame.payload), http2.read_number(frame.payload, 4)
        self.closing = True
        if self.index == IDLE or self._stream > last:
            debug = frame.payload[8:].decode(errors="replace")
            raise _GoneError(f"GOAWAY {http2.reason(number)} {debug}")

    def _on_window_update(self, frame: Http2Frame) -> None:
        size = http2.read_number(frame.payload)
        if not frame.stream:
            self._window += size
        elif frame.stream == self._stream:
            self._stream_window += size
        self._answers += self._data()

    def _on_promise(self, _frame: Http2Frame) -> None:
        raise Http2Error("a push that was declined")

    def _is_awaited(self, frame: Http2Frame) -> bool:
        """Whether it belongs to the call under way, not to an earlier one. Raises Http2Error."""
        if frame.stream > self._stream:
            raise Http2Error("a reply to a call that was never made")
        return frame.stream == self._stream and self._result is None

    # --- the end of a call ------------------------------------------------------------------------

    def _outcome(self, trailers: dict[bytes, bytes]) -> tuple[Result, bytes]:
        status = trailers.get(b"grpc-status", b"")
        if status == b"0":
            return self._message()
        if status.isdigit():
            number = int(status)
            name = STATUSES[number] if number < len(STATUSES) else str(number)
            return f"grpc_{name}", unquote(trailers.get(b"grpc-message", b"")).encode()
        if self._status.isdigit() and self._status != b"200":
            return int(self._status), b"".join(self._pieces)
        return "bad_reply", b"a reply without grpc-status"

    def _message(self) -> tuple[Result, bytes]:
        body = b"".join(self._pieces)
        if len(body) < PREFIX.size or PREFIX.unpack_from(body) != (0, len(body) - PREFIX.size):
            return "bad_reply", b"not one uncompressed message: " + body
        return 200, body[PREFIX.size :]


def _ignore(_connection: GrpcConnection, _frame: Http2Frame) -> None:
    """Frames of other kinds are ignored (RFC 9113, 4.1)."""


HANDLERS: dict[int, Callable[[GrpcConnection, Http2Frame], None]] = {
    Kind.DATA: GrpcConnection._on_data,
    Kind.HEADERS: GrpcConnection._on_headers,
    Kind.RST_STREAM: GrpcConnection._on_reset,
    Kind.SETTINGS: GrpcConnection._on_settings,
    Kind.PUSH_PROMISE: GrpcConnection._on_promise,
    Kind.PING: GrpcConnection._on_ping,
    Kind.GOAWAY: GrpcConnection._on_goaway,
    Kind.WINDOW_UPDATE: GrpcConnection._on_window_update,
    Kind.CONTINUATION: GrpcConnection._on_continuation,
}
