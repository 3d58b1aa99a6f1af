"""Frames between the front and a worker, however the socket cuts them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.tensors import Tensor
from dlbench.proxy.workers import frames

# Frames may be smaller than the room that they share, just as large, or much larger.
ROOM_BYTES = 64
FRAMES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=30),
        st.binary(max_size=200),
    ),
    max_size=6,
)


def read(stream, cuts=(1 << 30,), room_bytes=ROOM_BYTES):
    """All frames of a stream that arrives in pieces of these sizes, over and over."""
    reader, found, position, turn = frames.FrameReader(room_bytes), [], 0, 0
    while position < len(stream):
        room = reader.room()
        size = min(cuts[turn % len(cuts)], len(room), len(stream) - position)
        room[:size] = stream[position : position + size]
        found += reader.received(size)
        position, turn = position + size, turn + 1
    return found


@settings(max_examples=80, deadline=None)
@given(FRAMES, st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_frames_survive_any_chunking(sent, cuts):
    stream = b"".join(
        b"".join(frames.encode(kind, number, layout, [data], len(data)))
        for kind, number, layout, data in sent
    )
    assert read(stream, cuts) == sent


SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_batches_and_results_round_trip(shapes, rows, data):
    sizes = data.draw(
        st.lists(st.sampled_from([1, 2, 4, 8]), min_size=len(shapes), max_size=len(shapes))
    )
    tensors = []
    for index, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
        for axis in shape:
            size *= axis
        tensors.append(Tensor(shape, bytes([index + 1]) * size))
    pieces = [tensor.data for tensor in tensors]
    (frame,) = read(b"".join(frames.encode_batch(7, rows, shapes, pieces)))
    assert (frame.kind, frame.number) == (frames.BATCH, 7)
    assert frames.decode_batch(frame.layout) == (tuple(rows), tuple(shapes))
    assert frame.data == b"".join(pieces)

    times = (1, 123456789012, 3)
    size = sum(map(len, pieces))
    (frame,) = read(b"".join(frames.encode_result(8, times, tuple(shapes), pieces, size)))
    assert (frame.kind, frame.number) == (frames.RESULT, 8)
    assert frames.decode_result(frame, tuple(sizes)) == (*times, tuple(tensors))


def test_data_stays_as_it_was_when_more_frames_arrive():
    sizes = [3, 40, 300, 5, frames.ROOM_BYTES, 8]
    texts = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    stream = b"".join(
        b"".join(frames.encode_text(frames.FAILURE, index, text))
        for index, text in enumerate(texts)
    )
    for room_bytes in (ROOM_BYTES, frames.ROOM_BYTES):
        found = read(stream, [1000], room_bytes)
        assert [frame.data for frame in found] == texts


def test_a_frame_may_be_larger_than_four_gibibytes():
    head = frames.encode(frames.BATCH, 1, b"", [], 5 << 30)[0]
    assert frames.HEAD.unpack(head)[0] > 5 << 30
