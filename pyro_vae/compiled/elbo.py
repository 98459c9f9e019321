"""An ELBO whose program is recorded once, so that Pyro's handlers and autograd cost nothing in the steps after it."""

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pyro.infer import ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor

from pyro_vae.compiled.call import Call, scheduled
from pyro_vae.compiled.program import Program, compare, explore
from pyro_vae.compiled.reach import NotStatic, Reach
from pyro_vae.compiled.rehearsing import rehearsing, unchecked, without_other_noise
from pyro_vae.compiled.state import Undo

MOST = 32  # how many recordings to keep
WORTH, HASTY = 20, 5  # how many recordings may follow one another within fewer than so many steps


class _TooOften(NotStatic):
    """A program would have to be recorded again and again."""


class CompiledELBO(ELBO):
    r"""Any of Pyro's objectives, or of ours, without the cost of a probabilistic program.

    At the first call, one run of ``objective.loss_and_grads`` is recorded as a list of tensor operations, those of the
    backward pass included. Every later call runs that list, with new noise, on the values that the parameters have
    then. The loss and its gradients are those of the objective; the loss comes as a tensor, so that nothing waits for
    a GPU.

    The operations have to be the same at each step. So the numbers that change from step to step should be
    arguments, or tensors that are changed in place, such as buffers: floats and tensors may have any value. For
    another integer or string, for a larger batch, and where something changed that the program reads (an attribute,
    a global variable, the mode of training, which weights are trained or are there), the program is recorded again.
    Smaller batches, down to two, mostly need no other recording. What was recorded is compared with a run of the
    objective, once for each batch size, before it is used. A program that would have to be recorded again and again
    is run as it is from then on, which a warning says.

    Args:
        objective: What to compile, such as ``Trace_ELBO()``.
        fallback: Where that can't be done, go on with the objective as it is, as if nothing had been tried.

    Attributes:
        objective: The same. Its ``loss`` and ``differentiable_loss`` are used as they are.
        traces: How many times a program was recorded until now.
        not_compiled: Why it goes on with the objective as it is; empty while it does not.

    Raises:
        NotStatic: From ``loss_and_grads``, without ``fallback``, when the program can't be recorded, such as since
            its operations depend on the values of tensors, with the reason.

    Example:
        >>> import pyro, torch
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4)), torch.ones(8, 16)
        >>> elbo = CompiledELBO(Trace_ELBO())
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)
        >>> losses = [svi.step(batch) for batch in (x, x, x[:5])]
        >>> elbo.traces
        1
    """

    def __init__(self, objective: ELBO, fallback: bool = False):
        super().__init__(num_particles=objective.num_particles, max_plate_nesting=objective.max_plate_nesting)
        self.objective: Any = objective
        self.fallback = fallback
        self.traces = 0
        self.not_compiled = ""
        self._programs: dict[Any, list[Program]] = {}  # of each kind of call and batch size
        self._steps = self._last = 0  # until now, and until the last recording
        self._hasty = 0  # recordings that came soon after another

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float | Tensor:
        """Compute the loss, in nats, and add its gradient to that of each parameter."""
        self._steps += 1
        call = Call(model, guide, args, kwargs)
        program, reason = self._prepare(call)
        if program is None:
            loss = self.objective.loss_and_grads(model, guide, *args, **kwargs)  # raises what errors are its own
            self.not_compiled = reason
            return loss
        if hasattr(self.objective, "advance"):
            self.objective.advance()
        return program.step(
            call, [getattr(self.objective, name)() for name in scheduled(self.objective)], self.objective
        )

    def prepare(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> None:
        """Record the program where that is still to be done, and take no step.

        Raises:
            NotStatic: Without ``fallback``, when it can't be recorded, with the reason.
        """
        self.not_compiled = self._prepare(Call(model, guide, args, kwargs))[1]

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the objective's own loss, in nats."""
        return self.objective.loss(model, guide, *args, **kwargs)

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Return the objective's own differentiable loss, in nats."""
        return self.objective.differentiable_loss(model, guide, *args, **kwargs)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        return self.objective._get_trace(model, guide, args, kwargs)

    def _prepare(self, call: Call) -> tuple[Program | None, str]:
        """Return the program for this call, recorded and compared with the objective; or why there is none."""
        if self.not_compiled:
            return None, self.not_compiled
        undo: Undo | None = None
        try:
            _require_no_handlers()
            call.check()
            for program in self._programs.get((call.key(), call.size), ()):
                if program.has_params() and program.state.holds():
                    return program, ""
            if self.fallback:
                undo = Undo(self._reach(call))
            with rehearsing(call.device):
                return self._record(call), ""
        except Exception as error:
            known, often = isinstance(error, NotStatic), isinstance(error, _TooOften)
            reason = str(error) if known else f"recording it raises {type(error).__name__}: {error}"
            reason = reason.partition("\n")[0]  # Pyro appends the shapes of all sites
            if self.fallback or often:
                if undo is not None:
                    undo()
                if not self.fallback:
                    warnings.warn(f"the program is not compiled any more: {reason}", stacklevel=3)
                return None, reason
            if not known:
                raise
            name = type(self.objective).__name__
            raise NotStatic(f"the program can't be compiled: {reason}; use {name} instead of CompiledELBO") from error

    def _record(self, call: Call) -> Program:
        objective = copy.copy(self.objective)  # whose counters may move
        with without_other_noise():
            values, modules = explore(objective, call)
        key = call.key()
        known = list(dict.fromkeys(itertools.chain(*(ps for (k, _), ps in self._programs.items() if k == key))))
        current = [program for program in known if program.has_params() and program.state.holds()]
        checked = [program for program in current if program in self._programs.get((key, call.size), ())]
        if checked:  # Pyro had only forgotten the parameters' names
            return checked[0]
        with unchecked(), _explained():
            program = next((p for p in current if p.smallest <= call.size <= p.largest), None)
            if program is not None:
                try:
                    compare(program, objective, call)
                except NotStatic:  # after all, this size is special
                    program = None
            if program is None:
                self._require_rarity(known, bool(current), call)
                program = Program(objective, call, values, self._reach(call, objective, *modules))
                compare(program, objective, call)
                self.traces += 1
        if len(set(itertools.chain(*self._programs.values()))) == MOST:
            self._programs.clear()
        self._programs.setdefault((key, call.size), []).append(program)
        return program

    def _reach(self, call: Call, *more: Any) -> Reach:
        unread = ("advance", *scheduled(self.objective))  # of which each step asks anew
        return Reach([*call.pair, self.objective, *call.objects, *more], unread)

    def _require_rarity(self, known: list[Program], other_size: bool, call: Call) -> None:
        """Refuse to record one program after another, each for a few steps, which takes longer than to run them."""
        self._hasty = self._hasty + 1 if self.traces and self._steps - self._last < WORTH else 0
        self._last = self._steps
        if self._hasty < (MOST if other_size else HASTY):
            return
        changed = [slot.label for program in known[-1:] for slot, *_ in program.state.changed()]
        if changed:
            raise _TooOften(
                f"it reads {changed[0]}, which changes again and again; pass it as an argument of step, "
                "or keep it in a tensor that is changed in place, such as a buffer"
            )
        if all(key[0] != call.pair for key, _ in self._programs):
            raise _TooOften(
                "it is called with another model or guide again and again; make both once, outside of the loop"
            )
        raise _TooOften(
            "it is called in a new way again and again, with other batch sizes, or with other arguments than floats "
            "and tensors; pass numbers as floats"
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise any error in what the program itself has got through as one of recording it."""
    try:
        yield
    except NotStatic:
        raise
    except Exception as error:
        raise NotStatic(f"recording it raises {type(error).__name__}: {error}") from error


def _require_no_handlers() -> None:
    """Refuse handlers around the program, such as ``poutine.scale``, since a recording would not hear of them."""
    for handler in _PYRO_STACK:
        if not (isinstance(handler, TraceMessenger) and handler.param_only):
            raise NotStatic(f"it runs inside of a {type(handler).__name__}, which belongs into the model")
