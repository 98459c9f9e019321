"""Which modules a name in a file may have imported: importing runs a module, and the file may be a stranger's."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from pyro_vae.machine.reading import parse_yaml

KINDS = ("prior", "encoder", "likelihood", "objective", "proposal")
OWN = __name__.partition(".")[0]


def check_names(what: str, value: Any, trust: Sequence[str]) -> None:
    """Refuse a description of parts that names a class whose module would have to be imported, and isn't trusted.

    This package's own modules are trusted, and so is a class that the program has imported already, since nothing is
    run for it. No module of the standard library is, imported or not: none of them has parts.

    Args:
        what: Where the description comes from, for the message.
        value: The description: names, and mappings and lists that hold some at any depth.
        trust: Modules that may be imported, with those below them.

    Raises:
        ValueError: Naming the class and the way out.

    Example:
        >>> check_names("run", {"class_path": "pyro_vae.priors.StudentT"}, trust=[])
        >>> check_names("run", {"class_path": "mymodule.StudentT"}, trust=["mymodule"])
        >>> check_names("run", {"class_path": "mymodule.StudentT"}, trust=[])
        Traceback (most recent call last):
        ValueError: run names mymodule.StudentT, ...
    """
    if isinstance(trust, str):
        raise ValueError(f"trust: expected a list of modules, got {trust!r}; write [{trust!r}]")
    for name in class_paths(value):
        if not _is_known(name) and not any(f"{name}.".startswith(f"{module}.") for module in trust):
            module = name.rpartition(".")[0][:100]
            raise ValueError(
                f"{what} names {name[:100]}, and no module is imported because a file names it; if you trust it, say "
                f"--trust {module}, in Python trust=[{module!r}]"
            )


def named_modules(arguments: Sequence[str]) -> list[str]:
    """Return the modules that a command line names: those of its parts, and those it trusts.

    Example:
        >>> named_modules(["--prior", "mymodule.Mixture", "--trust=other", "--data", "table.csv"])
        ['mymodule', 'other']
    """
    modules = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, inline, value = argument.partition("=")
        value = value if inline else following
        if option == "--trust":
            modules.append(value)
        elif option.removeprefix("--").partition(".")[0] in KINDS:
            modules += [name.rpartition(".")[0] for name in class_paths(value)]
    return modules


def class_paths(value: Any) -> Iterator[str]:
    """Yield the dotted names in a description of parts, at any depth; a text in it may be YAML itself.

    Example:
        >>> list(class_paths({"class_path": "Columns", "init_args": {"groups": "[[2, mymodule.StudentT]]"}}))
        ['mymodule.StudentT']
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            item = _read(item)
        if isinstance(item, dict | list | tuple):
            waiting += item.values() if isinstance(item, dict) else item
        elif isinstance(item, str) and "." in item and all(part.isidentifier() for part in item.split(".")):
            yield item


def _read(text: str) -> Any:
    """Return the mapping or the list that a text holds as YAML, with all else in it left as text; else the text."""
    try:
        value = parse_yaml(text, lambda text: yaml.load(text, yaml.BaseLoader))
    except (yaml.YAMLError, RecursionError):  # nor does the parser of the options read it
        return text
    return value if isinstance(value, dict | list) else text


def _is_known(name: str) -> bool:
    """Whether a class is this package's, or there without any import."""
    module, _, last = name.rpartition(".")
    package = module.partition(".")[0]
    if package == OWN:
        return True
    there = vars(sys.modules[module]).get(last) if module in sys.modules else None
    return isinstance(there, type) and package not in sys.stdlib_module_names
