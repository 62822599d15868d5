"""With which k and m a model is asked: its own, or a grid of them. Nothing is trained for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from glimmer_export.runtime.arguments import MAX_PASSAGES
from glimmer_export.runtime.contract import ModelShape, OptionError

__all__ = ["Cell", "Grid", "counterpart"]

KEYS = ("k", "m")


@dataclass(frozen=True)
class Cell:
    """k passages retrieved, of which the best m are read; m is None if the model does not rank, and reads all k."""

    k: int
    m: int | None

    def __str__(self) -> str:
        return f"k {self.k}" + ("" if self.m is None else f", m {self.m}")


@dataclass(frozen=True)
class Grid:
    """Values of k and of m, rising; empty: each model's own."""

    ks: tuple[int, ...] = ()
    ms: tuple[int, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Grid:
        """Of texts such as `k=5,10,25` and `m=1,5`; raises OptionError for any other, and for a key named twice."""
        values: dict[str, tuple[int, ...]] = {}
        for text in texts:
            key, equals, numbers = (part.strip() for part in text.partition("="))
            if key not in KEYS or not equals:
                raise _refused(text, f"{' or '.join(f'{name}=N,N,...' for name in KEYS)}")
            if key in values:
                raise _refused(text, f"{key} once")
            values[key] = _numbers(text, numbers)
        return cls(values.get("k", ()), values.get("m", ()))

    def cells(self, shape: ModelShape) -> list[Cell]:
        """Every k with every m up to it, m only where the architecture ranks; its own m is k if that is less.

        Raises OptionError if none is left.
        """
        ks, own = self.ks or (shape.num_retrieved,), shape.num_selected
        if not shape.traits.selects or own is None:
            return [Cell(k, None) for k in ks]
        cells = [Cell(k, m) for k in ks for m in (self.ms or (min(own, k),)) if m <= k]
        if not cells:
            raise OptionError(
                "option --grid", expected=f"an m of at most the largest k, {max(ks)}",
                found=", ".join(map(str, self.ms)), fix="give lower values of m, or higher ones of k",
            )
        return cells


def counterpart(cell: Cell, cells: Sequence[Cell], own: Cell) -> Cell | None:
    """Which of another model's cells a cell is compared with; None if it has none of the same k.

    The only one if there is no other; else that of the same k and m, or, if one of the two models does not rank, of the
    same k, with that model's `own` m if it is there.
    """
    if len(cells) == 1 or cell in cells:
        return cell if cell in cells else cells[0]
    same = [other for other in cells if other.k == cell.k and (cell.m is None or other.m is None)]
    return next((other for other in same if other.m == own.m), same[0] if same else None)


def _numbers(text: str, numbers: str) -> tuple[int, ...]:
    found = [number.strip() for number in numbers.split(",")]
    # More digits than any limit has are not even read.
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in found):
        raise _refused(text, "whole numbers with commas between them")
    values = sorted({int(number) for number in found})
    if not 1 <= values[0] <= values[-1] <= MAX_PASSAGES:
        raise _refused(text, f"numbers from 1 to {MAX_PASSAGES}")
    return tuple(values)


def _refused(text: str, expected: str) -> OptionError:
    fix = "write it as in --grid k=5,10 --grid m=1,5"
    return OptionError("option --grid", expected=expected, found=repr(text)[:80], fix=fix)
