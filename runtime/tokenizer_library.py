"""What the library tokenizers raises: the only module of the runtime in which its exceptions become ours.

It raises ValueError for a tokenizer.json that is none, and later Exception itself, none of its subclasses, for whatever
it meets, such as a word without an id in a model without an unknown token; where its Rust gives up, it panics. What a
normaliser of ours raises it drops, or turns into such an Exception: that is raised as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from glimmer_export.runtime.charsmap import take_fault
from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line, is_panic

__all__ = ["TokenizerErrors"]


class TokenizerErrors(LibraryErrors):
    """Around a call of tokenizers: its exceptions by `named`, and those of its classes for a file where it `reads`."""

    def __init__(self, named: Callable[[str], GlimmerError], *, reads: bool = False) -> None:
        super().__init__(_is_own_reading if reads else _is_own, lambda raised: named(first_line(raised)))

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (fault := take_fault()) is not None:
            raise fault
        super().__exit__(kind, raised, trace)


def _is_own(kind: type[BaseException]) -> bool:
    return kind is Exception or is_panic(kind)


def _is_own_reading(kind: type[BaseException]) -> bool:
    return kind is ValueError or _is_own(kind)
