"""Making a recorded graph run fast: at any batch size, without needless work, as a plain Python function."""

import functools
import operator
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from pyro_vae.compiled.recorder import Recorder, is_mutable, is_random

aten = torch.ops.aten


def generalize(first: Recorder, second: Recorder, sizes: tuple[int, int]) -> bool:
    """Make the batch size an input of the first graph, by comparison with a recording at another size.

    Returns:
        Whether that could be done: whether they differ in integers only, each the same multiple of the size.
    """
    if len(first.graph.nodes) != len(second.graph.nodes):
        return False
    pairs = list(zip(first.graph.nodes, second.graph.nodes, strict=True))
    twin = {b: a for a, b in pairs}
    multiples: dict[int, fx.Node] = {1: first.inputs[0]}

    def merge(a: Any, b: Any) -> Any:
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            return [merge(x, y) for x, y in zip(a, b, strict=True)]
        if (twin[b] is a) if isinstance(b, fx.Node) else (type(a) is type(b) and a == b):
            return a
        factor, rest = divmod(a, sizes[0]) if type(a) is type(b) is int else (0, 1)
        if rest or b != factor * sizes[1]:
            raise _Differ
        if factor not in multiples:
            with first.graph.inserting_after(first.inputs[-1]):
                multiples[factor] = first.graph.call_function(operator.mul, (first.inputs[0], factor))
        return multiples[factor]

    def merge_nodes(a: fx.Node, b: fx.Node) -> tuple[Any, dict[str, Any]]:
        x, y = first.captured.get(a), second.captured.get(b)
        same = x is y or ("constant" in a.meta and "constant" in b.meta and _equal(x, y))
        if not same or (a.op == "call_function" and a.target != b.target) or a.kwargs.keys() != b.kwargs.keys():
            raise _Differ
        return merge(a.args, b.args), {name: merge(a.kwargs[name], b.kwargs[name]) for name in a.kwargs}

    try:
        merged = [merge_nodes(a, b) for a, b in pairs]
    except _Differ:
        return False
    for (a, b), (args, kwargs) in zip(pairs, merged, strict=True):
        a.args, a.kwargs = tuple(args), kwargs
        if "layouts" in a.meta:
            a.meta["layouts"] = a.meta["layouts"] + b.meta["layouts"]
        if "constant" in a.meta and not _equal(a.meta["constant"], b.meta.get("constant")):
            del a.meta["constant"]
    return True


class _Differ(Exception):
    pass


def _equal(x: Tensor | None, y: Tensor | None) -> bool:
    return x is not None and y is not None and x.dtype == y.dtype and torch.equal(x, y)


def simplify(recorded: Recorder) -> None:
    """Shorten the graph; its results, its noise and what it writes to stay the same."""
    _insert_constants(recorded)
    _drop_identities(recorded)
    _share_repetitions(recorded.graph)
    _drop_unused(recorded)
    _shorten_sums(recorded.graph)
    _drop_unused(recorded)
    _own_outputs(recorded.graph)
    _reuse_memory(recorded.graph)


def _insert_constants(recorded: Recorder) -> None:
    """Put constants in the place of what computes them, and one number in the place of a tensor full of it."""
    inserted: dict[Any, fx.Node] = {}

    def constant(value: Tensor, times: int) -> fx.Node:
        key = (value.dtype, value.device, value.item()) if value.dim() == 0 else id(value)
        if key not in inserted:
            with recorded.graph.inserting_after(recorded.inputs[-1]):
                node = recorded.graph.placeholder(f"constant_{len(inserted)}")
            layout = value.shape, value.stride(), value.storage_offset()
            node.meta = {"layouts": [layout] * times, "dtype": value.dtype, "constant": value, "root": node}
            inserted[key], recorded.captured[node] = node, value
        return inserted[key]

    def simpler(arg: fx.Node, node: fx.Node, number_will_do: bool) -> fx.Node:
        value = arg.meta.get("constant")
        if value is None:
            return arg
        shapes = _shapes(arg)
        number_will_do = number_will_do and value.dim() == 0 and value.dtype == node.meta["dtype"]
        return constant(value, len(shapes)) if number_will_do or shapes == [value.shape] * len(shapes) else arg

    for node in _operations(recorded.graph):
        if _acts(node) or "layouts" not in node.meta or not isinstance(node.target, torch._ops.OpOverload):
            continue
        varying = [arg for arg in node.all_input_nodes if "constant" not in arg.meta]
        broadcasts = torch.Tag.pointwise in node.target.tags and any(_shapes(arg) == _shapes(node) for arg in varying)
        node.args = map_arg(node.args, functools.partial(simpler, node=node, number_will_do=broadcasts))
        # Arithmetic with a number that is a tensor takes half the time of that with one of Python's.
        dtype = node.meta["dtype"]
        if (
            node.target in _ARITHMETIC
            and dtype in (torch.float32, torch.float64)
            and type(node.args[1]) in (int, float)
        ):
            number = constant(torch.tensor(node.args[1], dtype=dtype), len(node.meta["layouts"]))
            node.args = (node.args[0], number, *node.args[2:])


