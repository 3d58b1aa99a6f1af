"""The house itself: what is packaged, and which way imports run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_of_the_tree_is_in_the_wheel():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    tree = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")}
    assert {f"dlbench.{name.replace('/', '.')}" for name in tree} == set(listed)
    assert not (ROOT / "__init__.py").exists()  # a namespace: the root belongs to nobody


def test_packages_are_flat():
    assert not [
        p for name in ("cli", "proxy", "loadgen", "tuner") for p in ROOT.glob(f"{name}/*/*.py")
    ]


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
