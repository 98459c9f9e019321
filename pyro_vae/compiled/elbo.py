"""An ELBO whose program is recorded once, so that Pyro's handlers and autograd cost nothing in the steps after it."""

import contextlib
import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
import pyro.util
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_vae.compiled.faster import FASTER
from pyro_vae.compiled.recorder import NotRecordable, Recorder, Rehearsal
from pyro_vae.compiled.rewriting import generalize, simplify, translate

SMALL = 2  # the other batch size to record at; many programs treat a batch of one in a way of its own
MOST = 32  # how many recordings to keep


class NotStatic(ValueError):
    """A program can't be compiled, since what it computes is not the same in each step."""


class CompiledELBO(ELBO):
    r"""Any of Pyro's objectives, or of ours, without the cost of a probabilistic program.

    At the first call, one run of ``objective.loss_and_grads`` is recorded as a list of tensor operations, those of the
    backward pass included. Every later call runs that list, with new noise, on the values that the parameters have
    then. The loss and its gradients are those of the objective; the loss comes as a tensor, so that nothing waits for
    a GPU.

    The operations have to be the same at each step. So the numbers that change from step to step have to be
    arguments: floats and tensors may have any value, while for another integer, string or mode of training, and for
    a larger batch, the program is recorded again. Smaller batches, down to two, need no other recording. What was
    recorded is compared with a run of the objective, once for each batch size, before it is used.

    Args:
        objective: What to compile, such as ``Trace_ELBO()``.

    Attributes:
        objective: The same. Its ``loss`` and ``differentiable_loss`` are used as they are.
        traces: How many times a program was recorded until now.

    Raises:
        NotStatic: From ``loss_and_grads``, when the operations depend on the values of tensors, with the reason.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_vae import build
        >>> vae, x = build((1, 4, 4)), torch.ones(8, 16)
        >>> elbo = CompiledELBO(Trace_ELBO())
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)
        >>> losses = [svi.step(batch) for batch in (x, x, x[:5])]
        >>> elbo.traces
        1
    """

    def __init__(self, objective: ELBO):
        super().__init__(num_particles=objective.num_particles, max_plate_nesting=objective.max_plate_nesting)
        self.objective: Any = objective
        self.traces = 0
        self._modules: dict[Any, list[nn.Module]] = {}  # of each pair of model and guide
        self._programs: dict[Any, _Program] = {}

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the loss, in nats, and add its gradient to that of each parameter."""
        call = _Call(model, guide, args, kwargs)
        program = self._prepare(call)
        if hasattr(self.objective, "advance"):
            self.objective.advance()
        return program.step(call, [getattr(self.objective, name)() for name in _scheduled(self.objective)])

    def prepare(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> None:
        """Record the program where that is still to be done, and take no step.

        Raises:
            NotStatic: When it can't be recorded, with the reason.
        """
        self._prepare(_Call(model, guide, args, kwargs))

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the objective's own loss, in nats."""
        return self.objective.loss(model, guide, *args, **kwargs)

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Return the objective's own differentiable loss, in nats."""
        return self.objective.differentiable_loss(model, guide, *args, **kwargs)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        return self.objective._get_trace(model, guide, args, kwargs)

    def _prepare(self, call: "_Call") -> "_Program":
        """Return the program for this call, recorded and compared with the objective."""
        try:
            _require_no_handlers()
            call.check()
            program = self._programs.get((call.key(self._modules.get(call.pair, ())), call.size))
            if program is not None and program.is_current():
                return program
            with _rehearsing(call.device):
                return self._record(call)
        except NotStatic as error:
            name = type(self.objective).__name__
            raise NotStatic(f"the program can't be compiled: {error}; use {name} instead of CompiledELBO") from error

    def _record(self, call: "_Call") -> "_Program":
        objective = copy.copy(self.objective)  # whose counters may move
        values, self._modules[call.pair] = _explore(objective, call)
        key = call.key(self._modules[call.pair])
        checked = self._programs.get((key, call.size))
        if checked is not None and checked.is_current():  # Pyro had only forgotten the parameters' names
            return checked
        recorded = {p for (k, _), p in self._programs.items() if k == key and p.is_current()}
        program = next((p for p in recorded if p.smallest <= call.size <= p.largest), None)
        with _unchecked():
            if program is None:
                program = _Program(objective, call, values)
                self.traces += 1
            _compare(program, objective, call)
        if len(set(self._programs.values())) == MOST:
            self._programs.clear()
        self._programs[key, call.size] = program
        return program


