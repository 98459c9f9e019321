"""Recording the tensor operations of a function, to repeat them without the Python around them."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class NotRecordable(ValueError):
    """The function's operations depend on the values of its tensors."""


class _Recorder(TorchDispatchMode):
    """Writes each operation that torch runs into a graph, but for those whose result is always the same."""

    def __init__(self, inputs: tuple[Tensor, ...]):
        super().__init__()
        self.graph, self.constants = fx.Graph(), torch.nn.Module()
        self.alive = list(inputs)  # nodes are found by a tensor's identity, which must not be given to another
        self.nodes = {id(tensor): self.graph.placeholder(f"input_{i}") for i, tensor in enumerate(inputs)}
        self.values = dict(zip(self.graph.nodes, inputs, strict=True))
        self.varying = set(self.nodes)
        self.fixed: set[int] = set()  # the memory of constants

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for over a second, at the first operation

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        varies = torch.Tag.nondeterministic_seeded in operation.tags or any(id(t) in self.varying for t in tensors)
        if operation is torch.ops.aten._local_scalar_dense.default and varies:
            raise NotRecordable("a number was read from a tensor")
        node = self.graph.call_function(operation, *tree_map(self._node_of, (args, kwargs))) if varies else None
        result = operation(*args, **kwargs)
        written = operation._schema.is_mutable and args[0].untyped_storage()._cdata in self.fixed
        for i, part in enumerate([result] if isinstance(result, Tensor) else result):
            self.alive.append(part)
            if node is None:
                self.fixed.add(part.untyped_storage()._cdata)
            else:
                own = node if part is result else self.graph.call_function(operator.getitem, (node, i))
                self.nodes[id(part)], self.values[own] = own, part
                self.varying.add(id(part))
        if written and varies:
            raise NotRecordable("a tensor that was there before was changed")
        return result

    def _node_of(self, value: Any) -> Any:
        """Return what stands for a value in the graph."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.nodes:  # a parameter, or what was computed from parameters alone
            name = f"constant_{len(self.alive)}"
            self.constants.register_buffer(name, value, persistent=False)
            self.nodes[id(value)] = node = self.graph.get_attr(name)
            self.values[node] = value
            self.alive.append(value)
            self.fixed.add(value.untyped_storage()._cdata)
        return self.nodes[id(value)]


def record(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[..., Tensor]:
    """Run a function once, and return the tensor operations that it ran, as a function of the same inputs.

    Shapes, and everything in the function that isn't a tensor operation, are those of this one run. Other tensors
    than the inputs, such as parameters, must not change afterwards. Noise is drawn afresh.

    Raises:
        NotRecordable: When the function looks at values, and so might run other operations for other inputs.

    Example:
        >>> double = record(lambda x: 2 * x, torch.ones(3))
        >>> double(torch.arange(3.0))
        tensor([0., 2., 4.])
    """
    recorder = _Recorder(inputs)
    with recorder:
        result = function(*inputs)
    recorder.graph.output(recorder._node_of(result))
    for node in reversed(recorder.graph.nodes):
        in_place = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op in ("call_function", "get_attr") and not node.users and not in_place:
            recorder.graph.erase_node(node)
    _reuse_memory(recorder.graph, recorder.values)
    return fx.GraphModule(recorder.constants, recorder.graph)


def _reuse_memory(graph: fx.Graph, values: dict[fx.Node, Tensor]) -> None:
    """Let an elementwise operation write its result over an argument that nothing uses any more."""

    def memory(node: fx.Node) -> int:
        return values[node].untyped_storage()._cdata if node in values else 0

    last_use = {memory(argument): node for node in graph.nodes for argument in node.all_input_nodes}
    kept = {memory(node) for node in graph.nodes if node.op in ("placeholder", "get_attr")}
    for node in graph.nodes:
        if node.op != "call_function" or torch.Tag.pointwise not in getattr(node.target, "tags", ()) or node.kwargs:
            continue
        packet = getattr(torch.ops.aten, node.target.overloadpacket.__name__ + "_", None)
        in_place = getattr(packet, node.target._overloadname, None)
        commutes = node.target in (torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor)
        for over, *others in (node.args, node.args[::-1]) if commutes else (node.args,):
            if in_place is None or not isinstance(over, fx.Node) or last_use[memory(over)] is not node:
                continue
            shared = memory(over) in kept or any(memory(o) == memory(over) for o in others if isinstance(o, fx.Node))
            old, new = values[over], values[node]
            alike = old.shape == new.shape and old.dtype == new.dtype and old.is_contiguous() and new.is_contiguous()
            if alike and not shared:
                node.target, node.args = in_place, (over, *others)
                break
