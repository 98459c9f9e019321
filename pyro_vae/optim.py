"""One torch optimiser over all parameters, in the place where SVI expects a Pyro optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor


class FusedOptim(PyroOptim):
    """A single torch optimiser over all parameters of a Pyro program.

    Pyro's own wrapper keeps one optimiser for each parameter; one for all of them does the
    same arithmetic in a few fused calls.

    Args:
        constructor: A torch optimiser class, such as ``torch.optim.Adam``.
        options: Its options, such as ``{"lr": 1e-3, "fused": True}``.

    Attributes:
        lr: The learning rate; assign to it to change it between steps.
        reduce: Where not ``None``, called with all gradients before each step, to change them in place: such as
            summing them over several processes.
        clip_norm: Where not ``None``, gradients whose norm over all parameters exceeds it are
            scaled down to it.

    Example:
        >>> optim = FusedOptim(torch.optim.Adam, {"lr": 1e-3})
        >>> w = pyro.param("fused_optim_example", torch.ones(3))
        >>> w.sum().backward()
        >>> optim([w])
        >>> w.tolist()
        [0.999..., 0.999..., 0.999...]
    """

    def __init__(self, constructor: Callable[..., torch.optim.Optimizer], options: dict[str, Any]):
        super().__init__(constructor, options)
        self._construct = lambda params: constructor(params, **options)
        self.lr: float = options["lr"]
        self.reduce: Callable[[list[Tensor]], None] | None = None
        self.clip_norm: float | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._known: set[Tensor] = set()

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Take one step, and drop the gradients."""
        new = set(params) - self._known
        if new:
            # By name, since the order of a set differs between processes, and with it the rounding of the norm.
            ordered = sorted(new, key=lambda param: pyro.get_param_store().param_name(param) or "")
            if self._optimizer is None:
                self._optimizer = self._construct(ordered)
            else:
                self._optimizer.add_param_group({"params": ordered})
            self._known |= new
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        if self.reduce is not None:
            self.reduce([p.grad for p in trained if p.grad is not None])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, self.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state_of(self, param: Tensor) -> dict[str, Tensor]:
        """Return the optimiser's tensors for ``param`` (for Adam: two moments and the step)."""
        return self._optimizer.state[param] if self._optimizer and param in self._known else {}

    def restore(self, states: dict[Tensor, dict[str, Tensor]]) -> None:
        """Take up the tensors that ``state_of`` gave for each parameter, before the first step."""
        ordered = list(states)
        self._optimizer = self._construct(ordered)
        self._known = set(ordered)
        for param, state in states.items():
            self._optimizer.state[param] = state
