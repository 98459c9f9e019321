"""One torch optimiser over all parameters, in the place where SVI expects a Pyro optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_vae.compiled import NotStatic, record
from pyro_vae.compiled.recorder import Rehearsal

# Where a gradient stays zero, as behind a unit that never fires, a moment decays into the denormal numbers, with which
# processors are slow: Adam then takes twice the time. Below this, moments move no weight any more.
TINY, CLEAN_EVERY = 1e-30, 100
MOST = 8  # recordings, one for each choice of parameters that have a gradient


class FusedOptim(PyroOptim):
    """A single torch optimiser over all parameters of a Pyro program.

    Pyro's own wrapper keeps one optimiser for each parameter; one for all of them does the
    same arithmetic in a few fused calls. Those of Adam and AdamW are recorded, compared with a step of the optimiser
    itself, and repeated without Python's overhead.

    Args:
        constructor: A torch optimiser class, such as ``torch.optim.Adam``.
        options: Its options, such as ``{"lr": 1e-3, "fused": True}``.
        schedule: The learning rate of each step, counted from 0. Default: that of the options.

    Attributes:
        lr: The learning rate of the last step.
        not_recorded: Why the optimiser runs as it is, where recording it was tried.

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
        self.not_recorded = ""
        self._recordings: dict[tuple[int, ...], Callable[..., None]] = {}  # by the parameters that have a gradient
        self._recorded: Callable[..., None] | None = None  # the one for the last step

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
        key = tuple(map(id, trained))  # which are not given to others, since the optimiser keeps its parameters
        self._recorded = self._recordings.get(key)
        if self._recorded is not None:
            self._recorded(torch.tensor(self.lr, dtype=torch.float64), *gradients)
            return
        started = all(self._optimizer.state[param] for param in trained)
        self._plain_step(self.lr)
        # Other optimisers may count in Python.
        if started and not self.not_recorded and type(self._optimizer) in (torch.optim.Adam, torch.optim.AdamW):
            try:
                if len(self._recordings) == MOST:
                    raise NotStatic("again and again, other parameters have a gradient")
                self._recordings[key] = self._recorded = self._record(trained, gradients)
            except Exception as error:  # whatever it was, the optimiser itself is still there to run
                known = isinstance(error, NotStatic)
                self.not_recorded = str(error) if known else f"recording it raises {type(error).__name__}: {error}"

    @torch.no_grad()
    def _drop_tiny_moments(self) -> None:
        for param, state in self._optimizer.state.items():
            if param.device.type == "cpu":
                for moment in state.values():
                    if isinstance(moment, Tensor) and moment.shape == param.shape and moment.dtype == torch.float32:
                        moment.mul_(moment.abs() >= TINY)

    def _plain_step(self, lr: float | Tensor) -> None:
        self._set_lr(lr)
        self._optimizer.step()

    def _set_lr(self, lr: float | Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _record(self, trained: list[Tensor], gradients: list[Tensor]) -> Callable[..., None]:
        """Return the tensor operations of a step, as a function of the learning rate and the gradients.

        Raises:
            NotStatic: When they do something else than the step itself, from where we are.
        """
        lr = torch.tensor(self.lr, dtype=torch.float64)
        try:
            recorded = record(lambda lr, *_: self._plain_step(lr), lr, *gradients, frozen=False)
        finally:
            self._set_lr(self.lr)
        states = [state for param in trained for state in self._optimizer.state[param].values()]
        changed = [tensor.detach() for tensor in (*trained, *states) if isinstance(tensor, Tensor)]
        before, results = [tensor.clone() for tensor in changed], []
        for step in (lambda: self._plain_step(self.lr), lambda: recorded(lr, *gradients)):
            with Rehearsal():
                step()
                results.append([tensor.clone() for tensor in changed])
        for old, new, again in zip(before, *results, strict=True):
            eps = torch.finfo(new.dtype).eps
            if not (new - again).norm() <= 10 * eps**0.5 * (new - old).norm() + 10 * eps * new.norm():
                raise NotStatic("the recorded step of the optimiser is not the same as its own")
        return recorded

    def state_of(self, param: Tensor) -> dict[str, Tensor]:
        """Return the optimiser's tensors for ``param`` (for Adam: two moments and the step)."""
        return self._optimizer.state[param] if self._optimizer and param in self._known else {}

    def restore(self, states: dict[Tensor, dict[str, Tensor]], steps: int) -> None:
        """Take up the tensors that ``state_of`` gave for each parameter after so many steps."""
        ordered = list(states)
        self._optimizer = self._construct(ordered)
        self._known = set(ordered)
        self._recordings, self._recorded, self.not_recorded = {}, None, ""
        self._steps = steps
        for param, state in states.items():
            self._optimizer.state[param] = state
