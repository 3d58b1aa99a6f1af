"""What a quota pays for, in made-up trees (tests/contract/test_quotas.py) and in a real group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.proxy.quota import whole_cores

CGROUP = Path("/sys/fs/cgroup")
ASK = "from dlbench.proxy.config import ServingConfig as C; print(C().resolved('cpu').workers)"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(0.01, 1), (0.5, 1), (1.0, 1), (1.5, 1), (1.99, 1), (2.0, 2), (2.5, 2), (64.0, 64)],
)
def test_a_part_of_a_core_is_no_core_but_there_is_always_one(quota, cores):
    assert whole_cores(quota) == cores


@pytest.fixture
def joined():
    """Two groups, one in the other, the outer one with a quota of 1.5 cores; the file to join by."""
    v1 = (CGROUP / "cpu" / "tasks").exists()
    outer = (CGROUP / "cpu" if v1 else CGROUP) / f"dlbench-test-{os.getpid()}"
    inner = outer / "inner"
    quotas = {"cpu.cfs_quota_us": "150000"} if v1 else {"cpu.max": "150000 100000"}
    try:
        inner.mkdir(parents=True)
        for name, text in quotas.items():
            (outer / name).write_text(text)
    except OSError as error:
        _remove(inner, outer)
        pytest.skip(f"no control group can be made here: {error}")
    yield inner / "cgroup.procs"
    _remove(inner, outer)


def _remove(*groups):
    for group in groups:
        if group.exists():
            group.rmdir()


def test_a_real_group_s_quota_is_what_serve_starts_workers_for(joined):
    join = f"open({str(joined)!r}, 'w').write('0'); "
    done = subprocess.run([sys.executable, "-c", join + ASK], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
