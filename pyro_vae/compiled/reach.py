"""What a program may read besides its arguments: the attributes, items and variables that its code names."""

import builtins
import collections
import dis
import functools
import io
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

MISSING = object()
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.dtype, torch.device, torch.Size)
_LARGE = 1000  # items, above which a collection or an array is told by what it is and not by what is in it
_UNWATCHABLE = (Iterator, io.IOBase, random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
_OUTSIDE = ("time", "datetime", "random", "secrets", "uuid", "io", "_io")  # what they give is not in the program
_VARIES = "what it computes is not the same in each run"
_NOT_IN_A_STEP = ("__init__", "__new__", "__repr__", "__str__", "__del__", "__getstate__", "__setstate__")


class NotStatic(ValueError):
    """A program can't be compiled, since what it computes is not the same in each step."""


class Slot(NamedTuple):
    """Where a program may find a value.

    Attributes:
        holder: A dictionary, list, class, closure cell, or an object with attributes.
        name: What it is called there; ``len`` stands for how many there are.
        label: What it is called in messages.
    """

    holder: Any
    name: Any
    label: str

    @property
    def is_copy(self) -> bool:
        """Whether each reading makes a new object, to be compared by its value."""
        return self.name is len or isinstance(self.holder, np.ndarray | set)

    @property
    def read(self) -> Callable[[Any, Any], Any]:
        """A function of the name and a default, as ``dict.get``."""
        if self.name is len:
            return functools.partial(_length, self.holder)
        if self.is_copy:
            return functools.partial(_content, self.holder)
        if isinstance(self.holder, types.CellType):
            return functools.partial(_cell, self.holder)
        if isinstance(self.holder, list | collections.deque):
            return functools.partial(_item, self.holder)
        if isinstance(self.holder, dict | type):
            return (vars(self.holder) if isinstance(self.holder, type) else self.holder).get
        return functools.partial(getattr, self.holder)

    def write(self, value: Any) -> None:
        """Put a value back."""
        if self.is_copy:
            return  # what is in there has slots of its own
        if isinstance(self.holder, dict):
            self.holder.pop(self.name, None) if value is MISSING else self.holder.update({self.name: value})
        elif isinstance(self.holder, list | collections.deque):
            self.holder[self.name] = value
        elif value is MISSING:
            delattr(self.holder, self.name)
        else:
            setattr(self.holder, "cell_contents" if isinstance(self.holder, types.CellType) else self.name, value)


class Reach:
    """All that a program may read besides its arguments, as far as its code tells.

    From functions to closures, defaults and the global variables that they name; from objects to their attributes
    and methods; from collections to what is in them. An attribute counts where code names it: that of functions
    reached, or of the library classes that its object is of. The code of libraries is not followed any further,
    since their state is in their objects.

    Args:
        roots: What makes up the program: functions and objects.
        unread: Names of methods that are not part of it.

    Attributes:
        slots: What it may read.
        stores: The dictionaries and collections, global variables excepted, that it may write to.

    Raises:
        NotStatic: Where it may read what can't be watched, such as an iterator, a file or the clock.
    """

    def __init__(self, roots: Any, unread: tuple[str, ...] = ()):
        self.slots: list[Slot] = []
        self.stores: list[Any] = []
        self._unread = unread
        self._added: set[tuple[int, Any]] = set()
        self._names: set[str] = set()
        self._waiting: dict[str, list[Slot]] = {}  # for code that names them
        self._seen: dict[int, Any] = {}
        self._todo: list[tuple[Any, str]] = [(root, type(root).__name__) for root in roots]
        while self._todo:
            value, label = self._todo.pop()
            if not isinstance(value, (*PLAIN, Tensor)) and id(value) not in self._seen:
                self._seen[id(value)] = value  # so that its id is not given to another
                self._visit(value, label)

    def _visit(self, value: Any, label: str) -> None:
        if isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, types.ModuleType):
            if not _in_library(value.__name__):
                self._wait(vars(value), value.__name__)
        elif isinstance(value, dict | list | tuple | set | frozenset | collections.deque):
            self._visit_collection(value, label)
        elif isinstance(value, np.ndarray):
            if value.size <= _LARGE:
                self._add(Slot(value, "content", label))
        else:
            for part in (
                "__self__",
                "__func__",
                "__wrapped__",
                "func",
                "args",
                "keywords",
                "fget",
            ):  # of methods and the like
                if not isinstance(value, nn.Module) and type(value).__module__ in ("builtins", "functools"):
                    self._todo.append((getattr(value, part, None), label))
            self._visit_object(value)

    def _visit_function(self, function: types.FunctionType) -> None:
        code, variables = function.__code__, function.__globals__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._add(Slot(cell, name, f"{name!r} of {function.__qualname__}"))
        for name in ("__defaults__", "__kwdefaults__"):
            self._add(Slot(function, name, f"{name!r} of {function.__qualname__}"))
        if _in_library(variables.get("__name__", "")):
            return
        for name in _names(code, _GLOBALS):
            value = variables.get(name, vars(builtins).get(name, sys.modules.get(name)))
            source = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            if isinstance(value, types.ModuleType | types.BuiltinFunctionType | type) and source in _OUTSIDE:
                raise NotStatic(f"{_VARIES}: {function.__qualname__} uses {name!r}")
            of_library = isinstance(value, types.ModuleType | types.FunctionType | type) and _in_library(source or "")
            if name in variables and not of_library:
                self._add(Slot(variables, name, f"the global variable {name!r}"))
        for name in _names(code, _ATTRIBUTES):
            self._named(name)

    def _visit_collection(self, value: Any, label: str) -> None:
        if isinstance(value, dict | list | set | collections.deque):
            self._add(Slot(value, len, f"the length of {label}"))
            self.stores.append(value)
        if len(value) > _LARGE:
            return
        if isinstance(value, set):
            self._add(Slot(value, "content", f"the content of {label}"))
        elif isinstance(value, tuple | frozenset):
            self._todo += [(item, label) for item in value]
        else:
            for name in list(value) if isinstance(value, dict) else range(len(value)):
                self._add(Slot(value, name, f"{name!r} of {label}"))

    def _visit_object(self, value: Any) -> None:
        kind = type(value)
        attributes = _attributes(value)
        if attributes is not None:
            self.stores.append(attributes)
            self._wait(attributes, kind.__name__)
            for base in kind.__mro__:
                if _in_library(base.__module__) and base is not object:
                    for name in _named_in(base, self._unread) & attributes.keys():
                        self._add(Slot(attributes, name, f"{name!r} of {kind.__name__}"))
            if isinstance(value, nn.Module):
                self._add(Slot(attributes, "forward", f"'forward' of {kind.__name__}"))
        self._visit_class(kind, value)

    def _visit_class(self, cls: type, instance: Any = None) -> None:
        """Visit what is in a class and its bases, also where one of its objects may have it instead."""
        libraries = [base for base in cls.__mro__ if _in_library(base.__module__)]
        inherited = {name for base in libraries for name in vars(base)}
        attributes = _attributes(instance)
        for base in cls.__mro__:
            names = vars(base).keys() - {*self._unread, *_NOT_IN_A_STEP, "__dict__", "__weakref__"}
            if base in libraries or not names:
                continue
            self._wait(dict.fromkeys(names), cls.__name__, base)
            if attributes is not None:
                self._wait(dict.fromkeys(names), cls.__name__, attributes)
            elif instance is not None:
                slots = {name for name in names if isinstance(vars(base)[name], types.MemberDescriptorType)}
                self._wait(dict.fromkeys(slots), cls.__name__, instance)
            for name in names:
                if name in inherited or name.startswith("__"):  # libraries or Python call it
                    self._named(name)

    def _wait(self, names: Any, owner: str, holder: Any = None) -> None:
        """Add slots as soon as there is code that names them."""
        for name in list(names):
            slot = Slot(names if holder is None else holder, name, f"{name!r} of {owner}")
            if name in self._names:
                self._add(slot)
            else:
                self._waiting.setdefault(name, []).append(slot)

    def _named(self, name: str) -> None:
        self._names.add(name)
        for slot in self._waiting.pop(name, ()):
            self._add(slot)

    def _add(self, slot: Slot) -> None:
        if (id(slot.holder), slot.name) in self._added:
            return
        self._added.add((id(slot.holder), slot.name))
        value = slot.read(slot.name, MISSING)
        bound = isinstance(value, types.MethodType | types.BuiltinMethodType)
        if isinstance(value.__self__ if bound else value, _UNWATCHABLE):
            raise NotStatic(f"{_VARIES}: {slot.label} is of a generator, an iterator or a file")
        self.slots.append(slot)
        self._todo.append((value, slot.label))


