"""How what a library raises becomes an error of ours: at one place for each library, and by its own classes alone."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["LibraryErrors", "first_line", "is_panic"]


class LibraryErrors:
    """Around a call of a library, and nothing else: what it raises by `theirs` is raised anew by `named`.

    `theirs` says of a class whether the library raises it for damaged input; any other goes on as it is, so that a bug
    of ours keeps its traceback. `named` makes our error of what was raised.
    """

    def __init__(
        self, theirs: Callable[[type[BaseException]], bool], named: Callable[[BaseException], Exception]
    ) -> None:
        self._theirs, self._named = theirs, named

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and raised is not None and self._theirs(kind):
            raise self._named(raised) from None


def is_panic(kind: type[BaseException]) -> bool:
    """Whether it is what a library in Rust raises where it gives up, which is no Exception and cannot be imported."""
    return kind.__module__ == "pyo3_runtime" and kind.__name__ == "PanicException"


def first_line(raised: BaseException) -> str:
    """What an exception says, in one line of at most 300 characters; its class where it says nothing."""
    text = next((line.strip() for line in str(raised).splitlines() if line.strip()), type(raised).__name__)
    return text if len(text) <= 300 else f"{text[:300]}..."
