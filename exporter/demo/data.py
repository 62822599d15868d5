"""What `glimmer-export demo-data` writes: a world's trained checkpoint, a corpus, and questions of its test split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.demo.world import CHECKPOINT, NUM_CONTEXT, World, generate_split, write_world
from glimmer_export.exporter.files.publish import publish_directory

__all__ = ["WORLDS", "WrittenWorld", "write_demo"]


@dataclass(frozen=True)
class WrittenWorld:
    """A world that can be written: the checkpoint trained on it, and how many passages its questions have.

    `generate` is called with a split, a number of questions, a seed and `num_contexts`.
    """

    checkpoint: Path
    num_contexts: int
    generate: Callable[..., World]


WORLDS = {"demo": WrittenWorld(CHECKPOINT, NUM_CONTEXT, generate_split)}


def write_demo(
    output: Path,
    *,
    num_questions: int,
    seed: int,
    world: str = "demo",
    num_contexts: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write `checkpoint/`, `corpus.jsonl` and `questions.jsonl` of a world to a directory; returns their counts.

    Each seed gives another world of the test split, in which each question has `num_contexts` passages (None: as many
    as the checkpoint was trained with). Raises OutputError if the directory exists or cannot be written.
    """
    chosen = WORLDS[world]
    num_contexts = num_contexts or chosen.num_contexts
    with publish_directory(output, overwrite=overwrite, inputs=[chosen.checkpoint]) as work:
        written = chosen.generate("test", num_questions, seed, num_contexts=num_contexts)
        (work / "checkpoint").mkdir()
        for path in chosen.checkpoint.iterdir():
            shutil.copyfile(path, work / "checkpoint" / path.name)  # not with the modes that the package's own have
        write_world(work, written)
    return {
        "output": str(output), "world": world, "passages": len(written.corpus), "questions": len(written.questions),
        "contexts": num_contexts, "seed": seed,
    }  # fmt: skip