def _attributes(value: Any) -> dict[str, Any] | None:
    try:
        attributes = object.__getattribute__(value, "__dict__")  # and no __getattr__ of the object's own
    except AttributeError:
        return None
    return attributes if isinstance(attributes, dict) else None


def _length(holder: Any, name: Any, default: Any) -> int:
    return len(holder)


def _content(holder: Any, name: Any, default: Any) -> Any:
    return frozenset(holder) if isinstance(holder, set) else holder.tobytes()


def _item(holder: Any, index: int, default: Any) -> Any:
    return holder[index] if index < len(holder) else default


def _cell(holder: types.CellType, name: str, default: Any) -> Any:
    try:
        return holder.cell_contents
    except ValueError:  # nothing is in it
        return default


@functools.cache
def _in_library(module: str) -> bool:
    """Whether a module is one that keeps no variables of its own that programs depend on."""
    if module == "__main__":
        return False
    root = module.partition(".")[0]
    file = getattr(sys.modules.get(module, sys.modules.get(root)), "__file__", None) or ""
    ours = __name__.partition(".")[0]
    return root in sys.stdlib_module_names or root == ours or "site-packages" in file or "dist-packages" in file


@functools.lru_cache(maxsize=1000)
def _names(code: types.CodeType, operations: tuple[str, ...]) -> frozenset[str]:
    """Return the names that some operations of a function's code are about, in the functions inside of it too."""
    found = [i.argval for i in dis.get_instructions(code) if i.opname.startswith(operations)]
    for constant in found:  # what is in a tuple comes behind
        found += constant if isinstance(constant, tuple | frozenset) else ()
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return frozenset({name for name in found if isinstance(name, str)}.union(*(_names(c, operations) for c in inner)))


_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM", "LOAD_CONST")  # or by a string


@functools.lru_cache(maxsize=1000)
def _named_in(cls: type, unread: tuple[str, ...]) -> frozenset[str]:
    """Return the attributes that the methods of a library's class read."""
    if cls is nn.Module:
        return _OF_MODULES
    parts = [value for name, value in vars(cls).items() if name not in unread and name not in _NOT_IN_A_STEP]
    functions = [getattr(part, "fget", getattr(part, "__func__", part)) for part in parts]
    codes = [function.__code__ for function in functions if isinstance(function, types.FunctionType)]
    return frozenset().union(*(_names(code, _ATTRIBUTES) for code in codes))


# What matters in a step; its code also names what is for loading and saving.
_OF_MODULES = frozenset(
    [
        *("training", "_parameters", "_buffers", "_modules"),
        *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    ]
)
