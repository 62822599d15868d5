"""Ctrl-C and SIGTERM: a command clears up and ends without a word, with 130 or 143, whatever it was doing.

The first signal is raised as KeyboardInterrupt, so that what is half written is removed on the way out; the second ends
the process on the spot, which costs nothing but what the next command clears up. Whatever a library makes of the
KeyboardInterrupt (an ImportError, say), the exit code is the signal's.

This comes before anything else of the command line: only what Python has loaded by then is imported.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time

TYPE_CHECKING = False  # typing takes milliseconds, in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any, Literal, NoReturn

__all__ = ["Stopping", "handled_by"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WATCHED = (*SIGNALS, signal.SIGALRM)
"""SIGALRM is how a KeyboardInterrupt that came to nothing is raised once more."""
NATIVE_SECONDS = 2.0
"""What native code is given to return: Python hears of a signal only then. After it, the process ends all the same."""
AGAIN_SECONDS = 0.001


class handled_by:  # noqa: N801  # used as a function; contextlib takes milliseconds too
    """A context in which Ctrl-C and SIGTERM call `handler`, each time, and interrupt nothing.

    For a server, which has to finish what it is at, and then ends as if it were done.
    """

    def __init__(self, handler: Callable[[], None]) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        if Stopping.current is not None:
            Stopping.current.handler = self._handler

    def __exit__(self, *exception: object) -> None:
        if Stopping.current is not None:
            Stopping.current.handler = None


class Stopping:
    """A context that Ctrl-C and SIGTERM end, and with it, and from then on, the process; an ignored signal stays so.

    A KeyboardInterrupt that no signal stands behind is exit code 130 too.
    """

    current: Stopping | None = None
    """The one that was entered last: there is one in a process."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that has come."""
        self.over = False
        """Whether nothing is left that would have to be cleared up."""
        self.sender = -1
        self.heard = 0
        """How many signals Python has run a handler for."""
        self.handler: Callable[[], None] | None = None
        """What takes a signal in the place of KeyboardInterrupt."""

    def __enter__(self) -> Stopping:
        Stopping.current = self
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._receive)
        signal.signal(signal.SIGALRM, self._raise_again)
        sys.unraisablehook = self._unraisable
        return self

    def watch(self) -> None:
        """End the process by a thread where the main one is in native code for too long to hear of a signal."""
        receiver, self.sender = os.pipe()
        os.set_blocking(self.sender, False)
        signal.set_wakeup_fd(self.sender, warn_on_full_buffer=False)
        _thread.start_new_thread(self._watch, (receiver,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.over = True
        if self.number is not None:  # whatever was made of the KeyboardInterrupt, were it nothing
            self._end(self.number)
        sys.unraisablehook = sys.__unraisablehook__
        if self.sender >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self.sender)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(128 + signal.SIGINT)
        return False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.heard += 1
        if self.handler is not None:
            self.handler()
            return
        if self.over or self.number is not None:
            self._end(number)
        self.number = number
        raise KeyboardInterrupt

    @staticmethod
    def _end(number: int) -> NoReturn:
        """End without the interpreter's own end, which half an import or a library's thread may not live through."""
        os._exit(128 + number)

    def _raise_again(self, _number: int, _frame: FrameType | None) -> None:
        self.heard += 1
        if not self.over:
            raise KeyboardInterrupt

    def _unraisable(self, unraisable: Any) -> None:
        """Raise once more what was raised if nothing can be: in a destructor, or as an import's lock is let go."""
        if self.number is None:
            sys.__unraisablehook__(unraisable)
        elif issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    def _watch(self, receiver: int) -> None:
        sent = 0
        while received := os.read(receiver, 1):
            if received[0] in WATCHED:
                sent += 1
                time.sleep(NATIVE_SECONDS)
                if self.heard < sent and not self.over:
                    self._end(self.number or received[0])
        os.close(receiver)
