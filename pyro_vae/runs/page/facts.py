"""What a run folder says of itself, read as from a stranger: checked, bounded, and never run."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_vae.machine.reading import read_yaml

MAX_SETTINGS, MAX_LENGTH = 200, 300  # rows, and characters in each
EVALUATION = "evaluation.json"


def settings(path: Path) -> list[tuple[str, str]]:
    """Return the configuration as (name, value), parts by class with their options below."""
    leaves = itertools.islice(_leaves(read_yaml(path), ""), MAX_SETTINGS)
    return [(name[:MAX_LENGTH], value[:MAX_LENGTH]) for name, value in leaves]


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
