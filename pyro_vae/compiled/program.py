"""A recording of a program, which can run in its place; how it is made, and compared with the program."""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_vae.compiled.call import Call, rehearsed
from pyro_vae.compiled.faster import FASTER
from pyro_vae.compiled.reach import NotStatic, Reach, Slot
from pyro_vae.compiled.recorder import NotRecordable, Recorder, Rehearsal
from pyro_vae.compiled.rehearsing import noise, set_noise
from pyro_vae.compiled.rewriting import generalize, simplify, translate
from pyro_vae.compiled.state import State, is_plain

SMALL = 2  # the other batch size to record at; many programs treat a batch of one in a way of its own


class Program:
    """A recording that can run.

    Args:
        objective: A copy of the objective, to run.
        call: The arguments to record at.
        values: The program's parameters, by name.
        reach: What it reads.

    Attributes:
        smallest, largest: The batch sizes that it can run at.
        state: What it read, whose change makes it another program.
    """

    def __init__(self, objective: Any, call: Call, values: dict[str, Any], reach: Reach):
        self.smallest = self.largest = call.size
        before = State(reach.slots)
        recorded, self._leaves = _trace(objective, call)
        written = _written(before, recorded)
        if call.size > SMALL:
            after = State(before.slots)
            with contextlib.suppress(Exception):  # then, this batch size is the only one
                if generalize(recorded, _trace(objective, call.resized(SMALL))[0], (call.size, SMALL)):
                    self.smallest = SMALL
            written |= {
                (id(slot.holder), slot.name) for slot, *_ in after.changed()
            }  # so it writes them anew in each run
        self.state = State(_read(before.slots, written, list(recorded.captured.values())))
        simplify(recorded)
        self._run = translate(recorded)
        self._values = values
        stored = pyro.get_param_store()._params
        self._params = {  # others are a module's own, even where the store has one of that name
            name: stored[name]
            for name, value in values.items()
            if name in stored and stored[name] is value.unconstrained()
        }

    def has_params(self) -> bool:
        """Whether Pyro's parameters are those that were recorded."""
        store = pyro.get_param_store()
        for name, param in self._params.items():
            if store._params.get(name) is not param:
                return False
            if not hasattr(param, "unconstrained"):  # which the store drops when its state is taken
                store[name]
        return True

    def step(self, call: Call, numbers: Sequence[float], objective: Any = None) -> Tensor:
        """Return the loss, and add its gradients to those of the parameters.

        Where the loss is not finite, the ``objective`` warns of it, or raises an error, as it would by itself.
        """
        handler: Any
        for handler in _PYRO_STACK:  # SVI listens for the parameters
            for name, value in self._values.items():
                if name in self._params and value.unconstrained() is not value:
                    value = pyro.get_param_store()[name]
                handler.trace.add_node(name, type="param", name=name, value=value)
        with torch.no_grad(), _no_autocast(call.device):  # casts are in the graph
            loss, *gradients = self._run(call.size, *call.inputs(numbers))
        if objective is not None and loss.device.type == "cpu" and not math.isfinite(loss):  # a GPU would have to wait
            with torch.random.fork_rng([]), Rehearsal():
                call.run(copy.copy(objective))
        with torch.no_grad():
            for leaf, gradient in zip(self._leaves, gradients, strict=True):
                leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
        return loss


def explore(objective: Any, call: Call) -> tuple[dict[str, Any], list[nn.Module]]:
    """Run the program once, so that it sets up what it does at its first run; return its parameters and modules."""
    modules: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, _: modules.append(module))
    try:
        with poutine.trace(param_only=True) as seen, Rehearsal():
            call.run(objective)
    except NotRecordable as error:
        raise NotStatic(str(error)) from error
    finally:
        hook.remove()
    owners = [getattr(program, "__self__", program) for program in call.pair]
    modules += [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    return {name: site["value"] for name, site in seen.trace.nodes.items()}, list(dict.fromkeys(modules))


def _written(before: State, recorded: Recorder) -> set[tuple]:
    """Return what a run writes to for itself.

    Raises:
        NotStatic: When it writes numbers, or tensors that the next run reads, since the recording would not.
    """
    read = {_memory(tensor) for tensor in recorded.captured.values()}
    for slot, old, new in before.changed():
        if is_plain(old) or is_plain(new):
            raise NotStatic(f"what it computes is not the same in each run: it changes {slot.label}")
        if isinstance(old, Tensor) and _memory(old) in read:
            raise NotStatic(f"it puts another tensor into {slot.label} in each run, which should be changed in place")
    return {(id(slot.holder), slot.name) for slot, *_ in before.changed()}


def _read(slots: Sequence[Slot], written: set[tuple], captured: Sequence[Tensor]) -> Iterator[Slot]:
    """Give the slots that a recording depends on: of tensors, those that are in it."""
    memory = set(map(_memory, captured))
    for slot in slots:
        value = slot.read(slot.name, None)
        if (id(slot.holder), slot.name) not in written and (not isinstance(value, Tensor) or _memory(value) in memory):
            yield slot
    for tensor in captured:
        yield from (Slot(tensor, name, f"{name!r} of a tensor") for name in ("requires_grad", "dtype"))


def _memory(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor from others'."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def _trace(objective: Any, call: Call) -> tuple[Recorder, list[Tensor]]:
    """Record a run of the program; return the recording, and the leaves whose gradients follow the loss in it."""
    inputs = call.inputs(rehearsed(objective))
    try:
        with Recorder(inputs, FASTER) as recorder:
            loss = torch.as_tensor(call.run(objective, inputs))
            gradients = recorder.gradients()
            recorder.finish([loss, *gradients.values()])
    except NotRecordable as error:
        raise NotStatic(str(error)) from error
    except Exception as error:  # it ran before, with numbers where there are tensors now
        raise NotStatic(f"with tensors for numbers it raises {type(error).__name__}: {error}") from error
    return recorder, list(gradients)


def compare(program: Program, objective: Any, call: Call) -> None:
    """Compare a recording with the objective itself, on the same noise.

    Raises:
        NotStatic: When they differ.
    """
    start, results = noise(call.device), []
    for run in (lambda: call.run(objective), lambda: program.step(call, rehearsed(objective))):
        set_noise(call.device, start)
        with Rehearsal() as rehearsal:
            loss = run()
            gradients = rehearsal.gradients()
        results.append((float(loss), gradients, noise(call.device)))
    (own, gradients, drawn), (again, gradients_again, drawn_again) = results
    tolerance = _tolerance(loss)  # the recording's loss is a tensor
    scale = sum(float(g.norm()) for g in gradients.values())
    same = math.isclose(own, again, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(own) and math.isnan(again))
    same = same and gradients.keys() == gradients_again.keys()
    same = same and all(not (g - gradients_again[leaf]).norm() > _tolerance(g) * scale for leaf, g in gradients.items())
    if not same or not all(map(torch.equal, drawn, drawn_again)):
        raise NotStatic("what it computes is not the same in each run, even with the same noise")


def _tolerance(result: Tensor) -> float:
    return 10 * torch.finfo(result.dtype).eps ** 0.5


def _no_autocast(device: torch.device) -> Any:
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else contextlib.nullcontext()
