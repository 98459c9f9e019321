"""Devices: choosing one, what it can do, and its random numbers."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pyro_vae.machine.distributed import gathered, own_gpu, rank


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
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"device: expected one that this machine has, such as cpu or auto, got {name!r}") from error
    return own_gpu(device) if device.type == "cuda" else device


def rounds_to_bfloat16(device: torch.device) -> bool:
    """Whether :func:`bfloat16_products` has an effect on a device, by a product that shows it.

    What a processor lists among its capabilities does not tell: torch uses it on some processors only.
    """
    x = torch.full((256, 256), 1 + 2**-10, device=device)  # a bfloat16 here is 1, or 1 + 2**-7
    with bfloat16_products():
        return bool((x @ x == len(x)).all())


def precision_on(device: torch.device, wanted: str) -> str:
    """Return the precision that factors of products will have: that which is wanted, where the device has it.

    Warns:
        UserWarning: Where it is float32, though bfloat16 is wanted.
    """
    if wanted == "bfloat16" and not rounds_to_bfloat16(device):
        warnings.warn(
            f"precision: torch rounds no factors of matrix products to bfloat16 on this {device.type}; "
            "they stay in float32, and are no faster",
            stacklevel=3,
        )
        return "float32"
    return wanted


@contextlib.contextmanager
def bfloat16_products() -> Iterator[None]:
    """Round the factors of float32 matrix products and convolutions to bfloat16; their sums and results are float32.

    That is torch's ``set_float32_matmul_precision("medium")``, and the same for convolutions: what the processor has no
    fast bfloat16 for is more exact. Rounding is to 8 bits; the range is that of float32.

    Example:
        >>> with bfloat16_products():
        ...     torch.get_float32_matmul_precision(), (torch.eye(2) @ torch.ones(2, 1)).dtype
        ('medium', torch.float32)
    """
    of_convolutions = getattr(torch.backends.mkldnn, "conv", None)  # since torch 2.9
    before = torch.get_float32_matmul_precision(), getattr(of_convolutions, "fp32_precision", None)
    try:
        torch.set_float32_matmul_precision("medium")
        if of_convolutions is not None:
            of_convolutions.fp32_precision = "bf16"
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        if of_convolutions is not None:
            of_convolutions.fp32_precision = before[1]


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for those that follow.

    glibc gives freed memory back to the system above a threshold, and the next tensor faults its pages in again, which
    takes as long as filling it. Freeing almost 32 MB once, untouched, raises the threshold.
    """
    torch.empty(2**25 - 2**18, dtype=torch.uint8)


@contextlib.contextmanager
def own_seed(*seeds: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from a seed of their own inside, and leave the global state as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_seed(*seeds)
        yield


def check_seed(seed: int) -> None:
    """Refuse a seed that torch or numpy would not take.

    Raises:
        ValueError: With the range.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected a whole number from 0 to 2^63 - 1, got {seed}")


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return where the global random numbers of all processes are, (P, bytes) by the kind of device.

    Of several processes, each has to call this.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {kind: gathered(state.unsqueeze(0)) for kind, state in states.items()}


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Go on with the random numbers of this process from what :func:`random_states` gave on such a device."""
    torch.set_rng_state(states["cpu"][rank()].clone())  # it takes no views
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"][rank()].clone(), device)


def set_seed(*seeds: int) -> None:
    """Start the global random numbers that belong to a sequence of whole numbers."""
    for seed in seeds:
        check_seed(seed)
    torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
