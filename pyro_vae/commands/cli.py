"""What the command lines share: a parser with one-line errors, and the exit statuses."""

import contextlib
import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import docstring_parser
import torch
import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from pyro_vae.machine.reading import parse_yaml

YAML = "yaml_without_aliases"


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, and which reads YAML as from a stranger."""

    def __init__(self, *arguments: Any, **options: Any):
        set_loader(YAML, lambda text: parse_yaml(text, get_loader("yaml")), exceptions=(yaml.YAMLError,))
        super().__init__(*arguments, **{"parser_mode": YAML} | options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong with the arguments, and end with status 2; those of a part are the outer parser's."""
        if not self.exit_on_error:
            super().error(message, ex)
        program = self.prog.split(" [options]")[0]
        fail(f"{_one_line(message)} (see {program} --help)")

    def add_options(self, function: Callable[..., Any], *names: str) -> None:
        """Add parameters of a function as options: their types, their defaults and what its docstring says of them."""
        parameters = inspect.signature(function).parameters
        flags = [name for name in names if parameters[name].default is False]
        self.add_function_arguments(function, skip={name for name in parameters if name not in names or name in flags})
        helps = {param.arg_name: param.description for param in docstring_parser.parse(function.__doc__ or "").params}
        for name in flags:
            self.add_argument(f"--{name}", action="store_true", help=helps[name])


def command(main: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command's main function: a mistake in the input ends it with one line and status 2."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> None:
        try:
            with _warnings_as_lines():
                main(argv)
        except BrokenPipeError:  # the reader of the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except KeyboardInterrupt:
            fail("interrupted", status=130)
        except torch.OutOfMemoryError as error:
            fail(f"out of memory on the device: {_one_line(str(error))}", status=1)
        except (ValueError, OSError) as error:
            fail(_one_line(_describe(error)))
        except ArithmeticError as error:
            fail(_one_line(str(error)), status=1)

    return wrapped


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show warnings without the place in the code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_one_line(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def fail(message: str, status: int = 2) -> NoReturn:
    """Print an error as one line, and end the program."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


# What the parser's messages say of how it came to them, line by line, and what to say instead.
_NOISE = re.compile(
    r"Subtypes:|Errors:|Given value type:|Expected a <class 'NoneType'>|Expected a path but|Does not validate against"
)
_PLAINER = (
    (r'Parser key "([\w.]+)":;? ?', r"--\1: "),
    (r"Problem with given class_path '([\w.]+)':;?", r"\1:"),
    (r"<class '([\w.]+)'>", r"\1"),
    (r"[.;]? ?(Given|Got) value: ", ", got "),
    (r"Expected an .*, got NestedArg\(key='([\w.]+)'.*\)", r"name a class before its option \1"),
    (r"typing\.Literal\[(.*?)\]", r"one of \1"),
    (r"Expected (?:a )?dot import path string: [^\s;,]+", "expected a part of this package, or module.Class"),
    (r"collections\.abc\.Sequence", "list, such as [400]"),
    (r"Expected (?:a )?", "expected "),
    (r"No module named '([\w.]+)'", r"no module \1 is in the current folder or installed"),
    (r"Option '(\w+)' is not accepted", r"there is no option \1"),
    (r", got (NestedArg|Namespace)\(.*\)", ""),
    (r"Not a valid subclass of \w+; Subclass types.*implicit class_path\)", "expected the name of a class"),
    (r"Import path does not correspond to a subclass of (\w+)", r"expected a subclass of \1"),
    (r"--(\w+): [\w.]+: --(\w+): ", r"--\1.\2: "),  # of a part
)


def _one_line(message: str) -> str:
    """Fold a message into one plain line."""
    lines = (line.strip().removeprefix("- ") for line in message.splitlines())
    text = "; ".join(dict.fromkeys(line for line in lines if line and not _NOISE.match(line)))
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    return text.rstrip(".;")