class _Call:
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

    def key(self, modules: Sequence[nn.Module]) -> tuple:
        """Return what a recording depends on, besides the batch size."""
        kind = self.device.type
        parts: list[Any] = [self.pair, self.structure, torch.is_grad_enabled()]
        parts += [torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)]
        parts += [module.training for module in modules]
        for value in self.values:
            if isinstance(value, Tensor):
                batched = self._is_batch(value)
                parts += [value.dtype, value.device, batched, value.shape[batched:]]
            else:
                parts += [type(value), None if isinstance(value, float) else value]
        return tuple(parts)

    def inputs(self, scheduled: Sequence[float]) -> list[Tensor]:
        """Return the tensors, and the floats as tensors."""
        values = [*(value for value in self.values if isinstance(value, Tensor | float)), *scheduled]
        dtype = next((x.dtype for x in values if isinstance(x, Tensor) and x.is_floating_point()), None)
        return [x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype) for x in values]

    def run(self, objective: Any, inputs: Sequence[Tensor] | None = None) -> Any:
        """Return the loss of the objective at these arguments, or with ``inputs`` in their place."""
        own = (value for value in self.values if isinstance(value, Tensor | float))
        given: Iterator[Any] = iter(inputs) if inputs else itertools.chain(own, _rehearsed(objective))
        values = [next(given) if isinstance(value, Tensor | float) else value for value in self.values]
        for name in _scheduled(objective):
            setattr(objective, name, functools.partial(_as_it_is, next(given)))
        args, kwargs = _rebuild(self.structure, iter(values))
        return objective.loss_and_grads(*self.pair, *args, **kwargs)

    def resized(self, size: int) -> "_Call":
        """Return a call on the first data only."""
        values = [value[:size].clone() if self._is_batch(value) else value for value in self.values]
        return _Call(*self.pair, *_rebuild(self.structure, iter(values)))

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


class _Program:
    """A recording that can run.

    Attributes:
        smallest, largest: The batch sizes that it can run at.
    """

    def __init__(self, objective: Any, call: _Call, values: dict[str, Any]):
        self.smallest = self.largest = call.size
        recorded, self._leaves = _trace(objective, call)
        if call.size > SMALL:
            with contextlib.suppress(Exception):  # then, this batch size is the only one
                if generalize(recorded, _trace(objective, call.resized(SMALL))[0], (call.size, SMALL)):
                    self.smallest = SMALL
        simplify(recorded)
        self._run = translate(recorded)
        self._values = values
        stored = pyro.get_param_store()._params
        self._params = {name: stored[name] for name in values if name in stored}  # others are a module's own

    def is_current(self) -> bool:
        """Whether Pyro's parameters are those that were recorded."""
        store = pyro.get_param_store()
        for name, param in self._params.items():
            if store._params.get(name) is not param:
                return False
            if not hasattr(param, "unconstrained"):  # which the store drops when its state is taken
                store[name]
        return True

    def step(self, call: _Call, scheduled: Sequence[float]) -> Tensor:
        """Return the loss, and add its gradients to those of the parameters."""
        handler: Any
        for handler in _PYRO_STACK:  # SVI listens for the parameters
            for name, value in self._values.items():
                value = value if value.unconstrained() is value else pyro.get_param_store()[name]
                handler.trace.add_node(name, type="param", name=name, value=value)
        with torch.no_grad(), _no_autocast(call.device):  # casts are in the graph
            loss, *gradients = self._run(call.size, *call.inputs(scheduled))
            for leaf, gradient in zip(self._leaves, gradients, strict=True):
                leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
        return loss


