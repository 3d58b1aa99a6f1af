"""A disk that is full, by a limit on the size of files: what is there stays, one line says why."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.tuner.storage.study import Identity, Study

# Room for what is there, and for so many bytes more in every file.
LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from testbed import made
from dlbench.tuner.errors import NotKept
from dlbench.tuner.storage.study import Identity, Study
path = Path(sys.argv[2])
study = Study.create_or_resume(path, Identity({"seed": 0})) if sys.argv[3] == "record" else None
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size if study else 1024,) * 2)
try:
    if study is None:
        Study.create_or_resume(path, Identity({"seed": 0}))
    for number in range(200):
        study.record(made.point(failure="x" * 2000))
except NotKept as error:
    print(error)
"""


def limited(path, what):
    here = str(Path(__file__).parents[3])
    command = [sys.executable, "-B", "-c", LIMITED, here, str(path), what]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_a_point_that_cannot_be_kept_is_one_line_and_harms_none_before_it(tmp_path):
    done = limited(tmp_path / "a.db", "record")
    assert done.stderr == ""
    assert done.stdout.startswith(f"{tmp_path / 'a.db'}: cannot be written: ")
    assert done.stdout.count("\n") == 1
    study = Study.create_or_resume(tmp_path / "a.db", Identity({"seed": 0}))
    assert all(point.failure == "x" * 2000 for point in study.points())


def test_a_study_that_cannot_be_made_leaves_no_file(tmp_path):
    done = limited(tmp_path / "a.db", "make")
    assert done.stderr == ""
    assert "a.db: cannot be written: " in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_result_is_written_whole_or_not_at_all(tmp_path, before):
    """What was there stays as it was; no draft lies about."""
    target = tmp_path / "r.csv"
    if before is not None:
        target.write_bytes(before)
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from dlbench.cli.failure import OutputError\n"
        "from dlbench.cli.terminal.output import write_file\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.RLIM_INFINITY}))\n"
        "try: write_file('--csv', Path(sys.argv[1]), b'x' * 5000)\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(target)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == f"--csv {target}: File too large\n"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {} if before is None else {"r.csv": before}
    )
