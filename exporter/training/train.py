"""`glimmer-export train`: a checkpoint, or a generator's model, trained by a recipe into another checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights, read_checkpoint, write_checkpoint
from glimmer_export.exporter.checkpoint.config import parse_config
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.files.links import resolved
from glimmer_export.exporter.files.publish import Inputs, check_apart, check_target
from glimmer_export.exporter.report import terminal
from glimmer_export.exporter.report.origin import package_versions, utc_now
from glimmer_export.exporter.stages.load import model_from_weights
from glimmer_export.exporter.training.collator import Collator
from glimmer_export.exporter.training.dev import DevScores, dev_counts, scores_from_counts
from glimmer_export.exporter.training.frozen_memory import FrozenMemory, open_store
from glimmer_export.exporter.training.generators import generate, generator_named
from glimmer_export.exporter.training.log import TrainingLog, log_files, progress_line
from glimmer_export.exporter.training.passages import PassageTable, open_corpus
from glimmer_export.exporter.training.processes import Processes, others_missed, started_processes
from glimmer_export.exporter.training.rows import RowOptions, rows_from_files, rows_from_world, task_file
from glimmer_export.exporter.training.sources import sources_from_recipe
from glimmer_export.exporter.training.state import (
    LAST,
    best_of_step,
    has_state,
    keep_best,
    remove_state,
    restore_state,
    save_state,
)
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.exporter.training.trainable import model_to_train, tensors_from_model
from glimmer_export.exporter.training.trainer import Progress, Report, Trainer
from glimmer_export.runtime.contract import OptionError, OutputError, TrainingError, is_there
from glimmer_export.runtime.contract.records import read_json
from glimmer_export.runtime.text import read_tokenizer

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from glimmer_export.exporter.memory import CorpusSource
    from glimmer_export.exporter.stages import GlimmerModel
    from glimmer_export.exporter.training.recipe import Recipe
    from glimmer_export.runtime.candidates import PassageSource
    from glimmer_export.runtime.store import MemoryStore

__all__ = ["TrainingData", "train_checkpoint"]

DEV_SEED = 0
PACKAGES = ("glimmer-export", "torch", "numpy", "tokenizers")
FOLDER, RECORD = "training", "record.json"
"""In a trained checkpoint: what it came of."""


@dataclass(frozen=True)
class TrainingData:
    """What is trained on: files as `rows.task_file` reads them, and where passages come from.

    `given` takes those of the rows, ids being looked up in the corpus or the store; otherwise they are retrieved.
    """

    train: Sequence[str] = ()
    dev: Sequence[str] = ()
    corpus: CorpusSource | None = None
    store: Path | None = None
    given: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError for a corpus and a store at once, and for rows that would have to find passages in none."""
        if self.corpus is not None and self.store is not None:
            raise OptionError(
                "train", expected="--corpus or --store", found="both", fix="name the one that has the passages"
            )
        if (self.train or self.dev) and not (self.given or self.corpus or self.store):
            raise OptionError(
                "train", expected="passages to retrieve", found="neither --corpus nor --store",
                fix="name one, or take those that the rows give: --passages given",
            )


@dataclass(frozen=True)
class Start:
    """What a training begins with; `digest` is that of the weights, or says how they are drawn."""

    config: CheckpointConfig
    tensors: Mapping[str, Tensor]
    tokenizer: bytes
    digest: str