def _require_no_handlers() -> None:
    """Refuse handlers around the program, such as ``poutine.scale``, since a recording would not hear of them."""
    for handler in _PYRO_STACK:
        if not (isinstance(handler, TraceMessenger) and handler.param_only):
            raise NotStatic(f"it runs inside of a {type(handler).__name__}, which belongs into the model")


def _explore(objective: Any, call: _Call) -> tuple[dict[str, Any], list[nn.Module]]:
    """Run the program once, so that it sets up what it does at its first run; return its parameters and modules."""
    modules: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, _: modules.append(module))
    try:
        with poutine.trace(param_only=True) as seen, Rehearsal():
            call.run(objective)
    finally:
        hook.remove()
    owners = [getattr(program, "__self__", program) for program in call.pair]
    modules += [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules()]
    return {name: site["value"] for name, site in seen.trace.nodes.items()}, list(dict.fromkeys(modules))


def _trace(objective: Any, call: _Call) -> tuple[Recorder, list[Tensor]]:
    """Record a run of the program; return the recording, and the leaves whose gradients follow the loss in it."""
    inputs = call.inputs(_rehearsed(objective))
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


def _compare(program: _Program, objective: Any, call: _Call) -> None:
    """Compare a recording with the objective itself, on the same noise.

    Raises:
        NotStatic: When they differ.
    """
    start, results = _noise(call.device), []
    for run in (lambda: call.run(objective), lambda: program.step(call, _rehearsed(objective))):
        _set_noise(call.device, start)
        with Rehearsal() as rehearsal:
            loss = float(run())
            gradients = rehearsal.gradients()
        results.append((loss, gradients, _noise(call.device)))
    (loss, gradients, noise), (loss_again, gradients_again, noise_again) = results
    tolerance = 10 * max((torch.finfo(g.dtype).eps for g in gradients.values()), default=1e-7) ** 0.5
    scale = sum(float(g.norm()) for g in gradients.values())
    same = math.isclose(loss, loss_again, rel_tol=tolerance, abs_tol=tolerance) or loss != loss != loss_again
    same = same and gradients.keys() == gradients_again.keys()
    same = same and all(not (g - gradients_again[leaf]).norm() > tolerance * scale for leaf, g in gradients.items())
    if not same or not all(map(torch.equal, noise, noise_again)):
        raise NotStatic("what it computes is not the same in each run, even with the same noise")


@contextlib.contextmanager
def _rehearsing(device: torch.device) -> Iterator[None]:
    """Run programs without looking at values, and without consequences for torch's random numbers."""
    is_nan, cached = pyro.util.torch_isnan, torch.is_autocast_cache_enabled()
    pyro.util.torch_isnan = lambda value: False  # type: ignore[assignment]
    torch.clear_autocast_cache()  # of weights, which would be recorded as they are now
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        pyro.util.torch_isnan = is_nan


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    """Let distributions accept all values, also those that were made to check theirs."""
    validate = Distribution._validate_sample
    Distribution._validate_sample = lambda self, value: None  # type: ignore[method-assign]
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution._validate_sample = validate  # type: ignore[method-assign]


def _noise(device: torch.device) -> list[Tensor]:
    """Return the state of torch's random generators."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _set_noise(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _no_autocast(device: torch.device) -> Any:
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else contextlib.nullcontext()


def _scheduled(objective: Any) -> Sequence[str]:
    """Return the methods of an objective that give the numbers in it that change from step to step."""
    return getattr(objective, "scheduled", ())


def _rehearsed(objective: Any) -> list[float]:
    """Return what stands for those numbers until they are known."""
    return [0.5] * len(_scheduled(objective))


def _as_it_is(value: Any) -> Any:
    return value
