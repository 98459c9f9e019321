"""Devices: choosing one, what it can do, and its random numbers."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from pyro_vae.distributed import own_gpu


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is a GPU where there is one, else the CPU.

    Raises:
        ValueError: When this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: expected one that this machine has, such as cpu or auto, got {name!r}") from error
    return own_gpu(device) if device.type == "cuda" else device


def check_bfloat16(device: torch.device) -> None:
    """Refuse a device that can't multiply matrices in bfloat16, and warn of a processor that only emulates it.

    Raises:
        ValueError: Naming the device.
    """
    try:
        x = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        (x @ x).sum().item()
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"precision: {device} has no bfloat16; use float32") from error
    known: dict = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    has = [value for name, value in known.items() if "bf16" in name]
    if has and not any(has):
        warnings.warn("precision: this processor only emulates bfloat16; float32 is faster on it", stacklevel=3)


@contextlib.contextmanager
def own_seed(*seeds: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from a seed of their own inside, and leave the global state as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_seed(*seeds)
        yield


def set_seed(*seeds: int) -> None:
    """Start the global random numbers that belong to a sequence of whole numbers."""
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
