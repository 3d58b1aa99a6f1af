"""One process for a study: a file beside it is locked as long as somebody works on it.

The kernel gives up the lock of a process that ends, however it ends, so there are no stale ones: a
file that a killed process left behind is taken over. On NFS flock(2) is a byte-range lock that the
server holds, which works between machines if its lock service runs; where a file system has no
locks at all the study goes on without one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from dlbench.tuner.errors import NotKept, StudyBusy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextmanager
def locked(study: Path, command: str = "") -> Iterator[None]:
    """Keep others from working on a study; the lock's file is gone afterwards.

    Raises:
        StudyBusy: another process does, with its number, since when and its command.
        NotKept: no file can be made there.
    """
    path = lock_path(study)
    with _taken(path, study) as file:
        about = {"pid": os.getpid(), "since": _now(), "command": command}
        with suppress(OSError):  # a full disk: the lock holds without a name
            os.write(file.fileno(), json.dumps(about).encode())  # nothing is left to flush
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before it is given up: nobody else's is removed


def check_free(study: Path) -> None:
    """Raise StudyBusy while another process works on a study; nothing is made or changed."""
    try:
        with lock_path(study).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StudyBusy(_holder(lock_path(study), study)) from None
    except OSError:
        return  # there is no such file, or no way to ask


def lock_path(study: Path) -> Path:
    """Where the lock of a study lies."""
    path = study.resolve()  # one lock for one file, whatever names lead to it
    return path.with_name(f"{path.name}.lock")


def _taken(path: Path, study: Path) -> IO[str]:
    """The lock's file, open and ours, and still the one that the name leads to.

    Whoever held it may remove it between our opening and our locking: then it is made anew.
    """
    while True:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise NotKept(f"{path}: cannot create a file there: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise StudyBusy(_holder(path, study)) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise NotKept(f"{path}: cannot be locked: {error.strerror}") from None
        if _is(path, file):
            file.truncate(0)
            return file
        file.close()


def _is(path: Path, file: IO[str]) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _holder(path: Path, study: Path) -> str:
    """Who has it; of one that has not said so yet only that there is one."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        who = (
            f"process {about['pid']}, since {about['since']} ({about['command'] or 'dlbench tune'})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"{study} is in use by {who}; wait for it, or choose another --study"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
