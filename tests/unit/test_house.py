"""The house itself: what is packaged, and which way imports run."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "doctor", "loadgen", "proxy", "results", "tuner")
ROOMS = [init.parent for name in PACKAGES for init in (ROOT / name).rglob("__init__.py")]
BENCHMARKS = [folder for folder in (ROOT / "benchmarks").iterdir() if any(folder.glob("*.py"))]
TESTS = [folder for folder in (ROOT / "tests").rglob("*") if any(folder.glob("*.py"))]
MOST_MODULES = 16
# Each process has its `main` and each package its tree of `errors`. What is spoken on a wire is
# implemented on either side of it, and the proxy and its load generator share no code. A command's
# file is called as the command.
SAME_THING = {
    *("main", "errors"),
    *("v2", "tfserving", "torchserve", "plain", "tls", "json_text", "tensors"),
    "worker",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules(room):
    return [file for file in room.glob("*.py") if file.stem not in ("__init__", "conftest")]


def test_every_package_of_the_tree_is_in_the_wheel():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    tree = {room.relative_to(ROOT).as_posix() for room in ROOMS}
    assert {f"dlbench.{name.replace('/', '.')}" for name in tree} == set(listed)
    assert not (ROOT / "__init__.py").exists()  # a namespace: the root belongs to nobody


def test_a_listing_of_two_levels_tells_the_architecture():
    """A room's name says what lives there, and it is small enough to be read at a glance."""
    crowded = [room for room in [*ROOMS, *BENCHMARKS, *TESTS] if len(modules(room)) > MOST_MODULES]
    assert crowded == []


def test_each_room_says_what_it_decides_and_what_it_must_not_know():
    texts = {r: " ".join((r / "__init__.py").read_text().split()) for r in ROOMS}
    says = ("It decides", "must not")
    silent = [r for r, text in texts.items() if not all(word in text for word in says)]
    assert silent == []


def test_no_name_means_two_things():
    """A stem stands once, but for what several parts have of their own: see `SAME_THING`."""
    stems = Counter(file.stem for room in ROOMS for file in modules(room))
    assert {stem for stem, times in stems.items() if times > 1} <= SAME_THING


def test_the_architecture_names_files_that_are_there():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    there = {file.name for room in ROOMS for file in modules(room)} | {
        "__init__.py",
        "test_house.py",
    }
    assert set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", text)) <= there
    rooms = {room.name for room in ROOMS}
    assert set(re.findall(r"\*\*`(?:\w+/)?(\w+)/`\*\*", text)) == rooms - set(PACKAGES) | {"doctor"}


def test_the_benchmarks_are_listed_by_room():
    """A table for each folder, and each of its files in it."""
    parts = re.split(
        r"^\*\*(\w+)/\*\*", (ROOT / "benchmarks" / "README.md").read_text(), flags=re.M
    )
    listed = {
        room: set(re.findall(r"`(\w+\.\w+)`", text))
        for room, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    assert listed == {
        folder.name: {file.name for file in folder.iterdir() if file.is_file()}
        for folder in BENCHMARKS
    }


def test_every_dependency_has_its_reason():
    reasons = (ROOT / "CONTRIBUTING.md").read_text()
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["dev"]]
    names = {re.split(r"[\[;<>= ]", line)[0] for line in wanted}
    assert [n for n in sorted(names - {"dlbench"}) if n not in reasons] == []


def test_imports_run_one_way():
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["dlbench.cli.main", "dlbench.tuner.run", "dlbench.proxy.main"])
def test_nothing_heavy_or_patching_is_imported_by_the_controllers(module):
    """Importing locust would patch the process; importing onnxruntime would cost every start."""
    code = f"import sys, {module}; print([m for m in ('locust', 'gevent', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
