"""Bundles and stores to measure, exported if they are measured and kept in the work folder: a part made of files."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.gpu.setting import Scale
from glimmer_export.exporter.files.publish import publish_directory, replace_file

if TYPE_CHECKING:
    from glimmer_export.exporter.bench.inputs import BenchQuestion
    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = [
    "PRECISIONS", "TARGET", "Model", "demo_checked", "demo_model", "random_checkpoint", "random_model",
    "random_questions_of", "threads", "write_t5_of",
]  # fmt: skip

PRECISIONS = ("fp16", "int8-fp16")
TINY_SHAPE: dict[str, Any] = {
    "vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
PARTS_OF_TINY = {"base": (2, 1, 2)}
"""Layers of the memory encoder, stage A and stage B in a rehearsal, as far apart in kind as the real size's are: base
has one layer in stage A, which is lazy then, and every larger size has more."""
MANY = (2, 2, 2)
THIN = (1, 1, 1)
"""The least encoder, for measuring decoder steps alone, in a rehearsal and for real."""
TARGET = "h200"
"""Of configs/targets: what graphs are exported and engines are built for."""
SEED = 0
DEMO_SEED = 7
CALIBRATED_ON = 4
"""Random weights and tokens have no rare outliers; the demo's model is calibrated on more."""


@dataclass(frozen=True)
class Model:
    """A model's folder: `checkpoint`, the bundles `fp32` and of each precision, `store`, `questions.jsonl`.

    `form` is that of the decoder's cross-attention if it is not left to the exporter: its bundles stand beside those
    of other forms.
    """

    folder: Path
    form: str = "auto"

    @property
    def store(self) -> Path:
        """Its passages, FP16."""
        return self.folder / "store"

    @property
    def checkpoint(self) -> Path:
        """What all its bundles were exported from."""
        return self.folder / "checkpoint"

    @property
    def questions(self) -> Path:
        """What is asked of it."""
        return self.folder / "questions.jsonl"

    def bundle(self, precision: str) -> Path:
        """Of `fp32` or one of PRECISIONS."""
        return self.folder / (precision if self.form == "auto" else f"{precision}-{self.form}")


def threads() -> int:
    """CPU threads of what is done on the CPU."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))


def demo_checked(work: Path, scale: Scale) -> tuple[Model, dict[str, float]]:
    """The demo checkpoint in FP32 on a world it never saw: what the first look needs; seconds by what was done."""
    from glimmer_export.exporter.demo.data import write_demo

    model, clock = Model(work / "demo"), _Clock()
    if not model.folder.exists():
        write_demo(model.folder, num_questions=scale.questions, seed=DEMO_SEED)
        clock.note("data")
    _export_and_store(model, (model.folder / "corpus.jsonl"), clock)
    return model, clock.seconds


def demo_model(work: Path, scale: Scale) -> tuple[Model, dict[str, float]]:
    """The same in each precision too, calibrated on another world."""
    from glimmer_export.calibration.calibrate import CalibrationOptions
    from glimmer_export.calibration.questions import read_questions
    from glimmer_export.exporter.demo.data import write_demo

    model, seconds = demo_checked(work, scale)
    clock = _Clock()
    other = Model(work / "demo-calibration")
    if not other.folder.exists():
        write_demo(other.folder, num_questions=scale.calibration_questions, seed=DEMO_SEED + 1)
        clock.note("calibration data")
    if not other.store.exists():
        _store(model, other.folder / "corpus.jsonl", other.store)
        clock.note("calibration store")
    rows = read_questions(other.questions)
    _quantize(model, other.store, rows, CalibrationOptions(samples=len(rows), threads=threads()), PRECISIONS, clock)
    return model, {**seconds, **clock.seconds}


def random_checkpoint(
    work: Path, size: str, scale: Scale, *, tiny: bool, decoder_layers: int | None = None, form: str = "auto"
) -> tuple[Model, dict[str, float]]:
    """Random weights at a size, and nothing made of them: what a peer needs; seconds by what was done.

    `decoder_layers` makes a model whose encoder is as thin as it can be, for measuring decoder steps alone.
    """
    from glimmer_export.exporter.bench.inputs import word_tokenizer
    from glimmer_export.exporter.checkpoint import random_weights, write_checkpoint

    clock = _Clock()
    model = Model(work / (size if decoder_layers is None else f"{size}-decoder-{decoder_layers}"), form)
    model.folder.mkdir(parents=True, exist_ok=True)
    if not model.checkpoint.exists():
        config = _config(size, decoder_layers, scale, tiny=tiny)
        tensors = random_weights(config, seed=SEED)
        write_checkpoint(model.checkpoint, config, tensors, word_tokenizer(config.vocab_size))
        clock.note("weights")
    return model, clock.seconds


def random_model(
    work: Path, size: str, scale: Scale, *, tiny: bool, decoder_layers: int | None = None, form: str = "auto",
    precisions: tuple[str, ...] = ("fp16",),
) -> tuple[Model, dict[str, float]]:
    """The same exported, calibrated and converted, with a store of random passages."""
    from glimmer_export.calibration.calibrate import CalibrationOptions
    from glimmer_export.calibration.questions import Question
    from glimmer_export.exporter.bench.inputs import corpus_lines, random_passages
    from glimmer_export.exporter.checkpoint import read_checkpoint

    model, seconds = random_checkpoint(work, size, scale, tiny=tiny, decoder_layers=decoder_layers, form=form)
    clock = _Clock()
    corpus = model.folder / "corpus.jsonl"
    if not corpus.exists():
        config = read_checkpoint(model.checkpoint).config
        passages = random_passages(config, 4 * scale.k, scale.passage_tokens, seed=SEED)
        replace_file(corpus, corpus_lines(passages).encode())
    _export_and_store(model, corpus, clock)
    rows = [
        Question(str(place), item.text, (), item.numbers, ())
        for place, item in enumerate(random_questions_of(model, scale, CALIBRATED_ON, seed=SEED + 1))
    ]
    options = CalibrationOptions(samples=len(rows), given=True, passages_per_question=3, threads=threads())
    _quantize(model, model.store, rows, options, precisions, clock)
    return model, {**seconds, **clock.seconds}


def random_questions_of(model: Model, scale: Scale, count: int, *, seed: int) -> list[BenchQuestion]:
    """Questions of random tokens on a random model's passages, each with k of them at random."""
    from glimmer_export.exporter.bench.inputs import random_passages, random_questions
    from glimmer_export.exporter.checkpoint import read_checkpoint

    config = read_checkpoint(model.checkpoint).config
    passages = random_passages(config, 4 * scale.k, scale.passage_tokens, seed=SEED)
    return random_questions(
        config, passages, count=count, num_tokens=scale.question_tokens,
        num_passages=max(scale.k, *scale.fid_passages), seed=seed,
    )


