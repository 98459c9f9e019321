"""The arguments of a step."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae.compiled.reach import NotStatic


class Call:
    """The arguments of a step: tensors and floats, which are the inputs of the graph, and others, which are not."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict):
        self.pair = model, guide
        self.values: list[Any] = []
        self.structure = _flatten((args, kwargs), self.values)
        tensors = [value for value in self.values if isinstance(value, Tensor)]
        self.size = next((tensor.shape[0] for tensor in tensors if tensor.dim()), 0)
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def check(self) -> None:
        """Refuse what would be lost in a recording."""
        for value in self.values:
            if isinstance(value, Tensor):
                if value.requires_grad:
                    raise NotStatic("an argument requires a gradient")
            elif type(value).__hash__ is None:
                raise NotStatic(f"an argument is a {type(value).__name__}, which should be a tensor")

    def key(self) -> tuple:
        """Return what a recording depends on, besides the batch size."""
        kind = self.device.type
        parts: list[Any] = [self.pair, self.structure, torch.is_grad_enabled(), torch.get_default_dtype()]
        parts += [torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)]
        for value in self.values:
            if isinstance(value, Tensor):
                batched = self._is_batch(value)
                parts += [value.dtype, value.device, batched, value.shape[batched:], value.stride()]
            else:
                parts += [type(value), None if isinstance(value, float) else value]
        return tuple(parts)

    def inputs(self, numbers: Sequence[float]) -> list[Tensor]:
        """Return the tensors, and the floats as tensors."""
        values = [*(value for value in self.values if isinstance(value, Tensor | float)), *numbers]
        dtype = next((x.dtype for x in values if isinstance(x, Tensor) and x.is_floating_point()), None)
        return [x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype) for x in values]

    def run(self, objective: Any, inputs: Sequence[Tensor] | None = None) -> Any:
        """Return the loss of the objective at these arguments, or with ``inputs`` in their place."""
        own = (value for value in self.values if isinstance(value, Tensor | float))
        given: Iterator[Any] = iter(inputs) if inputs else itertools.chain(own, rehearsed(objective))
        values = [next(given) if isinstance(value, Tensor | float) else value for value in self.values]
        for name in scheduled(objective):
            setattr(objective, name, functools.partial(_as_it_is, next(given)))
        args, kwargs = _rebuild(self.structure, iter(values))
        return objective.loss_and_grads(*self.pair, *args, **kwargs)

    @property
    def objects(self) -> list[Any]:
        """The arguments that are no tensors, which may be changed between steps."""
        return [value for value in self.values if not isinstance(value, Tensor)]

    def resized(self, size: int) -> "Call":
        """Return a call on the first data only."""
        values = [value[:size].clone() if self._is_batch(value) else value for value in self.values]
        return Call(*self.pair, *_rebuild(self.structure, iter(values)))

    def _is_batch(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == self.size


def _flatten(value: Any, leaves: list[Any]) -> Any:
    """Append what is in nested lists, tuples and dictionaries to ``leaves``, and return their structure."""
    if type(value) in (list, tuple):
        return type(value), tuple([_flatten(item, leaves) for item in value])
    if type(value) is dict:
        return dict, tuple([(name, _flatten(item, leaves)) for name, item in value.items()])
    leaves.append(value)
    return None


def _rebuild(structure: Any, leaves: Iterator[Any]) -> Any:
    """Undo :func:`_flatten`."""
    if structure is None:
        return next(leaves)
    kind, parts = structure
    if kind is dict:
        return {name: _rebuild(part, leaves) for name, part in parts}
    return kind(_rebuild(part, leaves) for part in parts)


def scheduled(objective: Any) -> Sequence[str]:
    """Return the methods of an objective that give the numbers in it that change from step to step."""
    return getattr(objective, "scheduled", ())


def rehearsed(objective: Any) -> list[float]:
    """Return what stands for those numbers until they are known."""
    return [0.5] * len(scheduled(objective))


def _as_it_is(value: Any) -> Any:
    return value
