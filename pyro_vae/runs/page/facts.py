"""What a run folder says of itself, read as from a stranger: checked, bounded, and never run."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

MAX_BYTES = {".json": 2**22, ".yaml": 2**18, ".csv": 2**27}
MAX_SETTINGS, MAX_LENGTH = 200, 300  # rows, and characters in each
EVALUATION = "evaluation.json"


def read_text(path: Path) -> str:
    """Return a file's text, if it isn't larger than any of a run folder's.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it is too large, or no text.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} doesn't exist: the run isn't finished, or is none; go on with --resume")
    limit = MAX_BYTES[path.suffix]
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: expected at most {limit:,} bytes, got {path.stat().st_size:,}; train again")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got other bytes; train again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: When it holds anything else.
    """
    try:
        facts = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(facts).__name__}")
    return facts


def read_columns(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return columns of a CSV file as numbers.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When a column is missing, or holds anything but numbers.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in names}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: expected numbers in the columns {', '.join(names)} ({error!r})") from None
    if not rows:
        raise ValueError(f"{path}: expected a row at least, got none")
    return columns


def settings(path: Path) -> list[tuple[str, str]]:
    """Return the configuration as (name, value), parts by class with their options below."""
    config = yaml.safe_load(read_text(path))
    # Lazily, since a small YAML file can name an enormous tree.
    return [
        (name[:MAX_LENGTH], value[:MAX_LENGTH]) for name, value in itertools.islice(_leaves(config, ""), MAX_SETTINGS)
    ]


def _leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and depth < 8:
        for key, item in value.items():
            plain = "" if key in ("class_path", "init_args") else str(key)[:MAX_LENGTH]
            yield from _leaves(item, ".".join(part for part in (name, plain) if part), depth + 1)
    elif isinstance(value, list) and depth < 8 and any(isinstance(item, dict | list) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{name}[{i}]", depth + 1)
    elif isinstance(value, dict | list):
        yield name, ", ".join(str(item)[:MAX_LENGTH] for item in itertools.islice(value, 50))
    else:
        yield name, "default" if value is None else str(value)


def number(value: Any, digits: int = 2) -> str:
    """Return a number as text, with a true minus; anything else is unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "unknown"
    return f"{value:,.{digits}f}".replace("-", "−")


def figure(value: Any, se: Any = None, digits: int = 2) -> str:
    """Return a number with its standard error, where it has one."""
    error = number(se, digits)
    return number(value, digits) + (f" ± {error}" if error != "unknown" else "")


def general(value: Any, digits: int = 6) -> str:
    """Return a number as text with so many significant digits; nothing for None."""
    return "" if value is None else f"{value:.{digits}g}".replace("-", "−")


def short(class_path: Any) -> str:
    """Return a class's name without its module."""
    return str(class_path)[:MAX_LENGTH].rpartition(".")[2]