def write_t5_of(model: Model) -> Path:
    """The model's weights as a Hugging Face T5, whose encoder has all of its layers."""
    from glimmer_export.exporter.bench.peers import write_t5
    from glimmer_export.exporter.checkpoint import read_checkpoint

    target = model.folder / "t5"
    if not target.exists():
        checkpoint = read_checkpoint(model.checkpoint)
        with publish_directory(target) as work:
            write_t5(checkpoint.config, dict(checkpoint.tensors), work)
    return target


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def note(self, what: str) -> None:
        """Count the time since the last note as this."""
        now = time.monotonic()
        self.seconds[what] = round(now - self._since, 2)
        self._since = now


def _config(size: str, decoder_layers: int | None, scale: Scale, *, tiny: bool) -> CheckpointConfig:
    from fractions import Fraction

    from glimmer_export.exporter.checkpoint import ModelOptions
    from glimmer_export.exporter.checkpoint.options import config_from_options
    from glimmer_export.exporter.checkpoint.t5_shape import T5Shape, preset

    parts = THIN if decoder_layers is not None else PARTS_OF_TINY.get(size, MANY) if tiny else None
    shape = T5Shape(num_layers=sum(MANY), **TINY_SHAPE) if tiny else preset(size)
    given: dict[str, Any] = {}
    if parts is not None:
        memory, stage_a, stage_b = parts
        live = stage_a + stage_b
        given = {
            "live_proportion": Fraction(live, memory + live), "rerank_proportion": Fraction(stage_a, live)
        }
        # As many decoder layers as encoder layers: a static cache in transformers is made for the encoder's number.
        depth = sum(parts) if decoder_layers is None else decoder_layers
        shape = shape.model_copy(update={"num_layers": sum(parts), "num_decoder_layers": depth})
    options = ModelOptions(
        "glimmer", question_length=scale.question_tokens, passage_length=scale.passage_tokens,
        passage_template="{text}", num_retrieved=scale.k, num_selected=scale.m, max_new_tokens=scale.answer_tokens,
        **given,
    )
    return config_from_options(options, shape, subject=f"random model of size {size}")


def _export_and_store(model: Model, corpus: Path, clock: _Clock) -> None:
    from glimmer_export.exporter.bundle import FormOptions, export_bundle

    if not model.bundle("fp32").exists():
        options = FormOptions(target=TARGET, codecs=("fp16",), cross_attention=model.form)
        export_bundle(model.checkpoint, model.bundle("fp32"), options)
        clock.note("export")
    if not model.store.exists():
        _store(model, corpus, model.store)
        clock.note("store")


def _store(model: Model, corpus: Path, store: Path) -> None:
    from glimmer_export.exporter.memory import build_store

    build_store(model.bundle("fp32"), corpus, store, restart=True, threads=threads())


def _quantize(
    model: Model, store: Path, rows: list[Any], calibration: Any, precisions: tuple[str, ...], clock: _Clock
) -> None:
    from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
    from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
    from glimmer_export.runtime.contract import read_manifest

    if not read_manifest(model.bundle("fp32")).calibration:
        calibrate_bundle(model.bundle("fp32"), store, rows, calibration)
        clock.note("calibrate")
    for precision in precisions:
        if not model.bundle(precision).exists():
            options = QuantizeOptions(precision, "tensorrt")
            done = quantize_bundle(model.bundle("fp32"), model.bundle(precision), options)
            kept = {name: graph.kept_fp32 for name, graph in done.items() if graph.kept_fp32}
            replace_file(Path(f"{model.bundle(precision)}-kept-fp32.json"), json.dumps(kept).encode())
            clock.note(precision)
