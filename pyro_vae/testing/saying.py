"""Saying in one sentence how a part breaks its contract."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn

ERRORS = 5  # a mean of draws may be off by so many standard errors


@contextmanager
def alone() -> Iterator[None]:
    """Leave no trace on the random state or in Pyro's parameters."""
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        yield


@contextmanager
def saying(name: str, doing: str) -> Iterator[None]:
    """Raise any error as one of the part."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{name} fails {doing}: {type(error).__name__}: {error}") from error


def expect(holds: Any, name: str, expected: str, came: Any) -> None:
    """Raise what was expected of the part and what came, unless it holds."""
    if not holds:
        raise AssertionError(f"{name}: expected {expected}, got {came}")


def expect_close(value: Tensor, expected: Tensor, name: str, what: str, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    """Raise what was expected of the part and the first value that is another."""
    expect(value.shape == expected.shape, name, f"{what} of shape {tuple(expected.shape)}", tuple(value.shape))
    close = torch.isclose(value, expected, rtol=rtol, atol=atol)
    if not close.all():
        first = ~close
        expect(False, name, f"{what}, {expected[first][0]:.9g}", f"{value[first][0]:.9g}")


def expect_gradient(name: str, parameter: str, gradient: Tensor | None) -> None:
    """Raise what is wrong with the gradient of a parameter."""
    came = "none" if gradient is None else "zeros only" if not gradient.any() else "values that are not finite"
    holds = gradient is not None and gradient.isfinite().all() and gradient.any()
    expect(holds, name, f"a finite gradient that is not zero for {parameter}", came)


def make_part(make: Any, kind: type, known: dict[str, Any], options: dict[str, Any]) -> Any:
    """Return a new part, with what it asks for by name filled in."""
    if isinstance(make, kind):
        if options:
            raise ValueError(f"{', '.join(options)}: expected no options beside a {type(make).__name__} already made")
        return copy.deepcopy(make)
    if isinstance(make, nn.Module) or not callable(make):
        raise ValueError(f"expected a {kind.__name__}, its class, or a function that makes one, got {make!r}")
    wanted = inspect.signature(make).parameters
    try:
        part = make(**{name: known[name] for name in wanted if name in known and name not in options}, **options)
    except TypeError as error:
        raise ValueError(f"{getattr(make, '__name__', make)} can't be built: {error}") from error
    if not isinstance(part, kind):
        raise ValueError(f"expected a {kind.__name__}, got {type(part).__name__} from {make!r}")
    return part
