"""The latest values that were made, within a byte budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")


class Latest:
    """The latest values by key; the one used longest ago is forgotten first.

    At most ``budget`` bytes, counted by ``size_of``, but never fewer than ``least``
    values. Keys are tuples; any thread may call.
    """

    def __init__(
        self, budget: int, size_of: Callable[[Any], int], least: int = 0
    ) -> None:
        self._budget, self._size_of, self._least = budget, size_of, least
        self._kept: OrderedDict[tuple[Hashable, ...], tuple[Any, int]] = OrderedDict()
        self.held_bytes = 0
        # an owner may go, and be dropped, in a garbage collection that begins in here
        self._lock = threading.RLock()

    def find(self, key: tuple[Hashable, ...]) -> Any:
        """Return a key's value, None where it is not kept."""
        with self._lock:
            return self._kept.get(key, (None,))[0]

    def get(self, key: tuple[Hashable, ...], make: Callable[[], ValueT]) -> ValueT:
        """Return a key's value, made now where it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                known: ValueT = self._kept[key][0]
                return known
        made = make()
        size = self._size_of(made)
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))  # made by another thread, too
            self._kept[key] = made, size
            self.held_bytes += size - before
            while self.held_bytes > self._budget and len(self._kept) > self._least:
                _, (_, size) = self._kept.popitem(last=False)
                self.held_bytes -= size
        return made

    def drop(self, owner: Hashable) -> None:
        """Forget the values whose key begins with an owner."""
        with self._lock:
            for key in [*self._kept]:
                if key[0] is owner and key in self._kept:
                    _, size = self._kept.pop(key)
                    self.held_bytes -= size
