"""What the command lines share: a parser with one-line errors, and the exit statuses."""

import functools
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser


class Parser(ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong with the arguments, and end with status 2."""
        fail(f"{_one_line(message)} (see {self.prog} --help)")


def command(main: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command's main function: a mistake in the input ends it with one line and status 2."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> None:
        try:
            main(argv)
        except (ValueError, OSError) as error:
            fail(_one_line(_describe(error)))
        except ArithmeticError as error:
            fail(_one_line(str(error)), status=1)

    return wrapped


def fail(message: str, status: int = 2) -> NoReturn:
    """Print an error as one line, and end the program."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _one_line(message: str) -> str:
    """Fold a message into one line, without what only says how the parser came to it."""
    noise = r"Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but|Does not validate"
    lines = (line.strip(" -\t") for line in message.splitlines())
    text = "; ".join(line for line in lines if line and not re.match(noise, line))
    text = re.sub(r'Parser key "([\w.]+)":;? ?', r"--\1: ", text)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    return text.replace("Expected a dot import path string: ", "no part is called ")
