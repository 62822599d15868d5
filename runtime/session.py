"""Answer questions with a bundle and a store: retrieve, encode, rank, read, decode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from runtime.answer import Answer, PassageTruncatedWarning, RankedPassage
from runtime.backends import Backend, DeviceBackend, Graph
from runtime.backends.choice import BACKEND_NAMES, BackendChoice, LoadedBackend, load_backend, load_graphs
from runtime.bundle import Bundle
from runtime.candidates import Candidate, Given, candidates_from_given, candidates_from_search, join_question
from runtime.clock import StageClock
from runtime.codecs import Codec, open_codec
from runtime.contract import (
    GlimmerError,
    OptionError,
    PassageError,
    QuestionError,
    TokenizerError,
    check_parity,
    computation_of,
)
from runtime.cpu_kind import bf16_instructions, cpu_kind
from runtime.reader import Reader, Reading
from runtime.store import MemoryStore
from runtime.text import TextEncoder

__all__ = ["Session"]

GivenRow = Sequence[Given]
FITTED_TO_NOTHING = "fp16"
MAX_PASSAGES = 3840
"""The most that TensorRT's TopK ranks, so what every backend serves."""


@dataclass(frozen=True)
class _Row:
    """A question of a batch that can be taken, by its place among all."""

    index: int
    question_ids: list[int]
    candidates: list[Candidate]


