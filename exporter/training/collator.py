"""Rows -> batches of tensors: of the draws of a step, and of dev rows as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glimmer_export.exporter.training.batch import Batch, collate, pad_passages
from glimmer_export.exporter.training.frozen_memory import FrozenMemory
from glimmer_export.exporter.training.rows import TrainingRows
from glimmer_export.exporter.training.sampling import Draw
from glimmer_export.runtime.contract import TrainingError

__all__ = ["Collator"]


class Collator:
    """Makes batches of rows.

    They hold the token ids of passages, joined with the question if the model reads them so, or frozen memory.
    """

    def __init__(self, rows: TrainingRows, memory: FrozenMemory | None = None) -> None:
        """Raises TrainingError if memory is to be read of passages that came as texts, of which no store has any."""
        if memory is not None and rows.passages.num_texts:
            raise TrainingError(
                "frozen memory", expected="passages of the store", found=f"{rows.passages.num_texts} given as texts",
                fix="retrieve them, or give the store's ids as ctx_ids",
            )
        self.rows = rows
        self._memory = memory

    def batch(self, drawn: Sequence[Draw]) -> Batch:
        """The batch of some draws, in their order, on the CPU (memory where it was decoded)."""
        rows = self.rows
        table = rows.passages
        if self._memory is not None:
            numbers = [[table.number(place) or 0 for place in draw.passages.tolist()] for draw in drawn]
            passages = self._memory.read(numbers)
        elif table.text.joins:
            passages = pad_passages([table.joined(rows.questions[draw.row], draw.passages.tolist()) for draw in drawn])
        else:
            passages = pad_passages([[table.ids(place) for place in draw.passages.tolist()] for draw in drawn])
        gold = [{*rows.gold[draw.row].tolist()} for draw in drawn]
        return collate(
            [rows.question_ids[draw.row] for draw in drawn],
            passages,
            [rows.answer_ids(draw.row, draw.answer) for draw in drawn],
            [[place in known for place in draw.passages.tolist()] for draw, known in zip(drawn, gold, strict=True)],
        )

    def dev_batches(self, size: int, num_retrieved: int) -> Iterator[Batch]:
        """Every row in its order with its first k passages and its first answer, `size` at a time."""
        draws = [Draw(row, self.rows.candidates[row][:num_retrieved], 0) for row in range(len(self.rows))]
        for start in range(0, len(draws), size):
            yield self.batch(draws[start : start + size])
