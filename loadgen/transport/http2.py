"""HTTP/2 without I/O (RFC 9113), as far as one call at a time needs it: frames and header blocks.

Header blocks (HPACK, RFC 7541) carry no state here: what is sent is literal, and what comes is
self-contained since SETTINGS announces a table of size 0. So a block that was seen before is known
by its bytes, and hpack reads the others.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from hpack import Decoder, HPACKError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = Struct(">HBBBI")  # length (16 high bits, 8 low ones), type, flags, stream
HEAD_SIZE = 9
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = LAST_STREAM = 2**31 - 1
LARGEST_FRAME = 16_384  # unless a setting says otherwise; ours does not
BLOCKS_LIMIT = 1024


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    """Flags of frames; ACK is SETTINGS' and PING's name for the bit of END_STREAM.

    Plain numbers: an IntFlag takes a microsecond for every `&`.
    """

    END_STREAM = ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Identifiers of the settings that matter to a client of one call at a time."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


# Reasons of RST_STREAM and GOAWAY, by their number.
REASONS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


class Http2Error(Exception):
    """These bytes are not HTTP/2, or not what was agreed upon."""


class Http2Frame(NamedTuple):
    """A complete frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items()
    )
    return frame(Kind.SETTINGS, payload=payload)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings in a SETTINGS frame. Raises Http2Error."""
    if len(payload) % 6:
        raise Http2Error("SETTINGS of a wrong size")
    for at in range(0, len(payload), 6):
        yield int.from_bytes(payload[at : at + 2], "big"), read_number(payload, at + 2)


def read_number(payload: bytes, at: int = 0) -> int:
    """31 bits of a payload; the bit before them is reserved. Raises Http2Error."""
    if len(payload) < at + 4:
        raise Http2Error("a frame that is too short")
    return int.from_bytes(payload[at : at + 4], "big") & LARGEST_WINDOW


def window_update(size: int, stream: int = 0) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the whole connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reason(number: int) -> str:
    """The name of an error code."""
    return REASONS[number] if number < len(REASONS) else f"error {number}"


def unpadded(flags: int, payload: bytes) -> bytes:
    """What HEADERS or DATA carry, without padding and priority. Raises Http2Error."""
    start, end = 0, len(payload)
    if flags & Flag.PADDED:
        start, end = 1, end - (payload[0] if payload else 0)
    if flags & Flag.PRIORITY:
        start += 5
    if start > end:
        raise Http2Error("more padding than frame")
    return payload[start:end]


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as HPACK literals that are not indexed (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)


def _string(value: bytes) -> bytes:
    """A string with its length, not Huffman-coded (RFC 7541, 5.1 and 5.2)."""
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    length = bytearray((127,))
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + value


class Frames:
    """Splits incoming bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Http2Frame]:
        """The frames that these bytes complete. Raises Http2Error for one that is too large."""
        if self._rest:
            data = self._rest + data
        found, at, end = [], 0, len(data)
        while end - at >= HEAD_SIZE:
            high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > LARGEST_FRAME:
                raise Http2Error("a frame that is too large: this is not HTTP/2")
            start, stop = at + HEAD_SIZE, at + HEAD_SIZE + size
            if stop > end:
                break
            found.append(Http2Frame(kind, flags, stream & LARGEST_WINDOW, data[start:stop]))
            at = stop
        self._rest = data[at:]
        return found


class Blocks:
    """Header blocks seen before, decoded."""

    def __init__(self) -> None:
        self._known: dict[bytes, dict[bytes, bytes]] = {}

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """The headers of a block. Raises Http2Error."""
        known = self._known.get(block)
        return self._learn(block) if known is None else known

    def _learn(self, block: bytes) -> dict[bytes, bytes]:
        decoder = Decoder()
        decoder.max_allowed_table_size = decoder.header_table_size = 0
        try:
            headers = dict(decoder.decode(block, raw=True))
        except HPACKError as error:
            raise Http2Error(f"a header block that cannot be read: {error}") from None
        # A server that puts an id into every reply must not fill the memory.
        if len(self._known) >= BLOCKS_LIMIT:
            self._known.clear()
        self._known[block] = headers
        return headers
