"""How many of the dev rows a model that is being trained gets right."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glimmer_export.exporter.answering.metrics import exact_match
from glimmer_export.exporter.stages import GlimmerModel, greedy_answers
from glimmer_export.exporter.training.collator import Collator
from glimmer_export.exporter.training.loss import evaluation_mode

__all__ = ["DevScores", "dev_counts", "scores_from_counts"]

BATCH = 50


@dataclass(frozen=True)
class DevScores:
    """Shares of the dev rows, from 0 to 1.

    `em`: answered as a gold is (KILT's exact match), also by task; `gold_in_m`: a gold passage was among those read.
    """

    rows: int
    em: float
    em_by_task: dict[str, float]
    gold_in_m: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def dev_counts(
    model: GlimmerModel, collator: Collator, num_retrieved: int, num_selected: int | None, *, rank: int = 0,
    processes: int = 1,
) -> list[float]:
    """Rows, exact answers and gold passages read, then rows and exact answers of each task: of every so many-th batch.

    Counts of several processes add up to those of one. Answers are greedy, from the first k passages of each row.
    """
    rows, device = collator.rows, model.shared.weight.device
    counts, task = np.zeros((1 + len(rows.tasks), 3)), rows.task
    with evaluation_mode(model):
        for index, batch in enumerate(collator.dev_batches(BATCH, num_retrieved)):
            if index % processes != rank:
                continue
            on_device = batch.to(device)
            found = greedy_answers(model, on_device.question, on_device.passages, num_selected)
            read = batch.gold if found.selected is None else batch.gold.gather(1, found.selected.cpu())
            for row, (tokens, gold) in enumerate(zip(found.tokens, read.any(1).tolist(), strict=True), index * BATCH):
                exact = exact_match(rows.passages.text.decode(tokens), rows.answers[row])
                counts[[0, 1 + int(task[row])]] += (1, exact, gold)
    return [float(count) for count in counts.flatten()]


def scores_from_counts(counts: list[float], tasks: list[str]) -> DevScores:
    """Shares from the counts of all processes together."""
    (total, exact, gold), *of_tasks = np.reshape(counts, (-1, 3))
    by_task = {task: float(right / of) for task, (of, right, _) in zip(tasks, of_tasks, strict=True)}
    return DevScores(int(total), float(exact / total), dict(sorted(by_task.items())), float(gold / total))
