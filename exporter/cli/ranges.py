"""The most that each number of the command line may be: what the library takes that it goes to, or what makes sense.

The least stands with the option; where the most depends on the model, the error is of what knows it.
"""

from __future__ import annotations

import math

import typer

from glimmer_export.runtime.arguments import MAX_PASSAGES, MAX_THREADS
from glimmer_export.runtime.contract.manifest import MAX_LENGTH

__all__ = [
    "MAX_COUNT", "MAX_PASSAGES", "MAX_QUESTIONS", "MAX_SECONDS", "MAX_SEED", "MAX_THREADS", "MAX_TOKENS",
    "MAX_WORKERS", "number",
]  # fmt: skip

MAX_COUNT = 2**31 - 1
"""Counts that go to SQLite, NumPy and `islice`, whose integers have 64 bits or 32."""
MAX_SEED = 2**63 - 1
"""Of torch's generators and NumPy's, and of JSON as most programs read it."""
MAX_SECONDS = 1e6
"""Of a bench; eleven days."""
MAX_WORKERS = 1024
"""Processes that Ray starts."""
MAX_TOKENS = MAX_LENGTH
"""Of a text: what a checkpoint's config.json may say."""
MAX_QUESTIONS = 1_000_000
"""Of a generated world or a bench's batch, which are held in memory."""


def number(value: float | None) -> float | None:
    """A callback of options: a comparison with bounds lets NaN through."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value
