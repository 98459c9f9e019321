"""One torch optimiser over all parameters, in the place where SVI expects a Pyro optimiser."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_vae.compiled import record

# Where a gradient stays zero, as behind a unit that never fires, a moment decays into the denormal numbers, with which
# processors are slow: Adam then takes twice the time. Below this, moments move no weight any more.
TINY, CLEAN_EVERY = 1e-30, 100


class FusedOptim(PyroOptim):
    """A single torch optimiser over all parameters of a Pyro program.

    Pyro's own wrapper keeps one optimiser for each parameter; one for all of them does the
    same arithmetic in a few fused calls. Those of Adam and AdamW are recorded, and repeated without Python's overhead.

    Args:
        constructor: A torch optimiser class, such as ``torch.optim.Adam``.
        options: Its options, such as ``{"lr": 1e-3, "fused": True}``.
        schedule: The learning rate of each step, counted from 0. Default: that of the options.

    Attributes:
        lr: The learning rate of the last step.

    Example:
        >>> optim = FusedOptim(torch.optim.Adam, {"lr": 1e-3})
        >>> w = pyro.param("fused_optim_example", torch.ones(3))
        >>> w.sum().backward()
        >>> optim([w])
        >>> w.tolist()
        [0.999..., 0.999..., 0.999...]
    """

    def __init__(
        self,
        constructor: Callable[..., torch.optim.Optimizer],
        options: dict[str, Any],
        schedule: Callable[[int], float] | None = None,
    ):
        super().__init__(constructor, options)
        self._construct = lambda params: constructor(params, **options)
        self.lr: float = options["lr"]
        self._schedule = schedule
        self._optimizer: Any = None
        self._known: set[Tensor] = set()
        self._steps = 0
        self._recorded: Callable[..., None] | None = None
        self._recorded_for: list[Tensor] = []  # the parameters that had a gradient

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
        trained = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in trained]
        if self._schedule is not None:
            self.lr = self._schedule(self._steps)
        self._step(trained, gradients)
        for param in trained:
            param.grad = None
        self._steps += 1
        if self._steps % CLEAN_EVERY == 0:
            self._drop_tiny_moments()

    def _step(self, trained: list[Tensor], gradients: list[Tensor]) -> None:
        if self._recorded is None or not _same(trained, self._recorded_for):
            started = all(self._optimizer.state[param] for param in trained)
            self._plain_step(self.lr)
            self._recorded_for = trained
            self._recorded = self._record(gradients) if started else None
        else:
            self._recorded(torch.tensor(self.lr, dtype=torch.float64), *gradients)

    @torch.no_grad()
    def _drop_tiny_moments(self) -> None:
        for param, state in self._optimizer.state.items():
            if param.device.type == "cpu":
                for moment in state.values():
                    if isinstance(moment, Tensor) and moment.shape == param.shape and moment.dtype == torch.float32:
                        moment.mul_(moment.abs() >= TINY)

    def _plain_step(self, lr: float | Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()

    def _record(self, gradients: list[Tensor]) -> Callable[..., None] | None:
        """Return the tensor operations of a step, as a function of the learning rate and the gradients."""
        if type(self._optimizer) not in (torch.optim.Adam, torch.optim.AdamW):  # others may count in Python
            return None
        lr = torch.tensor(self.lr, dtype=torch.float64)
        try:
            return record(lambda lr, *_: self._plain_step(lr), lr, *gradients, frozen=False)
        except Exception:  # whatever it was, the optimiser itself is still there to run
            return None

    def state_of(self, param: Tensor) -> dict[str, Tensor]:
        """Return the optimiser's tensors for ``param`` (for Adam: two moments and the step)."""
        return self._optimizer.state[param] if self._optimizer and param in self._known else {}

    def restore(self, states: dict[Tensor, dict[str, Tensor]], steps: int) -> None:
        """Take up the tensors that ``state_of`` gave for each parameter after so many steps."""
        ordered = list(states)
        self._optimizer = self._construct(ordered)
        self._known = set(ordered)
        self._recorded, self._recorded_for = None, []
        self._steps = steps
        for param, state in states.items():
            self._optimizer.state[param] = state


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
