"""Questions through a bundle's graphs, in the real order and on the real memory -> the table of ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.calibration.calibrators import calibrator
from glimmer_export.calibration.collect import CollectingBackend, GraphCollector
from glimmer_export.calibration.fp16_limits import FP16_MAX
from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.calibration.ranges import RangeTable
from glimmer_export.calibration.spread import spread
from glimmer_export.runtime import Answer, Session
from glimmer_export.runtime.backends.registry import open_backend
from glimmer_export.runtime.codecs.contract import is_codec_tensor
from glimmer_export.runtime.contract import (
    CPU_BACKEND,
    MEMORY_ENCODER,
    BundleManifest,
    CalibrationError,
    form_of,
    read_manifest,
    stage_of,
)

__all__ = [
    "FEW_SAMPLES", "GROWTH", "Calibration", "CalibrationOptions", "calibrate", "coverage_warnings", "in_other_form",
]  # fmt: skip

FEW_SAMPLES = 100
"""After n samples the next one is the largest yet with a chance of 1 in n + 1: from here on, less than 1%."""
GROWTH = 1.25
"""A range that the last tenth of the samples widened by more than this had not settled; INT8's step grows with it."""


def coverage_warnings(
    collectors: Mapping[str, GraphCollector], before: Mapping[tuple[str, str], float], samples: int
) -> tuple[str, ...]:
    """Few samples, graphs that never ran, tensors never seen, ranges that still grew.

    `before` holds, by graph and tensor, the amax before the last tenth of the samples.
    """
    warnings = []
    if samples < FEW_SAMPLES:
        warnings.append(f"only {samples} questions were run; take {FEW_SAMPLES} or more")
    grown: list[tuple[float, str]] = []
    for name, collector in collectors.items():
        if not collector.runs:
            warnings.append(f"graph {name} never ran: it has no ranges")
            continue
        unseen = collector.unseen()
        if unseen:
            warnings.append(f"graph {name}: {len(unseen)} tensors never had a value, {unseen[0]} the first")
        for tensor, running in collector.followed():
            earlier = before.get((name, tensor), 0.0)
            if running.amax > GROWTH * earlier and earlier > 0:
                grown.append((running.amax / earlier, f"{name}, {tensor}"))
    if grown:
        factor, where = max(grown)
        warnings.append(
            f"{len(grown)} ranges still grew by more than a quarter in the last tenth of the questions, "
            f"most by {factor:.2f} times ({where}): take more questions"
        )
    return tuple(warnings)



@dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    `samples` questions are taken in even steps over the file, or all. `passages_per_question` bounds the passages of
    a question that each graph is seen with; every passage that is read lies within it at the papers' m = 5. `given`
    takes the file's passages instead of retrieving. `backend` is the name of what runs the graphs that answer; ONNX
    Runtime on the CPU looks at their tensors beside it, on the same inputs.
    """

    samples: int = 200
    method: str = "max"
    given: bool = False
    passages_per_question: int = 5
    threads: int | None = None
    backend: str = CPU_BACKEND


@dataclass(frozen=True)
class Calibration:
    """A table, and what became of the questions: `errors` counts those not taken, by the error's name.

    Of the passages given with them, `skipped_passages` had no text.
    """

    table: RangeTable
    questions: int
    nothing_retrieved: int
    errors: dict[str, int]
    skipped_passages: int = 0

    def by_graph(self) -> dict[str, dict[str, Any]]:
        """For each graph the number of its tensors, and the one of largest magnitude with its distance from FP16's end.

        Stored memory is left out: its codes fill FP16's range on purpose.
        """
        rows = {}
        for graph, tensors in self.table.graphs.items():
            own = {name: tensor.amax for name, tensor in tensors.items() if not is_stored_memory(name)}
            widest = max(own, key=own.__getitem__, default=None)
            amax = own[widest] if widest is not None else None
            rows[graph] = {
                "tensors": len(tensors), "amax": amax, "tensor": widest,
                "fp16_headroom": FP16_MAX / amax if amax else None,
            }
        return rows

    def to_json(self) -> dict[str, Any]:
        """Summary and warnings, then every tensor."""
        return {
            "questions": self.questions, "samples": self.table.samples, "nothing_retrieved": self.nothing_retrieved,
            "errors": self.errors, "skipped_passages": self.skipped_passages, "method": self.table.method,
            "warnings": list(self.table.warnings),
            "graphs": self.by_graph(), "tensors": self.table.summary(),
        }


def is_stored_memory(tensor: str) -> bool:
    """Whether a tensor is memory in the store's codec, not yet decoded."""
    return is_codec_tensor(tensor) or tensor.startswith("codec/")


