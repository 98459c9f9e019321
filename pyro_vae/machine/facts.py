"""The types of what a JSON or a YAML file says."""

from typing import Any

Kind = type | list | None
Kinds = tuple[Kind, ...]


def check_facts(what: str, facts: Any, **kinds: Kinds) -> dict[str, Any]:
    """Return what a file says, if each of its facts that is named here is of one of these types.

    Args:
        what: Which file, for the message.
        facts: What it holds: a mapping is expected.
        **kinds: For each name the types; None for nothing, and [int] for a list of int.

    Raises:
        ValueError: Naming the fact, the types, and what came.

    Example:
        >>> check_facts("a.json", {"epochs": 3}, epochs=(int, None), name=(str,))
        {'epochs': 3}
        >>> check_facts("a.json", {"epochs": "3"}, epochs=(int, [int], None))
        Traceback (most recent call last):
        ValueError: a.json: epochs: expected int, list of int or null, got '3'
    """
    if not isinstance(facts, dict):
        raise ValueError(f"{what}: expected facts by name, got {type(facts).__name__}")
    for name in kinds:
        if name in facts and not any(_is(facts[name], kind) for kind in kinds[name]):
            *some, last = (_name(kind) for kind in kinds[name])
            expected = f"{', '.join(some)} or {last}" if some else last
            raise ValueError(f"{what}: {name}: expected {expected}, got {repr(facts[name])[:100]}")
    return facts


def _is(value: Any, kind: Kind) -> bool:
    if isinstance(kind, list):
        return type(value) is list and all(type(item) in kind for item in value)
    return value is None if kind is None else type(value) is kind  # True is no number


def _name(kind: Kind) -> str:
    if isinstance(kind, list):
        return f"list of {' or '.join(map(_name, kind))}"
    return "null" if kind is None else kind.__name__
