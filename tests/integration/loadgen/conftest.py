"""The generator and what it is tried on, as processes that a module's tests share."""

import pytest

from dlbench.loadgen.control.generator import Generator
from testbed.servers import null_server


@pytest.fixture(scope="module")
def generator():
    with Generator() as generator:
        yield generator


@pytest.fixture(scope="module")
def url():
    with null_server() as url:
        yield url
