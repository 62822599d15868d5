"""What a forked child may do with what its parent had open: nothing but end.

A child has one thread, the one that forked. ONNX Runtime's threads are not there: a run waits for them for good, and so
does the end of a graph, which joins them. What holds such threads is therefore never destroyed in a child.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol
from weakref import WeakSet

from glimmer_export.runtime.contract import ForkedError

__all__ = ["Home", "Left", "leave_in_children"]


class Left(Protocol):
    """What a process opened, and its forked children have to leave alone."""

    def left_in_child(self) -> tuple[Any, ...]:
        """Called in a child as it begins: let go what can be, and give what must never be destroyed there."""
        ...


_open: WeakSet[Left] = WeakSet()


class Home:
    """The process in which something was opened."""

    def __init__(self, what: str) -> None:
        self._what, self._pid = what, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise ForkedError in any other process, which was forked from that one."""
        if os.getpid() != self._pid:
            raise ForkedError(
                self._what, expected=f"use in process {self._pid}, which opened it",
                found=f"process {os.getpid()}, forked from that one",
                fix="open it in each process, after the fork; or start processes by `spawn`",
            )


def leave_in_children(opened: Left) -> None:
    """Have children that are forked from now on leave this alone."""
    _open.add(opened)


def _after_fork() -> None:
    for opened in list(_open):
        for kept in opened.left_in_child():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
