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
from glimmer_export.exporter.bench.options import BenchOptions, check_lengths
from glimmer_export.exporter.bench.packages import OPTIMUM, require_engines
from glimmer_export.exporter.bench.roster import (
    CROSS_ENCODER,
    HF_FID,
    LANGUAGE_MODEL,
    OPENVINO,
    OPTIMUM_FID,
    OURS,
    PAPER_FORM,
    RERANK_LAYERS,
    Peer,
    parse_peers,
)
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
from glimmer_export.runtime.contract import Forms, OptionError, OutputError, read_manifest
from glimmer_export.runtime.contract.records import read_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CODEC", "Prepared", "prepare"]

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
RECIPE = "bench.json"
CODEC = "fp16"
PAPER_FORMS = FormOptions(stage_a="full", cross_attention="cached", codecs=(CODEC,))

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
    require_engines(peers, directory)
    most = max([options.k, *(peer.num_passages for peer in peers)])
    if options.checkpoint is not None:
        check_apart(directory, [options.checkpoint])
    source = _Source(options)
    _check_depths(peers, source.config)
    _begin(directory, {**source.recipe, "passages": 2 * most, "passage_tokens": options.passage_tokens,
                       "question_tokens": options.question_tokens, "seed": options.seed})  # fmt: skip
    steps = 4 + len(peers)
    notify("Writing the checkpoint", 0, steps)
    if not (directory / "checkpoint").exists():
        write_checkpoint(
            directory / "checkpoint", source.config, source.tensors(), word_tokenizer(source.config.vocab_size)
        )
    ours = FormOptions(answer_tokens=options.answer_tokens, codecs=(CODEC,))
    notify("Exporting our graphs", 1, steps)
    forms = choose_forms(source.config, ours)
    bundle = _bundle(directory / "checkpoint", directory / f"bundle-{forms.stage_a}-{forms.cross_attention}", ours)
    passages = random_passages(source.config, 2 * most, options.passage_tokens, seed=options.seed)
    notify("Encoding passages", 2, steps)
    store = _store(directory, bundle, passages, options.num_threads)
    seen = random_questions(
        source.config, passages, count=CALIBRATION_QUESTIONS, num_tokens=options.question_tokens,
        num_passages=min(most, options.k), seed=options.seed + 1,
    )
    made = _Peers(directory, source.config, options, store, seen)
    specs = [
        ContenderSpec(OURS, bundle, store, options.k, options.m, options.answer_tokens, options.num_threads)
    ]
    for place, peer in enumerate(peers):
        notify(f"Preparing {peer.name}", 3 + place, steps)
        specs.append(made.spec(peer, specs[0]))
    for name, other in options.bundles:
        precision = "int8" if read_manifest(other).quantization else "fp32"
        specs.append(
            replace(specs[0], key=name.replace("-", "_"), model=other, form=name, precision=precision)
        )
    questions = random_questions(
        source.config, passages, count=BATCHES * options.batch_size, num_tokens=options.question_tokens,
        num_passages=most, seed=options.seed,
    )
    size = options.batch_size
    batches = tuple(tuple(questions[start : start + size]) for start in range(0, len(questions), size))
    return Prepared(source.config, forms, tuple(specs), batches, tuple(passages))


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


def _bundle(checkpoint: Path, path: Path, options: FormOptions) -> Path:
    if not path.exists():
        export_bundle(checkpoint, path, options)
    return path


def _check_depths(peers: Sequence[Peer], config: CheckpointConfig) -> None:
    for peer in peers:
        if peer.form == RERANK_LAYERS and ((peer.number or 0) >= config.num_live_layers or config.separate_reranker):
            raise OptionError(
                f"--peers {peer.name}",
                expected=f"fewer than the {config.num_live_layers} live layers, and no reranker beside them",
                found="a reranker of its own" if config.separate_reranker else str(peer.number), fix="leave it out",
            )


def _write_deeper(checkpoint: Path, deeper: Path, num_layers: int) -> None:
    """Write a checkpoint of the same weights, of whose live layers the first `num_layers` are stage A."""
    found = read_checkpoint(checkpoint)
    config = found.config
    moved = {"num_stage_a_layers": num_layers, "num_stage_b_layers": config.num_live_layers - num_layers}
    write_checkpoint(
        deeper, config.model_copy(update=moved), dict(found.tensors), word_tokenizer(config.vocab_size)
    )


