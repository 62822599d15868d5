"""A bundle against its checkpoint or another bundle on real questions: the same passages put to both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.parity.attribution import (
    Forced,
    ForcedSide,
    Mix,
    PartEffect,
    effect_of,
    forced_answers,
    mixes,
)
from glimmer_export.exporter.parity.figures import Answered, coverage_of
from glimmer_export.exporter.parity.graph_errors import observe
from glimmer_export.exporter.parity.graph_sets import (
    BundleGraphs,
    Compared,
    GraphSet,
    Shared,
    TorchGraphs,
    compared_graphs,
)
from glimmer_export.exporter.parity.inputs import (
    Encode,
    EncodedMemory,
    MemorySource,
    Rows,
    StoredMemory,
    TokensAlone,
    codec_name,
    rows_from_questions,
)
from glimmer_export.exporter.parity.options import ParityOptions, Progress, no_progress
from glimmer_export.exporter.parity.reference import TorchReference, graphs_from_model
from glimmer_export.exporter.parity.report import ParityReport, SideName, report_from_replies
from glimmer_export.exporter.parity.sides import GraphSide, Reply, Side, TorchSide
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Array, Backend, Graph
from glimmer_export.runtime.backends.registry import open_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CPU_BACKEND,
    FP32,
    MEMORY_ENCODER,
    BundleError,
    BundleManifest,
    CheckpointError,
    Forms,
    OptionError,
    computation_of,
)
from glimmer_export.runtime.cpu_kind import bf16_instructions, cpu_kind
from glimmer_export.runtime.opening import compute_precision_in
from glimmer_export.runtime.passage_memory import encode_passages
from glimmer_export.runtime.store import MemoryStore

if TYPE_CHECKING:
    from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["compare_with_bundle", "compare_with_checkpoint"]


@dataclass(frozen=True)
class _Reference:
    """What the candidate is compared with: as graphs, which can be observed and mixed, and how it encodes memory.

    `torch` answers in the graphs' place where the reference is a checkpoint; `bundle` is the reference if it is one.
    `compute_precision` is that of the float operators.
    """

    name: SideName
    graphs: GraphSet
    forms: Forms
    encode: Encode
    torch: TorchReference | None = None
    bundle: Bundle | None = None
    compute_precision: str = FP32


def compare_with_checkpoint(
    bundle: Path,
    checkpoint: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: ParityOptions,
    *,
    backend: Backend | None = None,
    progress: Progress = no_progress,
) -> ParityReport:
    """Compare a bundle with the torch checkpoint it was made from.

    `backend` runs the bundle's graphs, None for ONNX Runtime on the CPU. Raises CheckpointError if the bundle was
    made from another checkpoint, and what opening and answering raise.
    """
    from glimmer_export.exporter.checkpoint import read_checkpoint
    from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
    from glimmer_export.exporter.stages import model_from_checkpoint

    source = read_checkpoint(checkpoint)
    model = model_from_checkpoint(source)
    backend = backend or open_backend(CPU_BACKEND, bundle, threads=options.threads)
    with Session.open(bundle, store, retrieval=options.retrieval, backend=backend) as session:
        made_from, found = session.bundle.manifest.checkpoint_digest, checkpoint_digest(source)
        if made_from != found:
            raise CheckpointError(
                str(source), expected=f"the checkpoint that {session.bundle} was made from, of digest {made_from[:12]}",
                found=f"one of digest {found[:12]}",
                fix="name that one, or export this checkpoint",
            )
        forms = session.bundle.manifest.forms
        torch = TorchReference(_ranking_all(model) if options.exact_ranking else model)
        precisions = dict.fromkeys(session.bundle.manifest.graphs, "fp32")
        name = SideName("checkpoint", str(checkpoint), "torch", precisions)
        graphs = TorchGraphs(partial(graphs_from_model, model, forms))
        reference = _Reference(name, graphs, forms, torch.memory, torch)
        return _compare(session, reference, questions, options, backend, progress)


def compare_with_bundle(
    bundle: Path,
    reference: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: ParityOptions,
    *,
    backend: Backend | None = None,
    reference_backend: Backend | None = None,
    progress: Progress = no_progress,
) -> ParityReport:
    """Compare a bundle with another bundle of the same checkpoint, without torch.

    `backend` runs the candidate's graphs and `reference_backend` the reference's, None for ONNX Runtime on the CPU.
    Raises BundleError if the bundles are of different checkpoints, or in different forms where parts are to be
    swapped; OptionError for `exact_memory`, which is torch's; and what opening and answering raise.
    """
    if options.exact_memory:
        raise OptionError(
            "exact memory", expected="a checkpoint as the reference", found=f"bundle {reference}",
            fix="leave it out, or compare with the checkpoint",
        )
    backend = backend or open_backend(CPU_BACKEND, bundle, threads=options.threads)
    reference_backend = reference_backend or open_backend(CPU_BACKEND, reference, threads=options.threads)
    with Session.open(bundle, store, retrieval=options.retrieval, backend=backend) as session:
        other = Bundle.open(reference)
        manifest, wanted = other.manifest, session.bundle.manifest
        if manifest.checkpoint_digest != wanted.checkpoint_digest:
            raise BundleError(
                str(other), expected=f"a bundle of the checkpoint that {session.bundle} was made from",
                found="one of another", fix="name a bundle of the same checkpoint",
            )
        if options.attribution and _form_names(manifest) != _form_names(wanted):
            raise BundleError(
                str(other), expected=f"graphs in the forms {_form_names(wanted)}, so that parts can be swapped",
                found=_form_names(manifest), fix="export the reference in the same forms, or leave attribution out",
            )
        graphs = BundleGraphs(other, reference_backend)
        encode: Encode = _none
        if manifest.model.traits.has_memory:
            encode = partial(encode_passages, graphs.graph(MEMORY_ENCODER))
        name = SideName.of_bundle(reference, manifest, reference_backend)
        side = _Reference(
            name, graphs, manifest.forms, encode, bundle=other,
            compute_precision=compute_precision_in(reference_backend),
        )
        return _compare(session, side, questions, options, backend, progress)


def _compare(
    session: Session, reference: _Reference, questions: Sequence[Question], options: ParityOptions, backend: Backend,
    progress: Progress,
) -> ParityReport:
    if options.exact_memory and options.reference_store is not None:
        raise OptionError(
            "reference store", expected="none, as the reference is to read exact memory",
            found=str(options.reference_store), fix="choose one of the two",
        )
    if options.exact_ranking:
        _require_cascade(session, options)
    store = options.reference_store
    with progress("Finding passages", len(questions)) as advance:
        rows = rows_from_questions(session, questions, options, advance)
    if store is None:
        return _Comparison(session, reference, rows, options, backend, session.store).run(progress)
    with MemoryStore.open(store, reference.bundle or session.bundle) as opened:
        return _Comparison(session, reference, rows, options, backend, opened).run(progress)


class _Comparison:
    """Both sides over the same rows."""

    def __init__(
        self, session: Session, reference: _Reference, rows: Rows, options: ParityOptions, backend: Backend,
        reference_store: MemoryStore | None,
    ) -> None:
        self._session, self._reference, self._rows, self._options = session, reference, rows, options
        self._manifest = session.bundle.manifest
        self._num_selected = options.top_m or self._manifest.model.num_selected
        self._name = SideName.of_bundle(session.bundle.directory, self._manifest, backend)
        self._compute_precision = compute_precision_in(backend)
        self._own: StoredMemory | None = None
        self._memory: MemorySource = TokensAlone(rows.table)
        self._candidate_memory = self._encoded = self._memory
        self._other_store = False
        codec = session.codec
        self._graphs = BundleGraphs(session.bundle, backend, session.graphs, codec_name(codec))
        if codec is not None:
            encode = partial(encode_passages, session.graphs[MEMORY_ENCODER])
            self._own = StoredMemory(rows.table, session.store, EncodedMemory(rows.table, encode, codec), own=True)
            self._candidate_memory = self._own
            if reference_store is not None and reference_store.codec is not None:
                codec = reference_store.codec
            exact = EncodedMemory(rows.table, reference.encode, codec)
            own = reference_store is session.store
            same = own or _same_store(reference_store, session.store)
            self._other_store = options.exact_memory or not same
            self._memory = exact if options.exact_memory else StoredMemory(rows.table, reference_store, exact, own=own)
            self._encoded = EncodedMemory(rows.table, encode, codec)

    def run(self, progress: Progress) -> ParityReport:
        """Observe the graphs, answer with both, and swap parts if that is asked for."""
        options, manifest = self._options, self._manifest
        rows = self._rows.rows
        with progress("Comparing graphs", min(len(rows), options.observed_runs * options.batch_size)) as advance:
            source = self._observed_memory()
            codec = codec_name(source.codec)
            graphs, memory_error = observe(
                self._session, self._graphs.of(codec), self._reference.graphs.of(codec), self._reference.forms,
                self._rows, source, self._own, options=options, advance=advance,
            )
        own = self._side(
            self._session.graphs, self._candidate_memory, mass=options.mass, draft_tokens=self._draft_tokens()
        )
        references, candidates, speed = self._answer_both(self._reference_side(), own, progress)
        return report_from_replies(
            (self._reference.name, self._name), self._rows, (references, candidates), options,
            compared=self._compared(),
            selects=manifest.model.traits.selects, memory_max_abs_err=memory_error, graphs=graphs,
            speed=speed,
            attribution=self._attribute(references, candidates, progress) if options.attribution else None,
        )

    def _observed_memory(self) -> MemorySource:
        """What both sides' graphs are run on: the reference's memory, or the candidate's where it decodes no other."""
        codec, decoded = codec_name(self._memory.codec), self._manifest.codecs
        return self._memory if self._own is None or codec in decoded else self._own

    def _shared(self) -> Shared:
        """What both sides have the same of and compute alike; of torch and graphs nothing."""
        reference = self._reference
        if reference.bundle is None or self._compute_precision != reference.compute_precision:
            return Shared()
        codecs = (codec_name(self._session.codec), codec_name(self._memory.codec))
        return Shared.of(self._session.bundle, self._name.backend, reference.bundle, reference.name.backend, codecs)

    def _compared(self) -> Compared:
        made = computation_of(
            self._manifest, self._name.backend, codec_name(self._session.codec), cpu_kind=cpu_kind(),
            bf16_instructions=bf16_instructions(), compute_precision=self._compute_precision,
        )
        return compared_graphs(self._manifest, made, self._reference.name.precision, self._shared())

    def _attribute(
        self, references: list[Reply], candidates: list[Reply], progress: Progress
    ) -> dict[str, PartEffect]:
        """Of the questions that were answered, by part."""
        _, answered = coverage_of(self._rows.rows, references, candidates, refused=0)
        parts = mixes(
            self._manifest.model, self._reference.graphs, self._graphs, self._memory,
            store=self._own if self._other_store and self._session.store is not None else None,
            encoded=self._encoded, shared=self._shared(),
        )
        effects: dict[str, PartEffect] = {}
        if parts:
            own = Mix(self._reference.graphs.of(codec_name(self._memory.codec)), self._memory)
            before, _ = self._force(own, answered, "Scoring the reference", progress)
            for part, mix in parts.items():
                after, mixed = self._force(mix, answered, f"Swapping {part}", progress)
                effects[part] = effect_of(answered.rows, answered.references, mixed, before, after)
        return effects

    def _force(
        self, mix: Mix, answered: Answered, what: str, progress: Progress
    ) -> tuple[list[Forced], list[Reply]]:
        text, shape, rows = self._session.text, self._manifest.model, answered.rows
        taught = ForcedSide(mix.graphs, shape, text, mix.source, self._num_selected)
        free = self._side(mix.graphs, mix.source)
        with progress(what, len(rows)) as advance:
            return forced_answers(
                taught, free, rows, answered.references, batch_size=self._options.batch_size, advance=advance
            )

    def _reference_side(self) -> Side:
        reference, options = self._reference, self._options
        if reference.torch is None:
            graphs = reference.graphs.of(codec_name(self._memory.codec))
            return self._side(graphs, self._memory, margins=True, exact_ranking=options.exact_ranking)
        return TorchSide(
            reference.torch, self._manifest.model, self._session.text, self._rows.table.input_ids,
            None if options.exact_memory else self._memory, self._num_selected,
        )

    def _side(
        self, graphs: dict[str, Graph], source: MemorySource, *, margins: bool = False, mass: float | None = None,
        draft_tokens: int = 0, exact_ranking: bool = False,
    ) -> GraphSide:
        text, shape = self._session.text, self._manifest.model
        if exact_ranking:
            shape = replace(shape, num_shortlisted=max((len(row.candidates) for row in self._rows.rows), default=1))
        return GraphSide(
            graphs, shape, text, source, self._num_selected, margins=margins, mass=mass, draft_tokens=draft_tokens
        )

    def _draft_tokens(self) -> int:
        """The candidate's; raises OptionError for a bundle whose decoder takes no draft."""
        tokens = self._options.draft_tokens
        if tokens and not self._manifest.takes_drafts:
            raise OptionError(
                "--draft-tokens", expected="a bundle whose decoder takes drafts", found="one of an earlier version",
                fix="export it again",
            )
        return tokens

    def _answer_both(
        self, reference: Side, candidate: Side, progress: Progress
    ) -> tuple[list[Reply], list[Reply], float | None]:
        """Both sides' replies, batch by batch in turn, and how many times faster the candidate is, by the median.

        None beside torch, which answers one question at a time to share nothing with the graphs.
        """
        rows, size = self._rows.rows, self._options.batch_size
        replies: tuple[list[Reply], list[Reply]] = ([], [])
        ratios: list[float] = []
        with progress("Answering", len(rows)) as advance:
            for number, start in enumerate(range(0, len(rows), size)):
                batch, seconds = rows[start : start + size], [0.0, 0.0]
                for turn in (0, 1) if number % 2 else (1, 0):
                    started = time.perf_counter()
                    replies[turn].extend((reference, candidate)[turn].answer(batch))
                    seconds[turn] = time.perf_counter() - started
                ratios.append(seconds[0] / seconds[1])
                advance(len(batch))
        return *replies, None if isinstance(reference, TorchSide) or not ratios else median(ratios)


def _require_cascade(session: Session, options: ParityOptions) -> None:
    """Exact ranking is of a cascade, and parts are swapped between sides that rank alike."""
    if session.bundle.manifest.model.num_shortlisted is None:
        raise OptionError(
            "exact ranking", expected="a bundle with a shortlist", found="one whose stage A ranks all passages",
            fix="leave it out",
        )
    if options.attribution:
        raise OptionError(
            "exact ranking", expected="no attribution, which swaps parts of sides that rank alike", found="both",
            fix="leave one of them out",
        )


def _ranking_all(model: GlimmerModel) -> GlimmerModel:
    """The model of the same weights whose stage A ranks all k."""
    return model.of_children(model, model.config.model_copy(update={"num_shortlisted": None}))


def _same_store(one: MemoryStore | None, other: MemoryStore | None) -> bool:
    """Whether two stores hold the same, by the digests of their manifests' files."""
    return one is not None and other is not None and one.manifest == other.manifest


def _form_names(manifest: BundleManifest) -> str:
    return f"{manifest.stage_a}, {manifest.cross_attention}"


def _none(_passages: list[list[int]]) -> Sequence[Array]:
    """FiD encodes no memory."""
    return []
