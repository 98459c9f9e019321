"""Recording what a probabilistic program computes, to repeat it without Python's, Pyro's and autograd's overhead."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_vae.compiled.elbo import CompiledELBO
from pyro_vae.compiled.faster import FASTER
from pyro_vae.compiled.reach import NotStatic
from pyro_vae.compiled.recorder import NotRecordable, Recorder
from pyro_vae.compiled.rewriting import simplify, translate

__all__ = ["CompiledELBO", "NotRecordable", "NotStatic", "record"]


def record(function: Callable[..., Any], *inputs: Tensor, frozen: bool = True) -> Callable[..., Any]:
    """Run a function once, and return the tensor operations that it ran, as a function of the same inputs.

    Shapes, and everything in the function that isn't a tensor operation, are those of this one run. Noise is drawn
    afresh. What the function writes to is as before, until the operations are run.

    Args:
        function: Returns a tensor, or nothing.
        *inputs: Its arguments.
        frozen: Other tensors, such as parameters, keep their values, so that what depends on nothing else is
            computed only once.

    Raises:
        NotRecordable: When the function looks at values, and so might run other operations for other inputs.

    Example:
        >>> import torch
        >>> double = record(lambda x: 2 * x, torch.ones(3))
        >>> double(torch.arange(3.0))
        tensor([0., 2., 4.])
    """
    with Recorder(inputs, FASTER, frozen=frozen) as recorder:
        result = function(*inputs)
        recorder.finish([] if result is None else [result])
    simplify(recorder)
    run = translate(recorder)
    return lambda *inputs: next(iter(run(0, *inputs)), None)
