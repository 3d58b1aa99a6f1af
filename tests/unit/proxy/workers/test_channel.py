"""A worker's end of the socket."""

import socket

import numpy as np
import pytest

from dlbench.proxy.workers import channel as channels
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.channel import ALIGNMENT, Channel


@pytest.fixture
def ends(monkeypatch):
    monkeypatch.setattr(channels, "FIRST_BYTES", 64)
    monkeypatch.setattr(channels, "KEPT_BYTES", 1024)
    front, worker = socket.socketpair()
    with front, worker:
        yield front, Channel(worker)


def send(front, number, layout, data):
    front.sendall(b"".join(frames.encode(frames.BATCH, number, layout, [data], len(data))))


def test_frames_of_any_size_arrive(ends):
    front, channel = ends
    random = np.random.default_rng(2)
    for number, size in enumerate([0, 1, 64, 65, 3, 900, 5000, 10, 1500, 1400, 0]):
        layout, data = random.bytes(number * 20), random.bytes(size)
        send(front, number, layout, data)
        arrival = channel.receive()
        assert (arrival.number, arrival.layout, arrival.size) == (number, layout, size)
        assert arrival.room[:size].tobytes() == data


def test_data_begin_at_the_same_aligned_place_until_more_room_is_needed(ends):
    front, channel = ends
    rooms = []
    for layout_size, size in [(3, 10), (50, 64), (0, 1), (7, 65), (7, 100), (70, 2)]:
        send(front, 1, bytes(layout_size), bytes(size))
        rooms.append(channel.receive().room)
    assert rooms[0] is rooms[1] is rooms[2]
    assert rooms[2] is not rooms[3]
    assert rooms[3] is rooms[4]
    assert not any(room.ctypes.data % ALIGNMENT for room in rooms)


def test_the_room_of_one_huge_frame_is_given_back(ends):
    front, channel = ends
    sizes = []
    for size in (1000, 5000, 6000, 1000, 10):
        send(front, 1, b"", bytes(size))
        sizes.append(len(channel.receive().room))
    assert sizes == [1024, 8192, 8192, 1024, 1024]


@pytest.mark.parametrize("cut", [0, 5, frames.HEAD.size, -1])
def test_a_socket_that_ends_ends_the_frames(ends, cut):
    front, channel = ends
    frame = b"".join(frames.encode(frames.BATCH, 1, b"layout", [b"data"], 4))
    front.sendall(frame[:cut])
    front.shutdown(socket.SHUT_WR)
    assert channel.receive() is None


def test_several_pieces_leave_as_one_frame(ends):
    front, channel = ends
    pieces = [memoryview(np.arange(3.0)), b"", memoryview(np.array(True))]
    channel.send(frames.encode(frames.RESULT, 1, b"", pieces, 25))
    expected = np.arange(3.0).tobytes() + b"\1"
    assert front.recv(100)[frames.HEAD.size :] == expected


def test_a_send_that_was_cut_short_goes_on():
    class Interrupted(socket.socket):
        """A signal arrives after the first piece."""

        def sendmsg(self, pieces):
            return super().sendmsg(pieces[:1])

    front, worker = socket.socketpair()
    with front, Interrupted(fileno=worker.detach()) as interrupted:
        frame = frames.encode(frames.RESULT, 1, b"layout", [b"one", b"two"], 6)
        Channel(interrupted).send(frame)
        assert front.recv(100) == b"".join(frame)


def test_a_front_that_is_gone_ends_the_process(ends):
    front, channel = ends
    front.close()
    with pytest.raises(SystemExit) as ended:
        channel.send(frames.encode_text(frames.FAILURE, 1, b"nobody hears"))
    assert ended.value.code == 0
