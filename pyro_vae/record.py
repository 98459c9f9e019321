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
                self.nodes[id(part)] = node if part is result else self.graph.call_function(operator.getitem, (node, i))
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
            self.nodes[id(value)] = self.graph.get_attr(name)
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
    return fx.GraphModule(recorder.constants, recorder.graph)
