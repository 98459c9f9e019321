"""Files are written whole or not at all, and never through a link that a folder holds."""

import errno
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TEMPORARY = ".pyro_vae-{}.tmp"  # what becomes of it when a process is killed: see `remove_leftovers`


def named(path: str | os.PathLike) -> Path:
    """Return a path that the user has named; of a link, which is the user's own, what it leads to."""
    path = Path(path)
    return path.resolve() if path.is_symlink() else path


def subfolder(folder: Path, name: str) -> Path:
    """Return the folder of this name within one that may be a stranger's, to write into.

    Raises:
        ValueError: When it is a link: the folder that it leads to was not named by the user.
    """
    path = folder / name
    if path.is_symlink():
        raise ValueError(f"{path}: expected a folder to write into, got a link to {os.readlink(path)}; remove the link")
    return path


def as_json(value: Any) -> str:
    """Return the content of a JSON file; what JSON can't hold, such as NaN, is null in it.

    Example:
        >>> print(as_json({"se": math.inf}), end="")
        {
          "se": null
        }
    """
    return json.dumps(finite(value), indent=2) + "\n"


def as_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a .npz file of arrays by name."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stubs expect allow_pickle among them
    return buffer.getvalue()


def finite(value: Any) -> Any:
    """Replace numbers that JSON can't hold by None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_file(path: Path, content: bytes | str) -> None:
    """Replace a file as a whole: whoever reads it sees the old content or the new, never a part.

    Raises:
        OSError: Naming the file, which is then as it was.
    """
    write_files({path: content})


def write_files(files: Mapping[Path, bytes | str], outdated: Iterable[Path] = ()) -> None:
    """Replace files together: all new ones are on the disk before the first of the old ones goes.

    Args:
        files: The content of each, in the order in which they take their places. A link in such a place is replaced,
            and what it leads to is left alone.
        outdated: Files that would not belong to the new ones. They go before these take their places, so that one that
            is named in both is never seen beside the others' old content.

    Raises:
        OSError: Naming the file that could not be written; all are then as they were.
    """
    temporaries = {path: path.with_name(TEMPORARY.format(secrets.token_hex(8))) for path in files}
    try:
        for path, temporary in temporaries.items():
            try:
                _write_new(temporary, files[path])
                if path.is_dir() and not path.is_symlink():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}; nothing was replaced", str(path)) from error
        for path in outdated:
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left of files that they were writing."""
    for path in folder.glob(TEMPORARY.format("*")):
        path.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes | str) -> None:
    with open(path, "xb") as file:  # which follows no link
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
