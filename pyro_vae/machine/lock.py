"""A folder that one process at a time works in."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of some file systems; there, it goes without

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def taken(folder: Path, refusal: str, *, new: bool = False, name: str = LOCK) -> Iterator[None]:
    """Have a folder for oneself, until this ends or the process does, however it does.

    It is made where there is none; what was made and is empty in the end goes again.

    Args:
        folder: The folder.
        refusal: What to say where another process has it.
        new: There has to be none.
        name: Of the file in it that is locked; with names of their own, processes share the folder.

    Raises:
        BlockingIOError: When another process has it.
        FileExistsError: When it is there, but has to be new.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=not new)
    try:
        descriptor = _take(folder / name, refusal)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                os.unlink(folder / name)
            os.close(descriptor)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it isn't empty
                path.rmdir()


def _take(path: Path, refusal: str) -> int:
    """Return the descriptor of a file that is locked as long as this is open."""
    while True:
        descriptor = _open(path)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise BlockingIOError(refusal) if error.errno in BUSY else error from None
        # Whoever had it in between has removed the file that this one has opened.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    if path.is_symlink():
        raise ValueError(f"{path}: expected a file to lock, got a link to {os.readlink(path)}; remove the link")
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