class Session:
    """A bundle's graphs, loaded, and the store they read. Safe from several threads.

    `graphs` are by the stages that they compute, for memory in `codec`, the store's; it is None where there is no
    memory. `backend_choice` says what runs them, and why nothing better does; None where they were given.
    """

    def __init__(
        self, bundle: Bundle, store: MemoryStore | None, graphs: dict[str, Graph], text: TextEncoder,
        codec: Codec | None,
    ) -> None:
        self.backend_choice: BackendChoice | None = None
        self._loaded: LoadedBackend | None = None
        self._warned_of_cut = False
        self.bundle = bundle
        self.store = store
        self.graphs = graphs
        self.text = text
        self.codec = codec
        self._shape = bundle.manifest.model
        self._reader = Reader(graphs, self._shape, text, store, codec, check_finite=True)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        store: str | Path | None = None,
        *,
        threads: int | None = None,
        verify: bool = True,
        retrieval: str = "bm25",
        backend: Backend | DeviceBackend | str = "auto",
        passage_cache_bytes: int = 0,
        require_parity: bool | Literal["device"] = False,
    ) -> Session:
        """Open a bundle and, unless all passages will be given as texts, the store that its checkpoint wrote.

        `backend` is a name (BACKEND_NAMES), `auto` for the best that works here, or a backend of the caller's, which
        is not closed with the session. `threads` is the number of CPU threads of one graph run (None: ONNX Runtime's
        choice); `passage_cache_bytes` of the GPU's memory keep the passages that were read last, with TensorRT.
        `verify=False` skips the digests of the store's shards, which take a second a gigabyte. `retrieval` is `bm25`,
        or, where the store has vectors, `dense` or `hybrid`, which fuses the two rankings. `require_parity` refuses a
        bundle that has no record of a parity run whose gate it passed and which witnesses what this session computes
        (the table is in `runtime.contract.witness`); "device" takes none that was rounded on the CPU in the place of
        the device. Warns where a bundle was quantised for another kind of CPU. Raises BundleError, StoreError,
        TokenizerError, BackendError, OptionError or MissingExtraError.
        """
        opened = Bundle.open(bundle)
        if require_parity not in (False, True, "device"):
            raise OptionError(
                "require_parity", expected='False, True or "device"', found=repr(require_parity),
                fix="choose one of these",
            )
        if require_parity:
            # Before anything is loaded: for "auto" it is not known yet what will run the graphs.
            check_parity(opened.directory, opened.manifest)
        if opened.text is None:
            raise TokenizerError(
                str(opened), expected="a tokenizer", found="none",
                fix="make its checkpoint with `glimmer-export init --tokenizer FILE` and export it again",
            )
        _warn_of_other_cpu(opened)
        if passage_cache_bytes and not isinstance(backend, str):
            raise OptionError(
                "passage_cache_bytes", expected="0 with a backend that is open", found=str(passage_cache_bytes),
                fix="give it to that backend, or name one here",
            )
        with ExitStack() as failed:
            memory = None
            if store is not None:
                memory = MemoryStore.open(store, opened, verify=verify, retrieval=retrieval, threads=threads)
                failed.callback(memory.close)
            codec = _codec_without_store(opened) if memory is None else memory.codec
            name = None if codec is None else codec.layout.name
            check = partial(_check_witness, opened, codec=name, required=require_parity)
            if not isinstance(backend, str):
                check(backend.name)
                graphs = load_graphs(backend, opened.directory, opened.manifest, name)
                session = cls(opened, memory, graphs, opened.text, codec)
            else:
                if backend in BACKEND_NAMES[1:]:
                    check(backend)
                loaded = load_backend(
                    backend, opened.directory, opened.manifest, name, threads=threads,
                    passage_cache_bytes=passage_cache_bytes,
                )
                failed.callback(loaded.close)
                check(loaded.choice.name)
                session = cls(opened, memory, loaded.graphs, opened.text, codec)
                session.backend_choice, session._loaded = loaded.choice, loaded
            failed.pop_all()
        return session

    def answer(
        self,
        question: str,
        top_k: int | None = None,
        top_m: int | None = None,
        *,
        passages: GivenRow | None = None,
    ) -> Answer:
        """Answer one question.

        Retrieves `top_k` passages (None: the manifest's k) and reads the best `top_m` of them (None: the manifest's
        m). `passages` takes the retrieval's place: ids of the store, or texts, which are encoded on the spot; all of
        them are ranked, or the first `top_k`. Raises QuestionError (empty, too long), PassageError (unknown id),
        OptionError and NotFiniteError.
        """
        given = None if passages is None else [passages]
        result = self.answer_many([question], top_k, top_m, passages=given)[0]
        if result.error is not None:
            raise result.error
        return result

    def answer_many(
        self,
        questions: Sequence[str],
        top_k: int | None = None,
        top_m: int | None = None,
        *,
        passages: Sequence[GivenRow | None] | None = None,
    ) -> list[Answer]:
        """Answer questions in one batch, each as `answer` would; they may differ in k and in length.

        Where the backend's engines were built for smaller batches, it is in as few equal parts as they take.
        `passages` holds a list for each question, or None to retrieve; the first text among them that is longer than
        passage_length gives a PassageTruncatedWarning. A question or passage that cannot be taken
        gives an Answer with its `error`, and the others their answers. Raises OptionError; and NotFiniteError where a
        score or a logit is NaN or infinite, which no question causes: what else the bundle answers is then in doubt.
        """
        given: Sequence[GivenRow | None] = [None] * len(questions) if passages is None else passages
        self._check_options(top_k, top_m)
        self._check_passages(questions, given)
        clock = StageClock()
        rows: list[_Row] = []
        errors: dict[int, GlimmerError] = {}
        for index, question in enumerate(questions):
            try:
                rows.append(self._prepare(index, question, given[index], top_k, clock))
            except (QuestionError, PassageError) as error:
                errors[index] = error
        rows = [row for row in rows if row.candidates]
        self._warn_of_cut(rows)
        read: dict[int, Answer] = {}
        num_selected = top_m or self._shape.num_selected
        for part in _parts(rows, self._reader.max_batch):
            ids, candidates = [row.question_ids for row in part], [row.candidates for row in part]
            reading = self._reader.read(ids, candidates, num_selected, clock)
            for place, row in enumerate(part):
                decoded = reading.answers[place]
                read[row.index] = Answer(
                    questions[row.index], self.text.decode(decoded.tokens), tuple(decoded.tokens),
                    _ranked(row, reading, place), log_probability=decoded.log_probability,
                )
        milliseconds = clock.milliseconds()
        return [
            replace(read.get(index, Answer(question, None, error=errors.get(index))), milliseconds=milliseconds)
            for index, question in enumerate(questions)
        ]

    def close(self) -> None:
        """Release the store's files, and the device where the session chose its backend itself."""
        if self.store is not None:
            self.store.close()
        if self._loaded is not None:
            self._loaded.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_options(self, top_k: int | None, top_m: int | None) -> None:
        for name, value in (("top_k", top_k), ("top_m", top_m)):
            if value is not None and not 1 <= value <= MAX_PASSAGES:
                raise OptionError(name, expected=f"1 to {MAX_PASSAGES}", found=str(value), fix="choose one of these")
        if top_m is not None and not self._shape.traits.selects:
            raise OptionError(
                "top_m", expected=f"None, as {self._shape.architecture} reads all passages", found=str(top_m),
                fix="leave it out, or lower top_k",
            )

    def _check_passages(self, questions: Sequence[str], given: Sequence[GivenRow | None]) -> None:
        if len(given) != len(questions):
            raise OptionError(
                "passages", expected=f"a list for each of {len(questions)} questions", found=f"{len(given)}",
                fix="give None for a question that should retrieve",
            )
        if self.store is None and any(row is None for row in given):
            raise OptionError(
                "session", expected="a store to retrieve from, or passages", found="neither",
                fix="open it with store=..., or give passages=[...]",
            )

    def _warn_of_cut(self, rows: Sequence[_Row]) -> None:
        """Warn of the first passage that was cut; each is marked in its answer."""
        cut = next((item.passage for row in rows for item in row.candidates if item.truncated), None)
        if cut is None or self._warned_of_cut:
            return
        self._warned_of_cut = True
        warnings.warn(
            f"passage {(cut.title or cut.text)[:60]!r} is longer than the {self._shape.passage_length} tokens that are "
            "read, and its end is not: cut long texts into passages; further ones are marked `truncated`, without a "
            "warning",
            PassageTruncatedWarning, stacklevel=3,
        )

    def _prepare(
        self, index: int, question: str, given: GivenRow | None, top_k: int | None, clock: StageClock
    ) -> _Row:
        with clock.stage("tokenize"):
            question_ids = self.text.question(question)
        with clock.stage("retrieve"):
            if given is None and self.store is not None:
                candidates = candidates_from_search(self.store, question, top_k or self._shape.num_retrieved)
            else:
                candidates = candidates_from_given(self.store, () if given is None else given[:top_k])
        with clock.stage("tokenize"):
            return _Row(index, question_ids, join_question(question, candidates, self.text, self._shape))


