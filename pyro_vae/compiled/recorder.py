"""Recording what a program does to tensors, as a graph of operations."""

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
Gradients: TypeAlias = dict[Tensor, Tensor]  # by leaf


class NotRecordable(RuntimeError):  # no ValueError, since Pyro would catch it
    """What the program does depends on the values of its tensors."""


class Rehearsal(TorchDispatchMode):
    """Runs a program without consequences: on leaving, all tensors and gradients are as they were.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> with Rehearsal() as rehearsal:
        ...     (w * w).sum().backward()
        ...     gradients = rehearsal.gradients()
        >>> gradients[w], w.grad
        (tensor([2., 2.]), None)
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen = WeakTensorKeyDictionary()
        self._gradients: dict[Tensor, Tensor | None] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}  # of tensors that were there before
        self._values: dict[int, torch.UntypedStorage] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else, torch would import its compiler, for seconds, to keep it away from this class

    def gradients(self) -> Gradients:
        """Return the gradients that the program computed, by the leaf that they belong to."""
        return {leaf: leaf.grad for leaf in self._gradients if leaf.grad is not None}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._find(tensor)
        for tensor in _written(func, args, kwargs):
            at = tensor.untyped_storage()._cdata
            if at in self._storages and at not in self._values:
                self._values[at] = self._storages[at].clone()
        out = self._run(func, args, kwargs)
        for tensor in _tensors(out):
            self._seen[tensor] = True
        return out

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        return func(*args, **kwargs)

    def _find(self, tensor: Tensor) -> None:
        if tensor not in self._seen:
            self._seen[tensor] = True
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage
        if tensor.requires_grad and tensor.is_leaf and tensor not in self._gradients:
            self._gradients[tensor] = tensor.grad
            tensor.grad = None

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for leaf, gradient in self._gradients.items():
            leaf.grad = gradient
        for at, value in self._values.items():
            self._storages[at].copy_(value)


class Recorder(Rehearsal):
    """A rehearsal that writes down each operation, those of the backward pass included.

    A tensor that comes neither from the inputs nor from an operation, such as a parameter, is captured: the graph
    will read it, and write to it, where it is. A number read by ``Tensor.item`` stays a tensor without a gradient.

    Args:
        inputs: The tensors that will be others when the graph runs again.
        replacements: Functions to use in the place of operations, in float32 on the CPU.
        frozen: Captured tensors keep their values, so that what depends on nothing else is computed only once.

    Attributes:
        graph: Its nodes have in their ``meta`` the ``dtype`` and ``layouts`` (shape, strides and offset, one from
            each recording) of the value; its ``root``, the node whose memory it is in; its value where that is
            ``constant`` (a single number where all elements are equal); and ``changes`` where something writes to it.
        captured: The captured tensors, by node.

    Raises:
        NotRecordable: From inside, when the program looks at the value of a tensor.
    """

    def __init__(
        self,
        inputs: Iterable[Tensor],
        replacements: Mapping[Any, Callable] = MappingProxyType({}),
        *,
        frozen: bool = False,
    ):
        super().__init__()
        self.frozen = frozen
        self.replacements = replacements
        self.graph = fx.Graph()
        self.captured: dict[fx.Node, Tensor] = {}
        self._nodes = WeakTensorKeyDictionary()
        self._numbers = _NumbersAsTensors(self)
        self.inputs = [self.graph.placeholder("size")]
        for tensor in inputs:
            self.inputs.append(self.graph.placeholder(f"input_{len(self.inputs)}"))
            self._register(tensor, self.inputs[-1])

    def __enter__(self) -> "Recorder":
        self._numbers.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def finish(self, outputs: Sequence[Tensor]) -> None:
        """Let the graph return ``outputs``."""
        self.graph.output(tuple(self.node(tensor) for tensor in outputs))

    def node(self, tensor: Tensor) -> fx.Node:
        """Return the node of a tensor, which is captured where it has none."""
        if tensor not in self._nodes:
            if tensor.requires_grad and not tensor.is_leaf:
                raise NotRecordable("it uses a tensor with a gradient that was computed outside of it")
            node = self.graph.placeholder(f"captured_{len(self.captured)}")
            self.captured[node] = tensor
            self._register(tensor, node)
            if self.frozen:
                node.meta["constant"] = tensor
        return self._nodes[tensor]

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether the tensor has the same value at each run."""
        return "constant" in self._nodes[tensor].meta if tensor in self._nodes else self.frozen

    def _register(self, tensor: Tensor, node: fx.Node, root: fx.Node | None = None) -> None:
        layout = tensor.shape, tensor.stride(), tensor.storage_offset()
        node.meta = {"layouts": [layout], "dtype": tensor.dtype, "root": root or node}
        self._nodes[tensor] = node

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        inputs = _tensors((args, kwargs))
        if func.namespace == "profiler":  # torch's optimisers report to it
            return func(*args, **kwargs)
        if func is aten.lift_fresh.default:  # a number in the program becomes a tensor
            func = aten.clone.default
            self.node(args[0]).meta["constant"] = args[0]
        constant = func in _FULL or all(self.is_constant(tensor) for tensor in inputs)
        if _looks_at_values(func, args) and not constant:
            raise NotRecordable(f"it looks at the value of a tensor{_place()}")
        if inputs and inputs[0].dtype is torch.float32 and inputs[0].device.type == "cpu" and func in self.replacements:
            TorchDispatchMode.__enter__(self)  # which is switched off in here
            try:
                return self.replacements[func](*args, **kwargs)
            finally:
                TorchDispatchMode.__exit__(self, None, None, None)

        out = func(*args, **kwargs)
        if isinstance(out, bool | int | float):
            return out
        node = self.graph.call_function(func, *tree_map_only(Tensor, self.node, (args, kwargs)))
        changed = {self.node(tensor).meta["root"] for tensor in _written(func, args, kwargs)}
        for other in self.graph.nodes if changed else ():
            if other.meta.get("root") in changed:
                other.meta.pop("constant", None)
                other.meta["changes"] = True
        roots = {tensor.untyped_storage()._cdata: self.node(tensor).meta["root"] for tensor in inputs}
        constant = constant and not changed and not is_random(func)
        for index, tensor in enumerate([out] if isinstance(out, Tensor) else out or ()):
            if isinstance(tensor, Tensor):
                item = node if out is tensor else self.graph.call_function(operator.getitem, (node, index))
                root = roots.get(tensor.untyped_storage()._cdata)
                self._register(tensor, item, root)
                if root is not None and "changes" in root.meta:
                    item.meta["changes"] = True
                elif constant and not func.__name__.startswith(("empty", "new_empty")):
                    item.meta["constant"] = _collapsed(tensor)
        return out


