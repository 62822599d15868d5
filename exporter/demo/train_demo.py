"""`glimmer-export train-demo`: train by the recipe, evaluate what was written, and resume where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.demo.recipe import CURRICULUM, DemoArchitecture, Phase, demo_config

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from exporter.demo.training import Training

__all__ = ["TEST_QUESTIONS", "TEST_SEED", "train_demo"]

TEST_QUESTIONS = 1000
TEST_SEED = 0


def train_demo(
    output_dir: Path,
    architecture: DemoArchitecture = "glimmer",
    seed: int = 0,
    device: str | None = None,
    *,
    curriculum: Sequence[Phase] = CURRICULUM,
    num_test_questions: int = TEST_QUESTIONS,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a demo checkpoint, write it in FP16 with its tokenizer, and evaluate it on unseen entities.

    Uses a GPU where there is one, unless `device` says otherwise. The state after each world is kept in
    `<output_dir>.partial` until the checkpoint is written: the same command continues from it.
    Returns `Evaluation`'s fields and `seconds`, the time spent training. Raises OutputError where `output_dir` exists
    and `overwrite` is off, or cannot be written.
    """
    import torch
    from rich.console import Console

    from exporter.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
    from exporter.demo.evaluate import evaluate
    from exporter.demo.progress import progress_line
    from exporter.demo.training import Training
    from exporter.demo.world import generate_split
    from exporter.publish import check_target, write_errors

    check_target(output_dir, overwrite=overwrite)
    console = console or Console(stderr=True)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    partial = output_dir.with_name(f"{output_dir.name}.partial")
    config = demo_config(architecture)
    training = Training(config, curriculum, seed=seed, device=chosen)
    _restore(training, partial, chosen)
    with progress_line(console) as report, write_errors(partial):
        training.run(report, world_done=lambda: _save(training, partial))
        partial.mkdir(parents=True, exist_ok=True)
        tokenizer_file = partial / "tokenizer.json"
        training.tokenizer.save(str(tokenizer_file))
    weights = {name: weight.half().cpu() for name, weight in training.model.state_dict().items()}
    write_checkpoint(output_dir, config, weights, tokenizer_file, overwrite=overwrite)
    _remove(partial)
    # What is evaluated is what was written: the rounded weights, read back.
    model = model_from_checkpoint(read_checkpoint(output_dir)).to(chosen)
    world = generate_split("test", num_test_questions, TEST_SEED)
    result = {**evaluate(model, training.tokenizer, world).as_dict(), "seconds": training.seconds}
    console.print(result)
    return result


def _save(training: Training, partial: Path) -> None:
    import torch

    partial.mkdir(parents=True, exist_ok=True)
    temporary = partial / "state.pt.tmp"
    torch.save(training.state(), temporary)
    temporary.replace(partial / "state.pt")


def _restore(training: Training, partial: Path, device: torch.device) -> None:
    import torch

    path = partial / "state.pt"
    if not path.exists():
        return
    training.restore(torch.load(path, map_location=device, weights_only=True))


def _remove(partial: Path) -> None:
    for path in partial.iterdir():
        path.unlink()
    partial.rmdir()