_ARITHMETIC = [
    getattr(operation, kind) for operation in (aten.mul, aten.add, aten.sub, aten.div) for kind in ("Tensor", "Scalar")
]


def _drop_identities(recorded: Recorder) -> None:
    """Remove operations that return their argument."""
    for node in _operations(recorded.graph):
        same = _same_as(node)
        if same is not None:
            _replace(node, same)


# These operations with these numbers do nothing.
_NEUTRAL = {aten.mul: 1, aten.div: 1, aten.add: 0, aten.sub: 0, aten.pow: 1}


def _same_as(node: fx.Node) -> fx.Node | None:
    """Return the earlier value that the operation returns again, if there is one."""
    func, args = node.target, node.args
    if not isinstance(func, torch._ops.OpOverload) or _acts(node) or "layouts" not in node.meta:
        return None
    viewed: Any = node
    while viewed.meta.get("root", viewed) is not viewed and isinstance(viewed.args[0], fx.Node):  # views of views
        viewed = viewed.args[0]
        if _layout(viewed) == _layout(node):
            return viewed
    if any("changes" in n.meta for n in (node, *node.all_input_nodes)):
        return None  # then, a copy is something else than its original
    packet, inputs = func.overloadpacket, node.all_input_nodes
    if packet is aten.neg and inputs[0].target is func:
        return inputs[0].all_input_nodes[0]
    if packet not in _NEUTRAL or len(args) < 2 or node.kwargs:  # such as how to round
        return None
    for x, number in zip(args[:2], args[1::-1], strict=True):
        if isinstance(x, fx.Node) and _is_number(number, _NEUTRAL[packet]) and _size(x) == _size(node):
            return x if x is args[0] or _commutes(node) else None
    return None