class _NumbersAsTensors(TorchFunctionMode):
    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.item, Tensor.tolist, Tensor.numpy) and not self.recorder.is_constant(args[0]):
            if func is Tensor.item:
                return args[0].detach().reshape(())
            raise NotRecordable(f"it looks at the value of a tensor{_place()}")
        return func(*args, **(kwargs or {}))


# Of their arguments' values, these do not depend on any.
_FULL = {
    getattr(aten, name).default
    for name in ("ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full")
}


def _looks_at_values(func: Any, args: tuple) -> bool:
    """Whether what Python sees of the result depends on the values of the arguments, and not on their shapes only."""
    if func is aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _place() -> str:
    """Return where in the program we are."""
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] not in ("torch", "contextlib") and module != __name__:
            return f" in line {frame.f_lineno} of {frame.f_code.co_filename}"
        frame = frame.f_back
    return ""


def _tensors(values: Any) -> list[Tensor]:
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    if any(tensor.layout is not torch.strided for tensor in tensors):
        raise NotRecordable(f"it uses a sparse tensor or gradient{_place()}")
    return tensors


# These write to their running statistics, and their schemas don't say so.
_WRITES = {aten.native_batch_norm.default: (3, 4), aten.cudnn_batch_norm.default: (3, 4)}


def is_random(func: Any) -> bool:
    """Whether an operation draws from torch's random generator."""
    return torch.Tag.nondeterministic_seeded in func.tags


def is_mutable(func: Any) -> bool:
    """Whether an operation may write to its arguments."""
    return func._schema.is_mutable or func in _WRITES


def _written(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """Return the arguments that an operation writes to."""
    found = [args[position] for position in _WRITES.get(func, ())]
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[position] if position < len(args) else kwargs.get(argument.name))
    return _tensors(found)


def _collapsed(tensor: Tensor) -> Tensor:
    """Return one of the tensor's elements where all are equal, else the tensor."""
    if tensor.numel() and (tensor == tensor.flatten()[0]).all():
        return tensor.flatten()[0].clone()
    return tensor