def calibrate(
    bundle: str | Path,
    store: str | Path | None,
    questions: Sequence[Question],
    options: CalibrationOptions,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Calibration:
    """Collect the ranges of a bundle's FP32 graphs; nothing is written.

    Questions are run one at a time, each stage fed by the stage before it and memory read through the store's codec,
    so that the table is of the graphs for that codec. If the bundle has both forms of cross-attention, each question is
    answered in either, and the table is of both.
    The memory encoder, which a session runs on questions alone, sees the texts of passages that were read too. Equal
    inputs give equal tables. `advance` is told how many questions came to be done.

    Raises CalibrationError (a bundle that is not FP32, a value that is not finite, no question that could be run),
    OptionError, BackendError (the backend does not work here), and what opening a session raises.
    """
    calibrator(options.method)
    manifest = read_manifest(Path(bundle))
    _check_precision(manifest, bundle)
    sample = spread(range(len(questions)), options.samples)
    backend = CollectingBackend(
        open_backend(options.backend, Path(bundle), threads=options.threads, lean=True),
        limit=options.passages_per_question, threads=options.threads, fixed_keys=manifest.model.cross_attention_bias,
    )
    last_tenth = len(sample) - max(1, len(sample) // 10)
    before: dict[tuple[str, str], float] = {}
    answers: list[Answer] = []
    with (
        closing(backend),
        # Without drafts: their guesses and padding are no inputs of an answer.
        Session.open(bundle, store, threads=options.threads, backend=backend, draft_tokens=0) as session,
    ):
        other = in_other_form(session, backend)
        for done, index in enumerate(sample):
            if done == last_tenth:
                before = _amax(backend.collectors)
            passages = [given_passages(questions[index])] if options.given else None
            answers += session.answer_many([questions[index].question], passages=passages)
            if other is not None:
                other.answer_many([questions[index].question], passages=passages)
            if MEMORY_ENCODER in backend.collectors:
                _observe_passages(backend.collectors[MEMORY_ENCODER], session, answers[-1], options)
            advance(1)
    run = sum(answer.answer is not None for answer in answers)
    errors = [answer.error for answer in answers if answer.error is not None]
    nothing_retrieved = len(answers) - run - len(errors)
    if not run:
        raise CalibrationError(
            f"{len(answers)} questions", expected="at least one that retrieves a passage and can be answered",
            found=str(errors[0]) if errors else "none that retrieved anything",
            fix="take questions that go with the store",
        )
    warnings = coverage_warnings(backend.collectors, before, run)
    if run < len(answers):
        warnings += (f"{len(answers) - run} of {len(answers)} questions could not be run",)
    table = RangeTable(
        method=options.method,
        samples=run,
        graph_digests={name: manifest.graphs[name].files[0].sha256 for name in backend.collectors},
        graphs={name: collector.result() for name, collector in backend.collectors.items()},
        warnings=warnings,
    )
    counted = dict(Counter(type(error).__name__ for error in errors))
    skipped = sum(questions[index].skipped for index in sample) if options.given else 0
    return Calibration(table, len(answers), nothing_retrieved, counted, skipped)


def in_other_form(session: Session, backend: CollectingBackend) -> Session | None:
    """The same with a decoder of the form that does not answer; None if there is one form.

    What stands before the decoder is not looked at again.
    """
    bundle, manifest = session.bundle, session.bundle.manifest
    stages = manifest.stages(None if session.codec is None else session.codec.layout.name)
    io = manifest.io()
    others = [name for name in manifest.graphs if form_of(name) not in (None, manifest.cross_attention)]
    if not others:
        return None
    graphs = {stage: backend.plain[name] for stage, name in stages.items() if form_of(name) is None}
    graphs |= {stage_of(name): backend.load(bundle.graph_path(name), io[name]) for name in others}
    return Session(bundle, session.store, graphs, session.text, session.codec)


def _check_precision(manifest: BundleManifest, bundle: str | Path) -> None:
    found = sorted({graph.precision for graph in manifest.graphs.values()})
    if manifest.quantization is not None or found != ["fp32"]:
        raise CalibrationError(
            f"bundle {bundle}", expected="the graphs as they were exported, in fp32",
            found=f"quantised ones, {', '.join(found)}", fix="calibrate the FP32 bundle",
        )


def _amax(collectors: dict[str, GraphCollector]) -> dict[tuple[str, str], float]:
    return {
        (graph, tensor): running.amax
        for graph, collector in collectors.items() for tensor, running in collector.followed()
    }


def _observe_passages(
    encoder: GraphCollector, session: Session, answer: Answer, options: CalibrationOptions
) -> None:
    read = [item.passage for item in answer.passages if item.read]
    for place in spread(range(len(read)), options.passages_per_question):
        ids, _ = session.text.passage(read[place].title, read[place].text)
        tokens = np.array([ids], np.int32)
        encoder.observe({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
