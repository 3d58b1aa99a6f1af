"""The cache's keys: equal exactly for requests with equal answers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache.cache_key import KEY_BYTES, KeyMaker
from dlbench.proxy.request import WantedOutput, all_outputs, lay_out, make_request
from dlbench.proxy.tensors import Signature, TensorSpec

SHAPES = [(), (1,), (2,), (3,), (4,), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4), (0,), (0, 2)]
DATATYPES = ["UINT8", "INT8", "BOOL", "UINT16"]


@st.composite
def signatures(draw):
    """Models of one to three inputs without a batch axis, so that every shape goes with every other."""
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    inputs = tuple(TensorSpec(name, draw(st.sampled_from(DATATYPES)), ()) for name in names)
    return Signature(inputs, tuple(TensorSpec(n, "UINT8", ()) for n in "uvw"), batchable=False)


@st.composite
def requests(draw):
    """Few bytes and many shapes, so that equal bytes meet under different descriptions."""
    signature = draw(signatures())
    shapes = tuple(draw(st.sampled_from(SHAPES)) for _ in signature.inputs)
    sizes = [
        spec.item_size * math.prod(shape)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
    ]
    data = tuple(bytes(draw(st.sampled_from([0, 1])) for _ in range(size)) for size in sizes)
    indices = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    wanted = tuple(WantedOutput(index, draw(st.booleans())) for index in indices)
    layout = lay_out(signature, shapes, wanted, draw(st.sampled_from([None, "1", "2"])))
    return signature, make_request(signature, layout, data)


def identity(signature):
    """A model as its proxy names it: another signature is another model."""
    return repr(signature).encode()


def key(signature, request):
    return KeyMaker(identity(signature)).key(request)


def meaning(signature, request):
    """Everything that the answer depends on, spelled out."""
    tensors = [
        (spec.name, spec.datatype, shape, data)
        for spec, shape, data in zip(
            signature.inputs, request.layout.shapes, request.data, strict=True
        )
    ]
    return tensors, [wanted.place for wanted in request.layout.wanted]


@settings(max_examples=400, deadline=None)
@given(requests(), requests())
def test_keys_are_equal_exactly_when_the_requests_mean_the_same(one, other):
    assert (key(*one) == key(*other)) == (meaning(*one) == meaning(*other))
    assert len(key(*one)) == KEY_BYTES


@settings(max_examples=200, deadline=None)
@given(requests(), st.data())
def test_any_one_change_makes_another_key(asked, data):
    """Pairs that differ in one thing alone, which two random requests seldom are."""
    signature, request = asked
    layout = request.layout
    place = data.draw(st.integers(0, len(signature.inputs) - 1))
    change = data.draw(st.sampled_from(["shape", "name", "datatype", "output", "bytes"]))
    inputs, shapes, wanted = list(signature.inputs), list(layout.shapes), layout.wanted
    pieces = list(request.data)
    spec = inputs[place]
    if change == "shape":
        shapes[place] = (1, *shapes[place])
    elif change == "name":
        inputs[place] = TensorSpec("z", spec.datatype, spec.dims)
    elif change == "datatype":
        other = {"UINT8": "INT8", "INT8": "BOOL", "BOOL": "UINT8", "UINT16": "INT16"}[spec.datatype]
        inputs[place] = TensorSpec(spec.name, other, spec.dims)
    elif change == "output":
        wanted = (WantedOutput(3, binary=True), *wanted)
    else:
        pieces[place] = pieces[place] + b"\0"
    changed = Signature(tuple(inputs), signature.outputs, batchable=False)
    other = make_request(changed, lay_out(changed, tuple(shapes), wanted), tuple(pieces))
    assert key(changed, other) != key(signature, request)


@given(requests())
def test_the_same_request_has_the_same_key_in_every_proxy(asked):
    signature, request = asked
    maker = KeyMaker(identity(signature))
    assert maker.key(request) == maker.key(request) == key(signature, request)


def bytes_request(*pieces):
    signature = Signature(
        tuple(TensorSpec(f"x{i}", "UINT8", ("n",)) for i in range(len(pieces))),
        (TensorSpec("y", "UINT8", ("n",)),),
        batchable=False,
    )
    layout = lay_out(signature, ((4,),) * len(pieces), all_outputs(signature, binary=True))
    return make_request(signature, layout, pieces)


def test_another_model_has_other_keys():
    request = bytes_request(b"x")
    assert KeyMaker(b"m/1").key(request) != KeyMaker(b"n/1").key(request)


@pytest.mark.parametrize(
    ("one", "other"), [((b"ab", b"c"), (b"a", b"bc")), ((b"ab", b""), (b"", b"ab"))]
)
def test_bytes_moved_between_tensors_make_another_key(one, other):
    maker = KeyMaker(b"m")
    assert maker.key(bytes_request(*one)) != maker.key(bytes_request(*other))


def test_the_kind_of_buffer_does_not_matter():
    maker = KeyMaker(b"m")
    kinds = (bytes, bytearray, memoryview)
    assert len({maker.key(bytes_request(kind(b"ab"))) for kind in kinds}) == 1
