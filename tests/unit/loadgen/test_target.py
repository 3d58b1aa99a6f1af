import pytest

from dlbench.loadgen.discovery import split_url
from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8000", ("http://h:8000", None, None)),
        ("http://h:8000/", ("http://h:8000", None, None)),
        ("h:8000", ("http://h:8000", None, None)),
        ("http://h", ("http://h:80", None, None)),
        ("http://h:8000/v2", ("http://h:8000", None, None)),
        ("http://h:8000/v2/models/m", ("http://h:8000", "m", None)),
        ("http://h:8000/v2/models/m/", ("http://h:8000", "m", None)),
        ("http://h:8000/v2/models/m/versions/3", ("http://h:8000", "m", "3")),
        ("http://[::1]:8000", ("http://[::1]:8000", None, None)),
    ],
)
def test_urls(url, expected):
    assert split_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "https://h", "http://", "http://h:x", "http://h:99999", "http://h/v1/m"]
)
def test_urls_that_are_none(url):
    with pytest.raises(TargetError):
        split_url(url)


def target():
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 4), batch_axis=0)
    return Target(
        url="http://127.0.0.1:8000",
        model="m",
        path="/v2/models/m/versions/2/infer",
        inputs=(spec,),
        supports_binary=True,
    )


def test_the_same_model_elsewhere():
    moved = target().at("http://[::1]:9/")
    assert (moved.host, moved.port, moved.path) == ("::1", 9, "/v2/models/m/versions/2/infer")


@pytest.mark.parametrize(
    ("encoding", "binary"), [("auto", True), ("json", False), ("binary", True)]
)
def test_the_profile_has_the_last_word_on_encoding(encoding, binary):
    assert target().uses_binary(LoadProfile(encoding=encoding)) is binary
