"""The directory of a bench: everything that is exported, each part made once and kept for the next run if asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bench.inputs import (
    BenchQuestion,
    corpus_lines,
    random_passages,
    random_questions,
    word_tokenizer,
)
from glimmer_export.exporter.bench.measure import ContenderSpec
from glimmer_export.exporter.bench.options import INT8, BenchOptions, Peer, check_lengths, parse_peers
from glimmer_export.exporter.bundle import FormOptions, choose_forms, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.checkpoint import (
    CheckpointConfig,
    ModelOptions,
    random_weights,
    read_checkpoint,
    write_checkpoint,
)
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.checkpoint.options import config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.files.links import require_no_link
from glimmer_export.exporter.files.publish import check_apart, publish_directory
from glimmer_export.exporter.files.whole_file import remove_unfinished, replace_file, write_errors
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime.contract import Forms, OutputError, read_manifest
from glimmer_export.runtime.contract.records import read_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OURS", "Prepared", "prepare"]

CALIBRATION_QUESTIONS = 4
"""Random weights and tokens have no rare outliers; a real model is calibrated on more."""


def int8_bundle(bundle: Path, store: Path, questions: Sequence[BenchQuestion], output: Path, *, threads: int) -> Path:
    """Quantise `bundle` into `output` by the default policy, both kept for the next bench."""
    if not output.exists():
        if not read_manifest(bundle).calibration:
            rows = [Question(str(place), item.text, (), item.numbers, ()) for place, item in enumerate(questions)]
            options = CalibrationOptions(samples=len(rows), given=True, passages_per_question=3, threads=threads)
            calibrate_bundle(bundle, store, rows, options)
        quantize_bundle(bundle, output, QuantizeOptions("int8", "cpu"))
    return output


BATCHES = 8
OURS = "ours"
RECIPE = "bench.json"
CODECS = ("fp16",)
PAPER_FORMS = FormOptions(stage_a="full", cross_attention="cached", codecs=CODECS)

Notify = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Prepared:
    """A model with its contenders, and the batches of questions that every block goes round through."""

    config: CheckpointConfig
    forms: Forms
    specs: tuple[ContenderSpec, ...]
    batches: tuple[tuple[BenchQuestion, ...], ...]
    passages: tuple[tuple[int, ...], ...]


def prepare(options: BenchOptions, directory: Path, notify: Notify = lambda *_: None) -> Prepared:
    """Make whatever of a bench's parts is not in `directory` yet.

    Raises OptionError for options that the checkpoint does not allow, OutputError if the directory holds something
    else, and what reading, exporting and building raise.
    """
    peers = parse_peers(options.peers)
    most = max([options.k, *(peer.num_passages or 0 for peer in peers)])
    if options.checkpoint is not None:
        check_apart(directory, [options.checkpoint])
    source = _Source(options)
    _begin(directory, {**source.recipe, "passages": 2 * most, "passage_tokens": options.passage_tokens,
                       "question_tokens": options.question_tokens, "seed": options.seed})  # fmt: skip
    steps = 4 + len(peers)
    notify("Writing the checkpoint", 0, steps)
    if not (directory / "checkpoint").exists():
        write_checkpoint(
            directory / "checkpoint", source.config, source.tensors(), word_tokenizer(source.config.vocab_size)
        )
    ours = FormOptions(answer_tokens=options.answer_tokens, codecs=CODECS)
    notify("Exporting our graphs", 1, steps)
    bundle = _bundle(directory, source.config, ours)
    passages = random_passages(source.config, 2 * most, options.passage_tokens, seed=options.seed)
    notify("Encoding passages", 2, steps)
    store = _store(directory, bundle, passages, options.num_threads)
    spec = ContenderSpec(
        OURS, "session", bundle, store, options.k, options.m, options.answer_tokens, options.num_threads
    )
    specs = [spec]
    for place, peer in enumerate(peers):
        notify(f"{'Calibrating' if peer.name == INT8 else 'Exporting'} {peer.name}", 3 + place, steps)
        if peer.name == INT8:
            seen = random_questions(
                source.config, passages, count=CALIBRATION_QUESTIONS, num_tokens=options.question_tokens,
                num_passages=options.k, seed=options.seed + 1,
            )
            quantized = directory / f"{bundle.name}-int8"
            int8_bundle(bundle, store, seen, quantized, threads=options.num_threads)
            specs.append(replace(spec, key=peer.key, model=quantized))
        else:
            specs.append(_peer_spec(directory, source.config, peer, spec))
    questions = random_questions(
        source.config, passages, count=BATCHES * options.batch_size, num_tokens=options.question_tokens,
        num_passages=most, seed=options.seed,
    )
    size = options.batch_size
    batches = tuple(tuple(questions[start : start + size]) for start in range(0, len(questions), size))
    return Prepared(source.config, choose_forms(source.config, ours), tuple(specs), batches, tuple(passages))


class _Source:
    """Random weights, or a checkpoint's: its config for a bench, and its tensors when they are asked for."""

    def __init__(self, options: BenchOptions) -> None:
        self._seed = options.seed
        self._read: dict[str, Tensor] | None = None
        if options.checkpoint is not None:
            found = read_checkpoint(options.checkpoint)
            check_lengths(options, found.config, str(found))
            self._read = dict(found.tensors)
            self.recipe: dict[str, object] = {"checkpoint_digest": checkpoint_digest(found)}
            # Its own templates may add words to a question of the length asked for.
            self.config = found.config.model_copy(
                update={"question_template": "{question}", "passage_template": "{text}"}
            )
        else:
            size = str(options.random)
            self.recipe = {"random": size}
            model = ModelOptions(
                "glimmer", question_length=options.question_tokens, passage_length=options.passage_tokens,
                passage_template="{text}",
            )
            self.config = config_from_options(model, preset(size), subject=f"random model of size {size}")

    def tensors(self) -> dict[str, Tensor]:
        return random_weights(self.config, seed=self._seed) if self._read is None else self._read


