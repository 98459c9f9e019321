"""What the command lines share: a parser with one-line errors, and the exit statuses."""

import contextlib
import functools
import inspect
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from pyro_vae.machine.distributed import exit_status, out_of_memory
from pyro_vae.machine.reading import parse_yaml
from pyro_vae.machine.versions import versions

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

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse arguments; whatever that raises, such as a user's module when it is imported, is a mistake in them."""
        with self._mistakes():
            return super().parse_args(*args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration, likewise."""
        with self._mistakes():
            return super().parse_object(*args, **kwargs)

    @contextlib.contextmanager
    def _mistakes(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self.exit_on_error:
                raise
            self.error(f"{type(error).__name__}: {error}")

    def add_options(self, function: Callable[..., Any], *names: str) -> None:
        """Add parameters of a function as options: their types, their defaults and what its docstring says of them."""
        parameters = inspect.signature(function).parameters
        flags = [name for name in names if parameters[name].default is False]
        self.add_function_arguments(function, skip={name for name in parameters if name not in names or name in flags})
        helps = {param.arg_name: param.description for param in docstring_parser.parse(function.__doc__ or "").params}
        for name in flags:
            self.add_argument(f"--{name}", action="store_true", help=helps[name])


def command(main: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command's main function: whatever ends it is one line, and a status (see :func:`exit_status`)."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> None:
        try:
            with _warnings_as_lines(), _printable():
                main(argv)
        except BrokenPipeError:  # the reader of the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except (Exception, KeyboardInterrupt) as error:
            fail(_describe(error), exit_status(error))

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


@contextlib.contextmanager
def _printable() -> Iterator[None]:
    """Print "?" for what the terminal's encoding lacks, rather than fail."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.errors != "strict":
        yield
        return
    out.reconfigure(errors="replace")
    try:
        yield
    finally:
        out.reconfigure(errors="strict")


def fail(message: str, status: int = 2) -> NoReturn:
    """Print an error as one line, and end the program. What a file says in it can't control the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    print(f"error: {shown}", file=sys.stderr)
    raise SystemExit(status)


def _describe(error: BaseException) -> str:
    """Say in one line what has happened."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = _one_line(str(error)) or type(error).__name__
    if out_of_memory(error):
        return f"out of memory: {message.rpartition('memory: ')[2]}"
    if exit_status(error) == 70:
        return (
            f"this is a fault of the program, or of a part of your own: {type(error).__name__}: {message}; please "
            f"report it to its authors, {_keep_traceback(error)}"
        )
    return message


def _keep_traceback(error: BaseException) -> str:
    """Write where an error came from into a file that nobody else reads, and say where it is."""
    lines = [*traceback.format_exception(error), "\n", *(f"{name} {version}\n" for name, version in versions().items())]
    try:
        descriptor, path = tempfile.mkstemp(prefix="pyro-vae-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
    except OSError as why:
        return f"whose traceback could not be written ({why.strerror})"
    return f"with the traceback in {path}"


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
