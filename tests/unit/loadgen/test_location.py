import pytest

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.location import locate
from dlbench.loadgen.profile import LoadProfile


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8000", ("http://h:8000", "v2", None, None)),
        ("http://h:8000/", ("http://h:8000", "v2", None, None)),
        ("h:8000", ("http://h:8000", "v2", None, None)),
        ("http://h", ("http://h:80", "v2", None, None)),
        ("https://h", ("https://h:443", "v2", None, None)),
        ("http://h:8000/v2", ("http://h:8000", "v2", None, None)),
        ("http://h:8000/v2/models/m", ("http://h:8000", "v2", "m", None)),
        ("http://h:8000/v2/models/m/", ("http://h:8000", "v2", "m", None)),
        ("http://h:8000/v2/models/m/versions/3", ("http://h:8000", "v2", "m", "3")),
        ("http://h:8000/v2/models/m/infer", ("http://h:8000", "v2", "m", None)),
        ("http://[::1]:8000", ("http://[::1]:8000", "v2", None, None)),
        ("http://h:8501/v1/models/m", ("http://h:8501", "tfserving", "m", None)),
        ("http://h:8501/v1/models/m:predict", ("http://h:8501", "tfserving", "m", None)),
        ("h:8501/v1/models/m/versions/2", ("http://h:8501", "tfserving", "m", "2")),
        ("http://h:8080/predictions/m", ("http://h:8080", "torchserve", "m", None)),
        ("http://h:8080/predictions/m/1.0", ("http://h:8080", "torchserve", "m", "1.0")),
        ("grpc://h:8001", ("grpc://h:8001", "grpc", None, None)),
        ("grpcs://h:8001/m", ("grpcs://h:8001", "grpc", "m", None)),
        ("grpc://h:8001/v2/models/m/versions/3", ("grpc://h:8001", "grpc", "m", "3")),
    ],
)
def test_urls(url, expected):
    found = locate(url, LoadProfile())
    assert (found.base, found.protocol, found.model, found.version) == expected


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        *((url, "auto") for url in ("", "ftp://h", "http://", "http://h:x", "http://h:99999")),
        ("http://h/v1/m", "auto"),
        ("http://h/a b", "plain"),
        ("http://h/predict", "v2"),
        ("http://h:8000", "grpc"),
        ("grpc://h:8001", "v2"),
        ("http://h/v2/models/m", "tfserving"),
    ],
)
def test_urls_that_are_none(url, protocol):
    with pytest.raises(TargetError) as caught:
        locate(url, LoadProfile(protocol=protocol))
    assert "\n" not in str(caught.value)


def test_a_path_of_its_own_is_for_plain_json():
    for profile in (LoadProfile(protocol="plain"), LoadProfile(template='{"a": $a}')):
        assert locate("http://h:1/a/b?c=1", profile).path == "/a/b?c=1"
    with pytest.raises(TargetError, match="--protocol plain"):
        locate("http://h:1/a/b", LoadProfile())


def test_a_model_s_name_is_read_as_it_is():
    """A URL writes a blank, a hash and the like as %20, %23."""
    found = locate("http://h:1/v2/models/re%20c%231%3F%25'%0A", LoadProfile())
    assert found.model == "re c#1?%'\n"
