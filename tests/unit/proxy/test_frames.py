"""Frames between the front and a worker, however the socket cuts them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy import frames
from dlbench.proxy.tensors import Tensor

FRAMES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2**32 - 1), st.binary(max_size=30)), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(FRAMES, st.lists(st.integers(1, 17), min_size=1, max_size=20))
def test_frames_survive_any_chunking(sent, cuts):
    stream = b"".join(b"".join(frames.encode(k, n, [body])) for k, n, body in sent)
    reader, found, position, turn = frames.Reader(), [], 0, 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += [(k, n, bytes(b)) for k, n, b in reader.feed(stream[position : position + size])]
        position, turn = position + size, turn + 1
    assert found == sent


SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
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
    batch = b"".join(frames.encode_batch(7, rows, shapes, [t.data for t in tensors]))
    ((kind, number, body),) = frames.Reader().feed(batch)
    assert (kind, number) == (frames.BATCH, 7)
    assert frames.decode_batch(body, sizes) == frames.Batch(tuple(rows), tuple(tensors))
    result = b"".join(frames.encode_result(8, 123456789012, tensors))
    ((kind, number, body),) = frames.Reader().feed(result)
    assert (kind, number) == (frames.RESULT, 8)
    assert frames.decode_result(body, sizes) == frames.Result(123456789012, tuple(tensors))


def test_a_frame_may_be_larger_than_four_gibibytes():
    class Huge:
        def __len__(self):
            return 5 << 30

    head = frames.encode(frames.BATCH, 1, [Huge()])[0]
    assert frames.HEAD.unpack(head)[0] > 5 << 30
