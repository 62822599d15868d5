"""Bundle against checkpoint on real questions: the same passages put to both, answers and graphs compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from calibration.questions import Question, given_passages
from exporter.answering.metrics import exact_match, token_f1
from exporter.checkpoint import model_from_checkpoint, read_checkpoint
from exporter.checkpoint.digest import checkpoint_digest
from exporter.parity.observe import ObservingBackend
from exporter.parity.reference import ReferenceAnswer, TorchReference
from exporter.parity.report import ParityReport
from runtime import Answer, Passage, Session
from runtime.backends import OnnxRuntimeBackend
from runtime.contract import CheckpointError, PassageError, read_manifest
from runtime.memory import decode_fp16, encode_fp16, encode_passages

__all__ = ["ParityOptions", "compare_with_checkpoint"]


@dataclass(frozen=True)
class ParityOptions:
    """How to compare.

    `given_passages`: those of the question file, instead of retrieval; `top_k` and `top_m`: None for the manifest's;
    `batch_size`: questions of one run; `observed_runs`: runs of each graph that torch repeats; `exact_memory`: the
    reference encodes its own memory in FP32 instead of reading the store's.
    """

    given_passages: bool = False
    top_k: int | None = None
    top_m: int | None = None
    batch_size: int = 8
    observed_runs: int = 8
    exact_memory: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class _Compared:
    question: Question
    reference: ReferenceAnswer
    reference_text: str
    candidate: Answer


def compare_with_checkpoint(
    bundle: Path,
    checkpoint: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: ParityOptions,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> ParityReport:
    """Answer every question with both and compare; `advance(n)` is called as n more are done.

    Raises CheckpointError where the bundle was made from another checkpoint, and what opening and answering raise.
    """
    source = read_checkpoint(checkpoint)
    model = model_from_checkpoint(source)
    forms = read_manifest(bundle).forms
    observer = ObservingBackend(OnnxRuntimeBackend(options.threads), model, forms, options.observed_runs)
    with Session.open(bundle, store, backend=observer) as session:
        if session.bundle.manifest.checkpoint_digest != checkpoint_digest(source):
            raise CheckpointError(
                str(source), expected=f"the checkpoint that {session.bundle} was made from", found="another",
                fix="name that one, or export this checkpoint",
            )
        comparison = _Comparison(session, TorchReference(model), options)
        for start in range(0, len(questions), options.batch_size):
            batch = questions[start : start + options.batch_size]
            comparison.add(batch)
            advance(len(batch))
        errors = observer.max_abs_err
        return comparison.report({name: errors[name] for name in session.graphs if name in errors})


class _Comparison:
    def __init__(self, session: Session, reference: TorchReference, options: ParityOptions) -> None:
        self._session, self._reference, self._options = session, reference, options
        self._text = session.text
        self._has_memory = session.bundle.manifest.model.traits.has_memory
        self._compared: list[_Compared] = []
        self._memory_errors: list[float] = []
        self._errors = 0

    def add(self, questions: Sequence[Question]) -> None:
        """Answer a batch with the session, then each question with the reference."""
        given = [given_passages(question) for question in questions] if self._options.given_passages else None
        answers = self._session.answer_many(
            [question.question for question in questions], self._options.top_k, self._options.top_m, passages=given
        )
        for question, answer in zip(questions, answers, strict=True):
            if answer.error is not None:
                self._errors += 1
            else:
                reference = self._answer_reference(answer)
                text = self._text.decode(reference.tokens)
                self._compared.append(_Compared(question, reference, text, answer))

    def _answer_reference(self, answer: Answer) -> ReferenceAnswer:
        if not answer.passages:
            return ReferenceAnswer([], None, [])
        passages = [self._text.passage(item.passage.title, item.passage.text)[0] for item in answer.passages]
        memory = self._memory(answer, passages) if self._has_memory else None
        num_selected = self._options.top_m or self._session.bundle.manifest.model.num_selected
        return self._reference.answer(self._text.question(answer.question), passages, memory, num_selected)

    def _memory(self, answer: Answer, passages: list[list[int]]) -> list[NDArray[np.float32]]:
        """The passages' memory for the reference: the store's, decoded, or torch's own.

        For the first questions torch encodes the passages in any case, to measure the store and the memory encoder.
        """
        stored = [self._stored(item.passage) for item in answer.passages]
        measure = len(self._compared) < self._options.observed_runs
        if not measure and not self._options.exact_memory and all(memory is not None for memory in stored):
            return [memory for memory in stored if memory is not None]
        exact = self._reference.memory(passages)
        if measure:
            self._observe_memory_encoder(passages)
            for found, expected in zip(stored, exact, strict=True):
                if found is not None:
                    self._memory_errors.append(float(np.abs(found - expected).max()))
        if self._options.exact_memory:
            return exact
        return [_through_codec(own) if found is None else found for found, own in zip(stored, exact, strict=True)]

    def _stored(self, passage: Passage) -> NDArray[np.float32] | None:
        """What the store holds of a passage; None for a given text, though its id may be that of another passage."""
        store = self._session.store
        if passage.id is None or store is None:
            return None
        try:
            number = store.numbers([passage.id])[0]
        except PassageError:
            return None
        if store.passage(number) != passage:
            return None
        codes, scale = store.memory(number)
        return decode_fp16(codes, scale)

    def _observe_memory_encoder(self, passages: list[list[int]]) -> None:
        encode_passages(self._session.graphs["memory_encoder"], passages)

    def report(self, graphs: dict[str, float]) -> ParityReport:
        """Sum up what was added."""
        compared = self._compared
        overlaps = [
            len({*item.reference.selected} & {*item.candidate.selected}) / len(item.reference.selected)
            for item in compared
            if item.reference.scores is not None and item.reference.selected
        ]
        graded = [item for item in compared if item.question.answers]
        references = [(item.reference_text, item.question.answers) for item in graded]
        candidates = [(item.candidate.answer or "", item.question.answers) for item in graded]
        return ParityReport(
            questions=len(compared),
            errors=self._errors,
            passages="given" if self._options.given_passages else "retrieved",
            reference_memory="exact" if self._options.exact_memory else "store",
            answers_equal=_mean([item.reference.tokens == [*item.candidate.token_ids] for item in compared]),
            top_m_overlap=_mean(overlaps),
            em_reference=_mean([exact_match(*pair) for pair in references]),
            em_candidate=_mean([exact_match(*pair) for pair in candidates]),
            f1_reference=_mean([token_f1(*pair) for pair in references]),
            f1_candidate=_mean([token_f1(*pair) for pair in candidates]),
            memory_max_abs_err=max(self._memory_errors, default=None),
            graphs=graphs,
        )


def _through_codec(memory: NDArray[np.float32]) -> NDArray[np.float32]:
    codes, scale = encode_fp16(memory)
    return decode_fp16(codes, scale)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