def train_checkpoint(
    checkpoint: Path | None, data: TrainingData, recipe: Recipe, output: Path, *, architecture: str = "glimmer",
    seed: int = 0, device: str | None = None, overwrite: bool = False, inputs: Inputs = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a checkpoint, or random weights for the recipe's world if there is none, and write the result to `output`.

    The state is kept in `<output>.training` until the checkpoint is written: the same command continues from it, and
    only removes it if all that was killed was its removal. There, and in the checkpoint's folder `training` later, are
    the log, one line of JSON a step, and TensorBoard's events.
    Uses the processes that Accelerate started, and a GPU if there is one, unless `device` says otherwise. `inputs` are
    paths that the output must be apart from, beside those of checkpoint and data.
    Returns what was trained, on what, for how long, and the scores of the written checkpoint on the dev rows. Raises
    CheckpointError, TokenizerError, QuestionFileError, CorpusError, StoreError, OptionError, OutputError (it exists; a
    state is damaged or of another training), TrainingError (no rows; a loss that is not finite).
    """
    named = [Path(task_file(name).path) for name in (*data.train, *data.dev)]
    corpus = list(data.corpus.paths) if data.corpus is not None else []
    inputs = [checkpoint, data.store, *named, *corpus, *inputs]
    written = output.name not in ("", "..") and has_state(_work(resolved(output))) and is_there(_record(output))
    check_target(output, overwrite=overwrite or written, inputs=inputs)  # what stands there may be this training's
    output = resolved(output)
    check_apart(_work(output), inputs)
    console = console or terminal.console(stderr=True)
    processes = started_processes(device)
    with ExitStack() as opened:
        start = _start(checkpoint, recipe, architecture, seed)
        rows = opened.enter_context(_rows(checkpoint, start, data, recipe, shown=processes.rank == 0))
        run = _Run(start, recipe, rows, processes, output, seed)
        record = run.written() if written else None
        if all(processes.all(int(record is not None))) and record is not None:
            if run.first:
                remove_state(run.work)
            return {"checkpoint": str(output), **record} if run.first else {}
        if written:
            check_target(output, overwrite=overwrite, inputs=inputs)
        opened.enter_context(_deterministic())
        with others_missed(processes):
            run.train(console)
        if processes.rank > 0:
            return {}  # the first one grades for longer than others would wait
        result = run.finish(overwrite=overwrite)
        remove_state(run.work)
        return result


def _work(output: Path) -> Path:
    """The folder of a training that is not finished."""
    return output.with_name(f"{output.name}.training")


def _record(output: Path) -> Path:
    return output / FOLDER / RECORD


@dataclass(frozen=True)
class _Rows:
    """Collators of the files' rows, None if there are none; the codec of their memory, if a store has that."""

    text: RowText
    train: Collator | None
    dev: Collator | None
    codec: str | None


class _Run:
    """One training from its beginning, or from where it was interrupted, to its end."""

    def __init__(
        self, start: Start, recipe: Recipe, rows: _Rows, processes: Processes, output: Path, seed: int
    ) -> None:
        self.start, self.recipe, self.rows, self.processes = start, recipe, rows, processes
        self.output, self.work = output, _work(output)
        model = model_to_train(start.config, start.tensors, recipe, seed=seed, device=processes.device)
        source = sources_from_recipe(recipe, rows.text, rows.train, seed=seed)
        self.trainer = Trainer(model, recipe, source, processes, seed=seed)
        self.settings = {
            "seed": seed, "config": start.config.model_dump(), "recipe": recipe.model_dump(mode="json"),
            "weights": start.digest, "rows": _digest(rows.train), "dev rows": _digest(rows.dev),
            "memory": rows.codec,
        }
        self.first = self.processes.rank == 0

    def train(self, console: Console) -> None:
        """To the end of the schedule; the first process tells of it and keeps the state."""
        progress = self._resume()
        log = TrainingLog(self.work, progress.steps) if self.first else None
        with progress_line(console, shown=self.first) as show:

            def report(now: Report, figures: dict[str, float]) -> None:
                show(now)
                if log is not None:
                    log.add(now.step, {"phase": now.phase, **figures, "seconds": round(progress.seconds, 3)})

            def save() -> None:
                if self.first:
                    save_state(self.trainer, self.settings, self.work)
                    keep_best(self.work, self._best_step())
                self.processes.wait()

            def evaluate() -> float | None:
                scores = self._scores(self.trainer.model)
                if scores is not None and log is not None:
                    log.add(self.trainer.progress.steps, {"dev_em": scores.em, "dev_gold_in_m": scores.gold_in_m})
                    if self.recipe.keep == "best" and scores.em > progress.best:
                        self._write(best_of_step(self.work, progress.steps))
                return None if scores is None else scores.em

            try:
                self.trainer.run(report, evaluate, save)
            except TrainingError:
                self._keep_last()
                raise

    def _resume(self) -> Progress:
        """Go on from the state, if there is one; raises OutputError if it is not the same in every process."""
        restore_state(self.trainer, self.settings, self.work)
        progress = self.trainer.progress
        if len(steps := set(self.processes.all(progress.steps))) > 1:
            raise OutputError(
                f"unfinished training {self.work}", expected="the same state in every process",
                found=f"states of the steps {', '.join(map(str, sorted(steps)))}",
                fix="name an output on a disk that all machines share",
            )
        if self.first:
            keep_best(self.work, self._best_step())
        return progress

    def _keep_last(self) -> None:
        """Write the last good weights: those at hand, or of the state, or of the beginning."""
        sound = self.trainer.is_sound()
        if not self.first:
            return
        if sound or restore_state(self.trainer, self.settings, self.work):
            self._write(self.work / LAST)
        else:
            write_checkpoint(
                self.work / LAST, self.start.config, self.start.tensors, self.start.tokenizer, overwrite=True
            )

    def _best_step(self) -> int:
        """The step whose weights are kept; 0 for those at hand."""
        return self.trainer.progress.best_step if self.recipe.keep == "best" else 0

    def finish(self, *, overwrite: bool) -> dict[str, Any]:
        """Grade the weights as they will be written, in the recipe's dtype, and write the checkpoint."""
        tensors: Mapping[str, Tensor] = tensors_from_model(self.trainer.model, self.start.config, self.recipe)
        if step := self._best_step():
            tensors = read_checkpoint(best_of_step(self.work, step)).tensors
        weights = {name: tensor.float() for name, tensor in tensors.items()}
        scores = self._scores(model_from_weights(self.start.config, weights).to(self.processes.device))
        made = self._record() | {"dev": None if scores is None else scores.to_json()}
        files = {RECORD: (json.dumps(made, indent=2) + "\n").encode(), **log_files(self.work)}
        write_checkpoint(
            self.output, self.start.config, tensors, self.start.tokenizer, overwrite=overwrite,
            beside={f"{FOLDER}/{name}": content for name, content in files.items()},
        )
        return {"checkpoint": str(self.output), **made}

    def written(self) -> dict[str, Any] | None:
        """The output's record if this training ended and wrote it, else None; raises OutputError as a state does."""
        if not restore_state(self.trainer, self.settings, self.work) or not self.trainer.is_done():
            return None
        found = read_json(_record(self.output), error=OutputError, fix="remove the output, or pass --overwrite")
        own = json.loads(json.dumps(self._record()))
        # The seconds, to their last digit, are one training's alone.
        return found if all(found.get(name) == own[name] for name in own.keys() - {"date", "versions"}) else None

    def _scores(self, model: GlimmerModel) -> DevScores | None:
        """Of the dev rows, which all processes share; after the training the first one has them alone."""
        collator, recipe, config = self.rows.dev, self.recipe, self.start.config
        if collator is None:
            return None
        together = model is self.trainer.model
        k, m = recipe.num_retrieved or config.num_retrieved, recipe.num_selected or model.config.num_selected
        counts = dev_counts(
            model, collator, k, m, rank=self.processes.rank, processes=self.processes.size if together else 1
        )
        return scores_from_counts(self.processes.sums(counts) if together else counts, collator.rows.tasks)

    def _write(self, directory: Path) -> None:
        """The model as it is, as a checkpoint in the training's folder."""
        tensors = tensors_from_model(self.trainer.model, self.start.config, self.recipe)
        write_checkpoint(directory, self.start.config, tensors, self.start.tokenizer, overwrite=True)

    def _record(self) -> dict[str, Any]:
        """What the checkpoint came of, as plain data."""
        progress, rows = self.trainer.progress, self.rows
        return {
            "date": utc_now(), "versions": package_versions(PACKAGES), "seed": self.settings["seed"],
            "start": self.start.digest, "recipe": self.settings["recipe"],
            "rows": None if rows.train is None else rows.train.rows.counts.to_json(),
            "dev_rows": None if rows.dev is None else rows.dev.rows.counts.to_json(),
            "processes": self.processes.size, "steps": progress.steps, "kept_step": self._best_step() or progress.steps,
            "seconds": progress.seconds,
        }


def _start(checkpoint: Path | None, recipe: Recipe, architecture: str, seed: int) -> Start:
    if checkpoint is not None:
        read = read_checkpoint(checkpoint)
        RowText.of(read)
        assert read.tokenizer is not None
        config, tokenizer = read.config, read.tokenizer.read_bytes()
        return Start(_with_fields(config, recipe), read.tensors, tokenizer, checkpoint_digest(read))
    world = next((phase.world for phase in recipe.schedule() if phase.world is not None), None)
    if world is None:
        raise OptionError(
            "train", expected="a checkpoint to begin with", found="none, and a recipe without a world",
            fix="name one, as `glimmer-export init` makes it of a T5",
        )
    config, tokenizer = generator_named(world.generator).start(architecture)
    weights = random_weights(config, seed=seed)
    return Start(_with_fields(config, recipe), weights, tokenizer, f"random weights of seed {seed}")


WRITTEN = ("question_length", "passage_length", "num_shortlisted")
"""Fields of a recipe that the checkpoint has too."""


def _with_fields(config: CheckpointConfig, recipe: Recipe) -> CheckpointConfig:
    given = {name: value for name in WRITTEN if (value := getattr(recipe, name)) is not None}
    return parse_config(config.model_dump() | given, subject=f"the recipe's {', '.join(given)}")


@contextmanager
def _rows(
    checkpoint: Path | None, start: Start, data: TrainingData, recipe: Recipe, *, shown: bool
) -> Iterator[_Rows]:
    """The rows of the files, their passages found; the store or the corpus is open as long as they are used."""
    tokenizer = read_tokenizer(start.tokenizer, start.config.vocab_size, subject="tokenizer", fix="copy it again")
    text = RowText(tokenizer, start.config.shape)
    frozen = recipe.memory == "frozen" and data.store is not None
    with ExitStack() as opened:
        source: PassageSource | None = None
        stored: MemoryStore | None = None
        memory: FrozenMemory | None = None
        if data.store is not None and checkpoint is not None:
            store, fits = open_store(data.store, replace(read_checkpoint(checkpoint), config=start.config), own=frozen)
            source = opened.enter_context(store)
            stored, memory = store if fits else None, FrozenMemory(store) if frozen else None
        elif data.corpus is not None:
            searched = not data.given
            source = opened.enter_context(open_corpus(data.corpus, searched=searched, progress=shown))
        most = max(phase.num_retrieved or start.config.num_retrieved for phase in recipe.schedule())
        relevance = recipe.relevance
        options = RowOptions(most, data.given, relevance.name, relevance.threshold)

        def read(files: Sequence[str], options: RowOptions) -> Collator | None:
            if not files:
                return None
            table = PassageTable(text, source, stored=stored)
            found = rows_from_files([task_file(name) for name in files], table, options, progress=shown)
            return Collator(found, memory)

        train, dev = read(data.train, options), read(data.dev, replace(options, relevance="none"))
        if dev is None and recipe.world is not None:
            world = generate(recipe.world.generator, "test", recipe.dev_questions, DEV_SEED, recipe.world.options)
            dev = Collator(rows_from_world(world, text))
        yield _Rows(text, train, dev, None if memory is None else memory.codec)


@contextmanager
def _deterministic() -> Iterator[None]:
    """The same sums in the same order each time; on a GPU as far as its libraries go.

    There FP32's products are in TF32: what BF16 leaves to FP32, `wo` above all, would otherwise take most of a step.
    """
    before, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    on_gpu = torch.cuda.is_available()
    torch.use_deterministic_algorithms(True, warn_only=on_gpu)
    torch.set_float32_matmul_precision("high" if on_gpu else precision)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_float32_matmul_precision(precision)


def _digest(collator: Collator | None) -> str:
    """SHA-256 of rows: questions, answers, tasks, and their passages, in their order."""
    digest = hashlib.sha256()
    if collator is not None:
        rows, table = collator.rows, collator.rows.passages
        for row, task in enumerate(rows.task.tolist()):
            fields = [rows.questions[row], rows.answers[row], rows.tasks[task]]
            passages = [places[row].tolist() for places in (rows.candidates, rows.gold)]
            digest.update(json.dumps([*fields, *passages]).encode())
        for content in table.contents():
            digest.update(content)
    return digest.hexdigest()
