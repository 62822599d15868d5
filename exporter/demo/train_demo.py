"""`glimmer-export train-demo`: train by the recipe, evaluate what was written, and resume if it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from glimmer_export.exporter.demo.recipe import CURRICULUM, DemoArchitecture, Phase, demo_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from glimmer_export.exporter.demo.training import Report

__all__ = ["progress_line", "train_demo"]

STEPS_PER_PLAIN_LINE = 50


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[Report], None]]:
    """Yield a function that shows a report: a live line on a terminal, else a line every hundred steps."""
    if not console.is_terminal:
        yield lambda report: _print_line(console, report)
        return
    with Progress(BarColumn(), TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda report: progress.update(task, completed=report.fraction_done, description=_line(report))


def _print_line(console: Console, report: Report) -> None:
    if report.step % STEPS_PER_PLAIN_LINE == 0:
        console.print(_line(report), highlight=False, soft_wrap=True)


def _line(report: Report) -> str:
    minutes, seconds = divmod(round(report.seconds_left), 60)
    return (
        f"phase {report.phase + 1}/{report.num_phases} step {report.step:4d}  loss {report.loss:.3f}  "
        f"EM {report.exact_match:.3f}  at most {minutes}:{seconds:02d} left"
    )


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

    A LUMEN comes of the same training, and is written without the score head: the ranking loss teaches the live layers
    to tell passages apart, which the language model's loss alone does many times more slowly.
    Uses a GPU if there is one, unless `device` says otherwise. The state after each world is kept in
    `<output_dir>.training` until the checkpoint is written: the same command continues from it.
    Returns `Evaluation`'s fields and `seconds`, the time spent training. Raises OutputError if `output_dir` exists
    and `overwrite` is off, or cannot be written, and if the state is damaged or of a training with other settings.
    """
    import torch

    from glimmer_export.exporter.checkpoint import read_checkpoint, weight_shapes, write_checkpoint
    from glimmer_export.exporter.demo.evaluate import evaluate
    from glimmer_export.exporter.demo.resume import remove_state, restore_state, save_state
    from glimmer_export.exporter.demo.train_demo import progress_line
    from glimmer_export.exporter.demo.training import Training
    from glimmer_export.exporter.demo.world import generate_split
    from glimmer_export.exporter.files.links import resolved
    from glimmer_export.exporter.files.publish import check_target
    from glimmer_export.exporter.report import terminal
    from glimmer_export.exporter.stages import model_from_checkpoint

    check_target(output_dir, overwrite=overwrite)
    output_dir = resolved(output_dir)
    console = console or terminal.console(stderr=True)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    work = output_dir.with_name(f"{output_dir.name}.training")
    training = Training(demo_config("glimmer"), curriculum, seed=seed, device=chosen)
    restore_state(training, work)
    with progress_line(console) as report:
        training.run(report, world_done=lambda: save_state(training, work))
    config = demo_config(architecture)
    trained = training.model.state_dict()
    weights = {name: trained[name].half().cpu() for name in weight_shapes(config)}
    tokenizer = training.tokenizer.to_str(pretty=True).encode()
    write_checkpoint(output_dir, config, weights, tokenizer, overwrite=overwrite)
    remove_state(work)
    # What is evaluated is what was written: the rounded weights, read back.
    model = model_from_checkpoint(read_checkpoint(output_dir)).to(chosen)
    world = generate_split("test", num_test_questions, TEST_SEED)
    result = {**evaluate(model, training.tokenizer, world).as_dict(), "seconds": training.seconds}
    console.print(result)
    return result
