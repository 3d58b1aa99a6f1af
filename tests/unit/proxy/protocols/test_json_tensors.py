"""Numbers in JSON to a tensor's bytes and back: exactly, or refused with the tensor's name."""

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.json_tensors import pack, unpack
from dlbench.proxy.tensors import DATATYPES, Tensor, TensorSpec

FLOATS = {"FP16": 16, "FP32": 32, "FP64": 64}


@st.composite
def tensors(draw):
    """A spec of any datatype and an array for it, of up to three axes."""
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    dtype = np.dtype(DATATYPES[datatype][0])
    if datatype in FLOATS:
        element = st.floats(width=FLOATS[datatype], allow_nan=False, allow_infinity=False)
    elif datatype == "BOOL":
        element = st.booleans()
    else:
        info = np.iinfo(dtype)
        element = st.integers(int(info.min), int(info.max))
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    values = draw(st.lists(element, min_size=(n := int(np.prod(shape))), max_size=n))
    spec = TensorSpec("x", datatype, ("",) * len(shape))
    return spec, np.array(values, dtype=dtype).reshape(shape)


def written(values):
    return orjson.loads(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))


@settings(max_examples=80, deadline=None)
@given(tensors(), st.booleans())
def test_values_come_and_go_exactly(case, flat):
    spec, array = case
    data = written(array.ravel().tolist() if flat else array.tolist())
    packed = pack(spec, data, array.shape)
    assert packed == array.tobytes()
    back = written(unpack(spec, Tensor(array.shape, packed)))
    assert np.array(back, array.dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("datatype", "data", "says"),
    [
        ("FP32", ["1", "2"], "is FP32; its data contains a string"),
        ("FP32", [None, 1], "is FP32; its data contains null; write NaN"),
        ("FP32", [True, False], "is FP32; its data contains true or false"),
        ("FP32", [{"b64": "AA=="}, 1], "is FP32; its data contains an object"),
        ("INT32", [1.0, 2.0], "is INT32; its data contains a float"),
        ("BOOL", [1, 0], "is BOOL; its data contains an integer"),
        ("FP32", [[1], [1, 2]], "nested evenly"),
        ("FP32", [1e39, 1], "does not fit FP32"),
        ("INT8", [128, 1], "does not fit INT8"),
        ("UINT8", [-1, 1], "does not fit UINT8"),
        ("UINT64", [2**64, 1], "does not fit UINT64"),
        ("FP32", [1, 2, 3], "needs 2 values, not 3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(datatype, data, says):
    with pytest.raises(BadRequest, match=says) as refused:
        pack(TensorSpec("x", datatype, (2,)), data, (2,))
    assert "'x'" in str(refused.value)
