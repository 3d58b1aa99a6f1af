import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.protocols.digits import Place, Stamped
from dlbench.loadgen.protocols.encode import PLACES_LIMIT, joined, json_tensor, raw_tensor
from dlbench.loadgen.tensors import DATATYPES

shapes = st.lists(st.integers(1, 6), max_size=4) | st.just([2, 0])
datatypes = st.sampled_from(sorted(DATATYPES))


def sample(datatype, shape):
    count = int(np.prod(shape, dtype=int))
    if datatype == "BYTES":
        items = [b"%08d" % number for number in range(count)]
        return np.array([*items, None], object)[:-1].reshape(shape)
    rng = np.random.default_rng(count)
    values = rng.random(count) if datatype.startswith("FP") else rng.integers(0, 2, count)
    return values.astype(DATATYPES[datatype]).reshape(shape)


@given(datatypes, shapes)
def test_json_is_read_back_in_its_shape(datatype, shape):
    array = sample(datatype, shape)
    body = json_tensor(array, datatype, shape)
    found = np.array(orjson.loads(body.content))
    assert found.shape == tuple(shape)
    if datatype == "BYTES":
        assert [text.encode() for text in found.ravel()] == array.ravel().tolist()
    else:
        assert np.allclose(found.astype(float), array.astype(float), atol=1e-3)


@given(datatypes, st.lists(st.integers(1, 6), max_size=4), st.integers(0, 2**40))
def test_digits_lie_where_the_first_elements_are(datatype, shape, number):
    """Stamped JSON and stamped raw bytes show the number in the same elements, and no others."""
    array = sample(datatype, shape)
    for tensor in (json_tensor(array, datatype, shape), raw_tensor(array, datatype)):
        assert len(tensor.places) == min(array.size, PLACES_LIMIT)
    body = joined(b'{"a":', json_tensor(array, datatype, shape), b"}")
    stamped = Stamped(body.content, [Place(*place) for place in body.places]).show(number)
    assert len(stamped) == len(body.content)
    assert np.array(orjson.loads(stamped)["a"]).shape == tuple(shape)
    for digit, at in body.places:
        number, shown = divmod(number, digit.base)
        assert stamped[at : at + digit.width] == digit.render(shown)
        if not number:
            break


@given(st.lists(st.one_of(st.binary(max_size=4), st.integers(0, 3)), max_size=6))
def test_places_move_along_when_bodies_are_joined(parts):
    array = np.zeros(3, np.float32)
    pieces = [p if isinstance(p, bytes) else raw_tensor(array[:p], "FP32") for p in parts]
    for digit, at in joined(*pieces).places:
        assert joined(*pieces).content[at : at + digit.width] == bytes(4)
