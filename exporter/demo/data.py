"""The demo on disk: the trained checkpoint, and a test world that it has never seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from glimmer_export.exporter.demo.world import generate_split, write_world
from glimmer_export.exporter.publish import publish_directory

__all__ = ["CHECKPOINT", "write_demo"]

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The demo checkpoint, which travels with the package."""


def write_demo(output: Path, *, num_questions: int, seed: int, overwrite: bool = False) -> dict[str, Any]:
    """Write `checkpoint/`, `corpus.jsonl` and `questions.jsonl` to a directory; returns their counts.

    Each seed gives another world of the test split. Raises OutputError where the directory exists or cannot be written.
    """
    with publish_directory(output, overwrite=overwrite, inputs=[CHECKPOINT]) as work:
        world = generate_split("test", num_questions, seed)
        (work / "checkpoint").mkdir()
        for path in CHECKPOINT.iterdir():
            shutil.copyfile(path, work / "checkpoint" / path.name)  # not with the modes that the package's own have
        write_world(work, world)
    return {"output": str(output), "passages": len(world.corpus), "questions": len(world.questions), "seed": seed}
