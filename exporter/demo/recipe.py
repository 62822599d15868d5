"""The recipe of the demo checkpoint, as data: the model's shape and the curriculum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from glimmer_export.exporter.demo.tokenizer import vocabulary

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["CURRICULUM", "DemoArchitecture", "Phase", "demo_config"]

DemoArchitecture = Literal["glimmer", "lumen"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training: at most `steps` batches of `batch_size` questions.

    Each question comes with `num_passages` (k), of which `num_selected` (m) are read; passages state
    `facts_per_passage` facts. The learning rate goes linearly from the previous phase's to `learning_rate`. The phase
    ends early once the running exact match on the training batches reaches `promote_at`.
    """

    steps: int
    num_passages: int
    num_selected: int
    facts_per_passage: int
    batch_size: int
    learning_rate: float
    promote_at: float = math.inf

    @property
    def work(self) -> float:
        """Cost of a step, in units that only compare phases: a question costs half a passage."""
        return self.batch_size * (0.5 + self.num_passages)


# One thing at a time: copying a value, choosing between passages (by the name), choosing between two facts (by the
# relation, most cheaply with one passage, alternating with two so that names are not forgotten). From k = 6 on, or from
# two of these at once, nothing is learned for a long time. Passages are encoded independently, so most of the work is
# done at k <= 4 and only the last phase meets the test's k = 10. Relations are not learned at a rate of 1e-3.
CURRICULUM = (
    Phase(100, 1, 1, facts_per_passage=1, batch_size=48, learning_rate=1e-3),
    Phase(1200, 1, 1, facts_per_passage=1, batch_size=48, learning_rate=1e-3, promote_at=0.90),
    Phase(1200, 2, 2, facts_per_passage=1, batch_size=48, learning_rate=1e-3, promote_at=0.84),
    *(
        Phase(50, 1, 1, facts_per_passage=2, batch_size=48, learning_rate=5e-4),
        Phase(50, 2, 2, facts_per_passage=2, batch_size=48, learning_rate=5e-4),
    )
    * 8,
    Phase(300, 2, 2, facts_per_passage=2, batch_size=48, learning_rate=5e-4),
    Phase(600, 4, 2, facts_per_passage=2, batch_size=32, learning_rate=5e-4),
    Phase(600, 4, 3, facts_per_passage=2, batch_size=32, learning_rate=2.5e-4),
    Phase(500, 10, 3, facts_per_passage=2, batch_size=24, learning_rate=1e-5),
)


def demo_config(architecture: DemoArchitecture) -> CheckpointConfig:
    """The demo model's shape; a LUMEN has the same layers, all of its live ones in stage B."""
    from glimmer_export.exporter.checkpoint import CheckpointConfig

    parts: dict[str, Any] = {"num_stage_a_layers": 2, "num_stage_b_layers": 1, "num_selected": 3}
    if architecture == "lumen":
        parts = {"num_stage_a_layers": 0, "num_stage_b_layers": 3, "num_selected": None}
    return CheckpointConfig(
        architecture=architecture,
        vocab_size=len(vocabulary()),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_heads=4,
        num_memory_layers=4,
        num_decoder_layers=2,
        question_length=16,
        passage_length=40,
        num_retrieved=10,
        max_new_tokens=8,
        **parts,
    )