def _check_witness(bundle: Bundle, backend: str, *, codec: str | None, required: bool | str) -> None:
    """Raise BundleError where parity is required and no record witnesses these graphs on this backend, here."""
    if required:
        wanted = computation_of(
            bundle.manifest, backend, codec, cpu_kind=cpu_kind(), bf16_instructions=bf16_instructions()
        )
        check_parity(bundle.directory, bundle.manifest, wanted, device=required == "device")


def _codec_without_store(bundle: Bundle) -> Codec | None:
    """The codec for texts alone: the one that is fitted to nothing. None where there is no memory."""
    manifest = bundle.manifest
    if not manifest.model.traits.has_memory:
        return None
    if FITTED_TO_NOTHING not in manifest.codecs:
        raise OptionError(
            "session", expected=f"a store, whose arrays the codecs of {bundle} need, {', '.join(manifest.codecs)}",
            found="none", fix=f"open it with store=..., or export it with `--codecs {FITTED_TO_NOTHING}` too",
        )
    return open_codec(FITTED_TO_NOTHING, manifest.model.d_model, {}, subject=str(bundle))


def _warn_of_other_cpu(bundle: Bundle) -> None:
    """INT8 graphs give right answers on any CPU but one: where products saturate, codes of 8 bits lose some."""
    made_for = bundle.manifest.quantization
    int8 = any("int8" in graph.precision for graph in bundle.manifest.graphs.values())
    if not int8 or made_for is None or made_for.target != "cpu" or made_for.cpu_kind == (here := cpu_kind()):
        return
    loss = "some products saturate, so that answers may be wrong" if here == "x86" else "it runs slower than it could"
    warnings.warn(
        f"{bundle}: made for a CPU of the kind {made_for.cpu_kind}, this is {here}: {loss}; quantise its "
        f"FP32 bundle again with `glimmer-export quantize BUNDLE --target cpu --cpu {here}`",
        stacklevel=3,
    )


def _parts(rows: list[_Row], most: int | None) -> Iterator[list[_Row]]:
    """Rows in as few parts of at most `most` as there can be, equal up to one row."""
    count = -(-len(rows) // (most or len(rows) or 1))
    for part in range(count):
        yield rows[part * len(rows) // count : (part + 1) * len(rows) // count]


def _ranked(row: _Row, reading: Reading, place: int) -> tuple[RankedPassage, ...]:
    """The candidates of one row with the model's scores and what was read of them."""
    read = None if reading.selected is None else set(reading.selected[place].tolist())
    return tuple(
        RankedPassage(
            passage=candidate.passage,
            retrieval_score=candidate.retrieval_score,
            score=None if reading.scores is None else float(reading.scores[place, position]),
            read=read is None or position in read,
            truncated=candidate.truncated,
        )
        for position, candidate in enumerate(row.candidates)
    )
