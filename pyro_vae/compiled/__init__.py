"""Recording what a probabilistic program computes, to repeat it without Python's, Pyro's and autograd's overhead."""

from collections.abc import Callable

from torch import Tensor

from pyro_vae.compiled.elbo import CompiledELBO, NotStatic
from pyro_vae.compiled.faster import FASTER
from pyro_vae.compiled.recorder import NotRecordable, Recorder
from pyro_vae.compiled.rewriting import simplify, translate

__all__ = ["CompiledELBO", "NotRecordable", "NotStatic", "record"]


def record(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """Run a function once, and return the tensor operations that it ran, as a function of the same inputs.

    Shapes, and everything in the function that isn't a tensor operation, are those of this one run. Other tensors
    than the inputs, such as parameters, must not change afterwards. Noise is drawn afresh.

    Raises:
        NotRecordable: When the function looks at values, and so might run other operations for other inputs.

    Example:
        >>> import torch
        >>> double = record(lambda x: 2 * x, torch.ones(3))
        >>> double(torch.arange(3.0))
        tensor([0., 2., 4.])
    """
    with Recorder(inputs, FASTER, frozen=True) as recorder:
        recorder.finish([function(*inputs)])
    simplify(recorder)
    run = translate(recorder)
    return lambda *inputs: run(0, *inputs)[0]
