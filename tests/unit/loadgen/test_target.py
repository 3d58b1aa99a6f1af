import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec


def target(**changes):
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 4), batch_axis=0)
    given = {
        "url": "http://127.0.0.1:8000",
        "model": "m",
        "path": "/v2/models/m/versions/2/infer",
        "inputs": (spec,),
        "supports_binary": True,
    }
    return Target(**{**given, **changes})


def test_the_same_model_elsewhere():
    moved = target().at("https://[::1]:9/")
    assert (moved.host, moved.port, moved.authority, moved.tls) == ("::1", 9, "[::1]:9", True)
    assert moved.path == "/v2/models/m/versions/2/infer"
    assert not target().tls


def test_it_travels():
    assert Target.model_validate_json(target().model_dump_json()) == target()


@pytest.mark.parametrize(
    ("encoding", "binary"), [("auto", True), ("json", False), ("binary", True)]
)
def test_the_profile_has_the_last_word_on_encoding(encoding, binary):
    assert target().uses_binary(LoadProfile(encoding=encoding)) is binary