def _begin(directory: Path, recipe: dict[str, object]) -> None:
    """Take a new or empty directory, or one of a bench of the same model and inputs, none of whose parts is a link."""
    path = directory / RECIPE
    if directory.is_dir():
        require_no_link(directory, [item.name for item in directory.iterdir()], subject=f"--work {directory}")
        remove_unfinished(directory)
    found: object = None
    if path.is_file():
        try:
            found = read_json(path, error=OutputError, fix="")
        except OutputError:
            found = f"a damaged {RECIPE}"
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        found = "a file" if not directory.is_dir() else f"{min(item.name for item in directory.iterdir())} in it"
    if found is None:
        with write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            replace_file(path, (json.dumps(recipe, indent=2) + "\n").encode())
    elif found != recipe:
        raise OutputError(
            f"--work {directory}", expected=f"nothing yet, or a bench of {json.dumps(recipe)}",
            found=found if isinstance(found, str) else json.dumps(found), fix="name another directory",
        )


def _bundle(directory: Path, config: CheckpointConfig, options: FormOptions) -> Path:
    forms = choose_forms(config, options)
    path = directory / f"bundle-{forms.stage_a}-{forms.cross_attention}"
    if not path.exists():
        export_bundle(directory / "checkpoint", path, options)
    return path


def _store(directory: Path, bundle: Path, passages: list[tuple[int, ...]], threads: int) -> Path:
    path = directory / "store"
    if not path.exists():
        corpus = directory / "corpus.jsonl"
        replace_file(corpus, corpus_lines(passages).encode())
        build_store(bundle, corpus, path, restart=True, threads=threads)
    return path


def _peer_spec(directory: Path, config: CheckpointConfig, peer: Peer, ours: ContenderSpec) -> ContenderSpec:
    if peer.library == "session":
        return replace(ours, key=peer.key, model=_bundle(directory, config, PAPER_FORMS))
    t5 = directory / "t5"
    if not t5.exists():
        from glimmer_export.exporter.bench.peers import write_t5

        checkpoint = read_checkpoint(directory / "checkpoint")
        with publish_directory(t5) as work:
            write_t5(checkpoint.config, dict(checkpoint.tensors), work)
    model = t5
    if peer.library == "optimum" and not (model := directory / "optimum").exists():
        from glimmer_export.exporter.bench.peers import export_with_optimum

        export_with_optimum(t5, model)
    return replace(
        ours, key=peer.key, library=peer.library, model=model, store=None, num_passages=peer.num_passages or 0,
        num_selected=None,
    )
