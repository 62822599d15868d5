"""The command that trains a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    CorpusFormat,
    Json,
    Output,
    Overwrite,
    Passages,
    Store,
)
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_SEED
from glimmer_export.exporter.config.read import NAME_OR_FILE, config_file, known
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import ARCHITECTURES

if TYPE_CHECKING:
    from glimmer_export.exporter.training.recipe import Recipe

__all__ = ["train"]

ROWS = "KILT, FiD, Atlas or NQ-open rows, as `answer` reads them"


def train(
    output: Output,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="[CHECKPOINT]", help="To begin with; none: random weights for the recipe's world."),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar=NAME_OR_FILE, help=f"How to train: {known('recipe')}.")
    ] = "glimmer-paper",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe: steps=1000. Repeatable."),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--train", metavar="FILE[=TASK]", help=f"{ROWS}; tasks are drawn equally often. Repeatable."),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option("--dev", metavar="FILE[=TASK]", help="Rows by which the best state is kept. Repeatable."),
    ] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option("--corpus", help="Passages to retrieve from. Repeatable; or a folder of files.")
    ] = None,
    corpus_format: CorpusFormat = None,
    store: Store = None,
    passages: Passages = PASSAGE_SOURCES[0],
    architecture: Annotated[
        str, one_of("--architecture", ARCHITECTURES, "Of random weights for the recipe's world.")
    ] = "glimmer",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the rows' order, of dropout, and of random weights.")
    ] = 0,
    device: Annotated[
        str | None, typer.Option("--device", help="As torch calls it, such as cuda:1. Default: a GPU if there is one.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a checkpoint by a recipe; interrupted, the same command goes on where it stopped.

    On several GPUs, or in several CPU processes: torchrun --nproc-per-node N --no-python glimmer-export train ...
    """
    require("torch")
    from glimmer_export.exporter.memory import CorpusSource
    from glimmer_export.exporter.training.recipe import read_recipe
    from glimmer_export.exporter.training.train import TrainingData, train_checkpoint

    data = TrainingData(
        rows or (), dev or (), CorpusSource.of(corpus, corpus_format) if corpus else None, store, passages == GIVEN
    )
    read: Recipe = read_recipe(recipe, changes or ())
    summary = train_checkpoint(
        checkpoint, data, read, output, architecture=architecture, seed=seed, device=device, overwrite=overwrite,
        inputs=[config_file("recipe", recipe)],
    )
    if not summary:
        return  # another process tells
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    dev = summary["dev"]
    figures = "no dev rows" if dev is None else (
        f"exact match {dev['em']:.4f} and gold read {dev['gold_in_m']:.4f} on {dev['rows']} dev rows"
    )
    console().print(
        bold(f"{visible(summary['checkpoint'])}:"),
        f"{summary['steps']} steps in {summary['seconds']:.0f} s, step {summary['kept_step']} kept; {figures}",
        soft_wrap=True,
    )
