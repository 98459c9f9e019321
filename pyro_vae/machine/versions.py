"""The versions of what computes, also in a clone that is not installed."""

import platform

import pyro
import torch

__version__ = "0.1.0"  # read by pyproject.toml as well


def versions() -> dict[str, str]:
    """Return the versions to write beside a result.

    Example:
        >>> list(versions())
        ['python', 'pyro-vae', 'torch', 'pyro-ppl']
    """
    return {
        "python": platform.python_version(),
        "pyro-vae": __version__,
        "torch": str(torch.__version__),
        "pyro-ppl": pyro.__version__,
    }