def _commutes(node: fx.Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return packet in (aten.mul, aten.add) and len(node.args) == 2 and not node.kwargs


def _is_number(arg: Any, number: float) -> bool:
    value = arg.meta.get("constant") if isinstance(arg, fx.Node) else arg
    return value is not None and getattr(value, "ndim", 0) == 0 and bool(value == number)


def _shorten_sums(graph: fx.Graph) -> None:
    """Sum up in one operation what is summed in two, and take the sum's sign instead of each element's."""
    for node in _operations(graph):
        while node.target is aten.sum.default and isinstance(node.args[0], fx.Node) and not node.kwargs:
            x = node.args[0]
            if len(x.users) > 1 or x.kwargs or "changes" in x.meta:
                break
            if x.target is aten.sum.dim_IntList:
                node.args = x.args[:1]
                graph.erase_node(x)
            elif x.target is aten.neg.default and x.meta["dtype"] == node.meta["dtype"]:
                x.target, x.args, node.target, node.args = aten.sum.default, x.args, aten.neg.default, (x,)
                x.meta |= {key: node.meta[key] for key in ("layouts", "dtype")}
                node = x
            else:
                break


def _share_repetitions(graph: fx.Graph) -> None:
    """Compute only once what is computed twice from the same arguments."""
    known: dict[Any, fx.Node] = {}
    for node in _operations(graph):
        if _acts(node) or any("changes" in n.meta for n in (node, *node.all_input_nodes)):
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        if known.setdefault(key, node) is not node:
            _replace(node, known[key])


def _drop_unused(recorded: Recorder) -> None:
    """Remove what nothing uses."""
    for node in reversed(recorded.graph.nodes):
        unused = not node.users and (node in recorded.captured or (node.op == "call_function" and not _acts(node)))
        if unused:
            recorded.captured.pop(node, None)
            recorded.graph.erase_node(node)


def _own_outputs(graph: fx.Graph) -> None:
    """Copy what is returned where it would share its memory with an input, a captured tensor or another output."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    taken: set[fx.Node] = set()

    def own(node: fx.Node) -> fx.Node:
        root = _root(node)
        if root.op == "placeholder" or root in taken:
            with graph.inserting_before(output):
                return graph.call_function(aten.clone.default, (node,))
        taken.add(root)
        return node

    returned: Any = output.args[0]  # twice the same, where two gradients are equal
    output.args = (tuple([own(node) for node in returned]),)


def _reuse_memory(graph: fx.Graph) -> None:
    """Let elementwise operations write over an argument that nothing uses any more, which is still in the cache."""
    last = {_root(x): node for node in graph.nodes for x in node.all_input_nodes if "root" in x.meta}
    for node in _operations(graph):
        func, inputs = node.target, node.all_input_nodes
        if not isinstance(func, torch._ops.OpOverload) or torch.Tag.pointwise not in func.tags or _acts(node):
            continue
        in_place = getattr(getattr(aten, f"{func.overloadpacket.__name__}_", None), func._overloadname, None)
        inputs = [x for x in inputs if "root" in x.meta]  # the batch size is a number
        for x in inputs if _commutes(node) else [x for x in inputs if x is node.args[0]]:
            root = _root(x)
            alone = all(y is x or _root(y) is not root for y in inputs)
            if in_place and alone and last[root] is node and root.op != "placeholder" and _layout(x) == _layout(node):
                node.target = in_place
                node.args = node.args if node.args[0] is x else (x, node.args[0], *node.args[2:])
                node.meta["root"], last[root] = root, last[node]
                break


def translate(recorded: Recorder) -> Callable[..., tuple[Tensor, ...]]:
    """Return the graph as a Python function of the batch size and the inputs."""
    for node in _operations(recorded.graph):
        node.target = _direct(node)
    code = recorded.graph.python_code("self")
    exec(code.src, code.globals)
    run = code.globals["forward"]
    captured = [recorded.captured[node] for node in recorded.graph.nodes if node in recorded.captured]
    return lambda *inputs: run(None, *inputs, *captured)


def _direct(node: fx.Node) -> Any:
    """Return torch's own function for an operation where there is one, since calling it takes half the time."""
    func = node.target
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return func
    if any(isinstance(arg, list | tuple) and None in arg for arg in node.args):
        return func  # a list with gaps, which torch's functions don't take
    for owner, kind in (
        (torch._C._VariableFunctions, types.BuiltinFunctionType),
        (Tensor, types.MethodDescriptorType),
    ):
        direct = getattr(owner, func.overloadpacket.__name__, None)
        if isinstance(direct, kind):
            return direct
    return func


def _operations(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _acts(node: fx.Node) -> bool:
    """Whether an operation does more than to return a value: it draws a random number, or writes to an argument."""
    func = node.target
    return isinstance(func, torch._ops.OpOverload) and (is_random(func) or is_mutable(func))


def _layout(node: fx.Node) -> Any:
    """Return dtype, shape, strides and offset, in each recording."""
    return node.meta.get("dtype"), node.meta.get("layouts")


def _size(node: fx.Node) -> Any:
    """Return dtype and shape, in each recording."""
    return node.meta.get("dtype"), _shapes(node)


def _shapes(node: fx.Node) -> list[torch.Size]:
    return [shape for shape, *_ in node.meta.get("layouts", ())]


def _replace(node: fx.Node, equal: fx.Node) -> None:
    node.replace_all_uses_with(equal)
    node.meta["equal"] = equal


def _root(node: fx.Node) -> fx.Node:
    """Return the node whose memory the value is in."""
    if "equal" in node.meta:
        return _root(node.meta["equal"])
    root = node.meta["root"]
    return node if root is node else _root(root)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((name, _hashable(item)) for name, item in value.items()))
    return type(value), value