def _store(directory: Path, bundle: Path, passages: list[tuple[int, ...]], threads: int) -> Path:
    path = directory / "store"
    if not path.exists():
        corpus = directory / "corpus.jsonl"
        replace_file(corpus, corpus_lines(passages).encode())
        build_store(bundle, corpus, path, restart=True, threads=threads)
    return path


class _Peers:
    """What peers answer with, each part made once."""

    def __init__(
        self, directory: Path, config: CheckpointConfig, options: BenchOptions, store: Path,
        seen: Sequence[BenchQuestion],
    ) -> None:
        self._directory, self._config, self._options, self._store, self._seen = directory, config, options, store, seen

    def spec(self, peer: Peer, ours: ContenderSpec) -> ContenderSpec:
        """The contender, with its part of the directory there."""
        run = replace(ours, key=peer.key, form=peer.form, engine=peer.engine, precision=peer.precision)
        if peer.is_ours:
            return replace(run, model=self._ours(peer, ours.model))
        if peer.form == HF_FID:
            model = self._t5()
        elif peer.form == OPTIMUM_FID:
            model = self._optimum(peer)
        elif peer.form == CROSS_ENCODER:
            model = self._cross_encoder(peer)
        else:
            model = self._language_model()
        passages = peer.num_passages or ours.num_passages
        return replace(run, model=model, store=None, num_selected=None, num_passages=passages)

    def _ours(self, peer: Peer, plain: Path) -> Path:
        checkpoint, bundle = self._directory / "checkpoint", plain
        if peer.form == PAPER_FORM:
            bundle = _bundle(checkpoint, self._directory / "bundle-full-cached", PAPER_FORMS)
        if peer.form == RERANK_LAYERS:
            name = f"rerank-layers-{peer.number}"
            deeper = self._directory / f"checkpoint-{name}"
            if not deeper.exists():
                _write_deeper(checkpoint, deeper, peer.number or 1)
            forms = FormOptions(answer_tokens=self._options.answer_tokens, codecs=(CODEC,))
            bundle = _bundle(deeper, self._directory / f"bundle-{name}", forms)
        if peer.precision != "int8":
            return bundle
        quantized = self._directory / f"{bundle.name}-int8"
        return int8_bundle(bundle, self._store, self._seen, quantized, threads=self._options.num_threads)

    def _t5(self) -> Path:
        t5 = self._directory / "t5"
        if not t5.exists():
            from glimmer_export.exporter.bench.peers import write_t5

            checkpoint = read_checkpoint(self._directory / "checkpoint")
            with publish_directory(t5) as work:
                write_t5(checkpoint.config, dict(checkpoint.tensors), work)
        return t5

    def _optimum(self, peer: Peer) -> Path:
        fp32 = self._directory / OPTIMUM
        if not fp32.exists():
            from glimmer_export.exporter.bench.peers import export_with_optimum

            export_with_optimum(self._t5(), fp32)
        if peer.precision != "int8":
            return fp32
        int8 = self._directory / f"{OPTIMUM}-int8"
        if not int8.exists():
            from glimmer_export.exporter.bench.optimum_fid import quantize_optimum

            quantize_optimum(fp32, int8)
        return int8

    def _cross_encoder(self, peer: Peer) -> Path:
        from glimmer_export.exporter.bench.cross_encoder import (
            FP32_GRAPH,
            INT8_GRAPH,
            PLAIN_GRAPH,
            write_cross_encoder,
        )

        directory = self._directory / CROSS_ENCODER
        if not directory.exists():
            write_cross_encoder(directory, self._options.shapes.cross_encoder)
        plain = PLAIN_GRAPH if peer.engine == OPENVINO else FP32_GRAPH
        return directory / (INT8_GRAPH if peer.precision == "int8" else plain)

    def _language_model(self) -> Path:
        from glimmer_export.exporter.bench.language_model import write_language_model

        directory = self._directory / LANGUAGE_MODEL
        if not directory.exists():
            write_language_model(directory, self._options.shapes.language_model)
        return directory
