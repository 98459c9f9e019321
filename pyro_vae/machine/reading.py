"""Files are read as from a stranger: regular ones alone, and text of a bounded size that no parser lets grow."""

import csv
import io
import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pyro_vae.machine.facts import Kinds, check_facts

LIMITS = {".json": 2**22, ".yaml": 2**18, ".csv": 2**27}  # bytes
MAX_DEPTH = 100  # levels of a YAML file: a config has about five


def check_file(path: Path, most: int | None = None) -> int:
    """Return a file's size in bytes, before it is opened: a pipe would be waited for, and a device may have no end.

    Args:
        path: The file, or a link to it.
        most: The largest size that is expected. Default: any.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it is larger, or no regular file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} doesn't exist")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path}: expected a file, got {kind}; name another, or remove it")
    if most is not None and status.st_size > most:
        raise ValueError(f"{path}: expected at most {most:,} bytes, got {status.st_size:,}; write it again")
    return status.st_size


def read_text(path: Path) -> str:
    """Return a file's text, if it isn't larger than any of its kind in a run folder.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it is too large, or no text.
    """
    most = LIMITS.get(path.suffix, LIMITS[".yaml"])
    check_file(path, most)
    with path.open("rb") as file:
        content = file.read(most)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes; write it again") from None


def read_json(path: Path, **kinds: Kinds) -> dict[str, Any]:
    """Return a JSON file's object, whose facts are of these types; see :func:`check_facts`.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it holds anything else.
    """
    return _read_mapping(path, json.loads, "a JSON object", kinds)


def read_yaml(path: Path, **kinds: Kinds) -> dict[str, Any]:
    """Return a YAML file's mapping, whose facts are of these types; see :func:`parse_yaml` and :func:`check_facts`.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it holds anything else.
    """
    return _read_mapping(path, parse_yaml, "a YAML mapping", kinds)


def _read_mapping(path: Path, parse: Callable[[str], Any], expected: str, kinds: Mapping[str, Kinds]) -> dict[str, Any]:
    text = read_text(path)
    try:
        value = parse(text)
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: expected {expected} ({' '.join(str(error).split())})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected {expected}, got {type(value).__name__}")
    return check_facts(str(path), value, **kinds)


def parse_yaml(text: str, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """Return what YAML says, without aliases: by these a few lines can say more than a memory holds.

    Older parsers take a time that grows by the square of the depth: it has a limit too.

    Args:
        text: At most as much as a configuration.
        load: What reads it once it is known to be harmless.

    Raises:
        yaml.YAMLError: When it is none, has aliases, or is too long or too deep.

    Example:
        >>> parse_yaml("epochs: 3")
        {'epochs': 3}
    """
    if len(text) > LIMITS[".yaml"]:
        raise yaml.YAMLError(f"expected at most {LIMITS['.yaml']:,} characters, got {len(text):,}")
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"expected at most {MAX_DEPTH} levels, got more")
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"expected no aliases, got *{event.anchor}; write out what it stands for")
    return load(text)


def read_columns(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return columns of a CSV file as numbers.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When a column is missing, or holds anything but numbers.
    """
    text = read_text(path)
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: expected numbers in the columns {', '.join(names)} ({error!r})") from None
    if not rows:
        raise ValueError(f"{path}: expected a row at least, got none")
    return columns
