"""Builders as fixtures: importlib mode has no package to import them from."""

import importlib.util
from pathlib import Path

import pytest


def _load():
    path = Path(__file__).parent / "tuner" / "builders.py"
    spec = importlib.util.spec_from_file_location("tuner_builders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build():
    return _load()
