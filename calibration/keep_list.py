"""Which groups to leave in float: the best loss removed for the work, until a budget is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Choice", "Kept", "keep_greedily"]


@dataclass(frozen=True)
class Choice:
    """A group by its expression: the loss that quantising it alone brings, and the share that keeping it costs."""

    pattern: str
    loss: float
    cost: float


@dataclass(frozen=True)
class Kept:
    """One group kept in float: its own cost, that of all so far, and the loss predicted to remain."""

    pattern: str
    loss: float
    cost: float
    total_cost: float
    remaining_loss: float


def keep_greedily(choices: Iterable[Choice], budget: float) -> list[Kept]:
    """The groups to keep within `budget`, a share, best loss for its cost first.

    One that no longer fits is passed over, for smaller ones may. Losses are taken to add up, as those of independent
    errors do. A group without loss is never kept.
    """
    choices = sorted(choices, key=lambda item: (-item.loss / item.cost if item.cost else -float("inf"), -item.loss))
    kept: list[Kept] = []
    total = 0.0
    left = [choice.loss for choice in choices]
    for place, choice in enumerate(choices):
        if choice.loss > 0 and total + choice.cost <= budget:
            total += choice.cost
            left[place] = 0.0
            kept.append(Kept(choice.pattern, choice.loss, choice.cost, total, sum(left)))
    return kept
