"""Whether what a program read is still the same, and how to put it back."""

import operator
from collections.abc import Iterable
from typing import Any

import pyro

from pyro_vae.compiled.reach import MISSING, PLAIN, Reach, Slot


class State:
    """What is in some slots now, to be compared at little cost with what is in them later.

    Attributes:
        slots: The slots.
    """

    def __init__(self, slots: Iterable[Slot]):
        self.slots = sorted(slots, key=lambda slot: (slot.is_copy, slot.name is len))
        self._reads = [(slot.read, slot.name) for slot in self.slots if slot.name is not len]
        self._sized = [slot.holder for slot in self.slots if slot.name is len]
        self._values = self._read()
        self._copied = sum(not slot.is_copy for slot in self.slots)  # where those start that are new objects each time

    def holds(self) -> bool:
        """Whether the same is in all of them; numbers, strings and the like may be equal instead."""
        values, at = self._read(), self._copied
        same = all(map(operator.is_, values[:at], self._values)) and values[at:] == self._values[at:]
        return same or not self.changed()

    def changed(self) -> list[tuple[Slot, Any, Any]]:
        """Return the slots with something else in them, what was in each, and what is now."""
        pairs = zip(self.slots, self._values, self._read(), strict=True)
        return [(slot, old, new) for slot, old, new in pairs if not _same(old, new)]

    def _read(self) -> list[Any]:
        values = [read(name, MISSING) for read, name in self._reads]
        values += map(len, self._sized)
        return values


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if type(old) is tuple is type(new):
        return len(old) == len(new) and all(map(_same, old, new))
    return (
        isinstance(old, (*PLAIN, frozenset))
        and type(old) is type(new)
        and bool(old == new or (old != old and new != new))
    )


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string or the like, or consists of them."""
    return all(map(is_plain, value)) if type(value) in (tuple, frozenset) else isinstance(value, PLAIN)


class Undo:
    """Puts back what a program may have written to since this was made: Python's objects, and Pyro's parameters."""

    def __init__(self, reach: Reach):
        store = pyro.get_param_store()
        stores = [*reach.stores, store._params, store._param_to_name, store._constraints]
        self._dicts = [(one, dict(one)) for one in stores if isinstance(one, dict)]
        self._others = [(one, list(one)) for one in stores if not isinstance(one, dict)]
        self._slots = [(slot, slot.read(slot.name, MISSING)) for slot in reach.slots]

    def __call__(self) -> None:
        """Put it back."""
        for store, contents in self._dicts:
            for name in store.keys() - contents.keys():
                del store[name]
            for name, value in contents.items():
                if store.get(name, MISSING) is not value:
                    store[name] = value
        for store, items in self._others:
            if len(store) != len(items) or not all(map(operator.is_, store, items)):
                store.clear()
                (store.update if isinstance(store, set) else store.extend)(items)
        for slot, value in self._slots:
            if slot.read(slot.name, MISSING) is not value:
                slot.write(value)
