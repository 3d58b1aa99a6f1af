"""One process for a study: who comes second is told who was first."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from dlbench.tuner.errors import NotKept, StudyBusy
from dlbench.tuner.storage.lock import check_free, lock_path, locked

HOLD = """
import sys
from pathlib import Path
from dlbench.tuner.storage.lock import locked
with locked(Path(sys.argv[1]), "dlbench tune a.onnx"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a study until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("alias", ["a.db", "./a.db", "link.db"])
def test_the_second_is_told_who_the_first_is(tmp_path, holder, alias):
    (tmp_path / "a.db").touch()
    (tmp_path / "link.db").symlink_to("a.db")
    about = rf"process {holder.pid}, since \S+ \S+ UTC \(dlbench tune a.onnx\); wait for it"
    for refuse in (lambda p: locked(p).__enter__(), check_free):
        with pytest.raises(StudyBusy, match=about):
            refuse(tmp_path / alias)


def test_a_killed_one_s_lock_is_taken_over_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_path(tmp_path / "a.db").exists()
    check_free(tmp_path / "a.db")
    with locked(tmp_path / "a.db", "mine"):
        assert json.loads(lock_path(tmp_path / "a.db").read_text())["pid"] == os.getpid()


def test_nothing_is_left_behind(tmp_path):
    with locked(tmp_path / "a.db"):
        pass
    check_free(tmp_path / "a.db")
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_the_lock_holds_without_a_name(tmp_path):
    full = (
        "import resource, sys; from pathlib import Path; from dlbench.tuner.storage.lock import locked\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "with locked(Path(sys.argv[1]), 'dlbench tune a.onnx'): print('held')"
    )
    command = [sys.executable, "-B", "-c", full, str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("held\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_was_removed_under_it_is_not_taken_for_ours(tmp_path, monkeypatch):
    """The first removes its file after the second opened it, and before it locked it."""
    whole, seen = fcntl.flock, []

    def flock(file, how):
        if not seen:
            seen.append(file)
            lock_path(tmp_path / "a.db").unlink()
        whole(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "a.db"):
        with pytest.raises(StudyBusy):
            check_free(tmp_path / "a.db")
        assert lock_path(tmp_path / "a.db").exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotKept, match="No such file"), locked(tmp_path / "none" / "a.db"):
        pass
