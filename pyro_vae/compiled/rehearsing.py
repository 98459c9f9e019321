"""Running programs to try them, without consequences."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.util
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.compiled.reach import NotStatic


@contextlib.contextmanager
def rehearsing(device: torch.device) -> Iterator[None]:
    """Run programs without looking at values, and without consequences for random numbers."""
    others = random.getstate(), _state_of_numpy()
    is_nan, cached = pyro.util.torch_isnan, torch.is_autocast_cache_enabled()
    pyro.util.torch_isnan = lambda value: False  # type: ignore[assignment]
    torch.clear_autocast_cache()  # of weights, which would be recorded as they are now
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(others[0])
        np.random.set_state(others[1])  # noqa: NPY002
        torch.set_autocast_cache_enabled(cached)
        pyro.util.torch_isnan = is_nan


@contextlib.contextmanager
def without_other_noise() -> Iterator[None]:
    """Require of what is run that it draws random numbers from torch only, since others would not be drawn again.

    Raises:
        NotStatic: When it does not.
    """
    state, of_numpy = random.getstate(), _state_of_numpy()["state"]
    yield
    now = _state_of_numpy()["state"]
    same = now["pos"] == of_numpy["pos"] and np.array_equal(now["key"], of_numpy["key"])
    if not same or random.getstate() != state:
        raise NotStatic("what it computes is not the same in each run: it draws random numbers that are not torch's")


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Let distributions accept all values, also those that were made to check theirs."""
    validate = Distribution._validate_sample
    Distribution._validate_sample = lambda self, value: None  # type: ignore[method-assign]
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution._validate_sample = validate  # type: ignore[method-assign]


def noise(device: torch.device) -> list[Tensor]:
    """Return the state of torch's random generators."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_noise(device: torch.device, states: list[Tensor]) -> None:
    """Put the generators back into the state that ``noise`` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _state_of_numpy() -> Any:
    """Return the state of the old generator, which ``np.random.rand()`` and the like still draw from."""
    return np.random.get_state(legacy=False)  # noqa: NPY002
