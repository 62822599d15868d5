"""Answer questions with a bundle and a store: retrieve, encode, rank, read, decode."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Literal

from glimmer_export.runtime.answer import Answer, PassageTruncatedWarning, answer_of, ranking_of
from glimmer_export.runtime.arguments import items, words
from glimmer_export.runtime.backends import Backend, Graph
from glimmer_export.runtime.backends.registry import (
    AUTO,
    BackendChoice,
    LoadedBackend,
    as_run_by,
    backend_kind,
    compute_precision_of,
    load_backend,
    load_graphs,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.candidates import (
    GivenRow,
    Row,
    checked_k_and_m,
    checked_mass,
    checked_passages,
    parts_of,
    pieces_of,
    rows_of,
)
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    OptionError,
    StoreError,
    check_parity,
)
from glimmer_export.runtime.current_store import CurrentStore, Serving
from glimmer_export.runtime.decode import Reading
from glimmer_export.runtime.forks import Home, leave_in_children
from glimmer_export.runtime.opening import (
    OpenOptions,
    check_witness,
    codec_without_store,
    compute_precision_in,
    text_of,
    warn_of_other_cpu,
    witnessed_here,
)
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.progress import OnAnswer, OnToken, Progress
from glimmer_export.runtime.reader import Reader
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder
from glimmer_export.runtime.warming import warm_up

__all__ = ["Session"]

logger = logging.getLogger(__name__)

RANKED_AT_ONCE = 8
"""Rows of k passages that are ranked in one run: memory of thousands would not fit a small machine."""


class Session:
    """A bundle's graphs, loaded, and the store they read. Safe from several threads.

    `graphs` are by the stages that they compute, for memory in `codec`, the store's; it is None if there is no
    memory. `draft_tokens` is that of `open`.

    Every method raises ClosedError once the session was closed, and ForkedError in a child that was forked from
    its process.
    """

    def __init__(
        self, bundle: Bundle, store: MemoryStore | None, graphs: dict[str, Graph], text: TextEncoder,
        codec: Codec | None, *, draft_tokens: int | None = 0,
    ) -> None:
        self._loaded: LoadedBackend | None = None
        self._requires_parity = False
        self._warned_of_cut = False
        self._home = Home("session")
        self._refreshing = Lock()
        self.bundle = bundle
        self.graphs = graphs
        self.text = text
        self._shape = bundle.manifest.model
        self._draft_tokens = draft_tokens if bundle.manifest.takes_drafts else 0
        self._current = CurrentStore(self._serving(store, codec), self._release)
        leave_in_children(self)

    @classmethod
    def open(  # noqa: PLR0913 - one for each choice that a caller has
        cls,
        bundle: str | os.PathLike[str],
        store: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        verify: bool = True,
        retrieval: str = "bm25",
        backend: Backend | str = AUTO,
        passage_cache_bytes: int = 0,
        draft_tokens: int | None = None,
        require_parity: bool | Literal["device"] = False,
        compute_precision: str = AUTO,
        compile_cache: str | os.PathLike[str] | None = None,
    ) -> Session:
        """Open a bundle and, unless all passages will be given as texts, the store that its checkpoint wrote.

        `backend` is one of `backend_names()`, with `auto` for the best that works here, or a backend of the caller's,
        which is not closed with the session. `threads` is the number of CPU threads of one graph run (None: as many as
        suit model and machine); `passage_cache_bytes` of the GPU's memory keep the passages that were read last, with
        TensorRT. `draft_tokens` are the tokens of an answer that are guessed from the passages read and verified in one
        run of the decoder, at most; 0 decodes them one by one, None guesses where that saves time, and a bundle or an
        engine that takes none decodes one by one. `verify=False` skips the digests of the store's files, which take a
        second a gigabyte. `retrieval` is `bm25`, or, if the store has vectors, `dense` or `hybrid`, which fuses the two
        rankings. `require_parity` refuses a bundle that has no record of a parity run whose gate it passed and which
        witnesses what this session computes (the table is in `runtime/contract/witness.py`); "device" takes none that
        was rounded on the CPU in the place of the device. `compute_precision` is what float operators are computed in:
        "fp32"; "bf16", of `openvino` and of `onnxruntime-cpu` on ARM, where the CPU has instructions for it; or "auto",
        which is BF16 where a passed parity record witnesses it. `compile_cache` is a directory of this user's alone,
        where `openvino` keeps what it compiled. Warns if a bundle was quantised for another kind of CPU, or that
        directory cannot be written. Raises BundleError, StoreError, TokenizerError, BackendError, OptionError or
        MissingExtraError.
        """
        options = OpenOptions.of(
            bundle, store, threads=threads, verify=verify, retrieval=retrieval, backend=backend,
            passage_cache_bytes=passage_cache_bytes, require_parity=require_parity, draft_tokens=draft_tokens,
            compute_precision=compute_precision, compile_cache=compile_cache,
        )
        opened, backend, required = Bundle.open(options.bundle), options.backend, options.require_parity
        if required:
            # Before anything is loaded: for "auto" it is not known yet what will run the graphs.
            check_parity(opened.directory, opened.manifest)
        text = text_of(opened)
        warn_of_other_cpu(opened)
        with ExitStack() as failed:
            memory = None
            if options.store is not None:
                memory = MemoryStore.open(
                    options.store, opened, verify=options.verify, retrieval=options.retrieval, threads=options.threads
                )
                failed.callback(memory.close)
            codec = codec_without_store(opened) if memory is None else memory.codec
            name = None if codec is None else codec.layout.name
            check = partial(check_witness, codec=name, required=required)
            if not isinstance(backend, str):
                opened = replace(opened, manifest=as_run_by(backend, opened.manifest))
                check(opened, backend.name, compute_precision_in(backend))
                graphs = load_graphs(backend, opened.directory, opened.manifest, name)
                session = cls(opened, memory, graphs, text, codec, draft_tokens=options.draft_tokens)
            else:
                witnessed = partial(witnessed_here, opened, name)
                if backend != AUTO and opened.manifest.cross_attention_choice is None:
                    # Before anything is loaded; of two forms, engines tell which it is.
                    precision = compute_precision_of(backend_kind(backend), options.compute_precision, witnessed)
                    check(opened, backend, precision)
                loaded = load_backend(
                    backend, opened.directory, opened.manifest, name, threads=options.threads,
                    passage_cache_bytes=options.passage_cache_bytes, compute_precision=options.compute_precision,
                    compile_cache=options.compile_cache, witnessed=witnessed, required=bool(required),
                )
                failed.callback(loaded.close)
                opened = replace(opened, manifest=loaded.manifest)
                for one, precision in loaded.computes.items():
                    check(opened, one, precision)
                logger.info("%s is run by %s", opened, loaded.choice.name)
                for better, reason in loaded.choice.refused.items():
                    logger.info("%s is not: %s", better, reason)
                session = cls(opened, memory, loaded.graphs, text, codec, draft_tokens=options.draft_tokens)
                session._loaded = loaded
            failed.pop_all()
        session._requires_parity = bool(required)
        return session

    @property
    def backend_choice(self) -> BackendChoice | None:
        """What runs the graphs, why nothing better does, and what it has to say of it; None if they were given."""
        return None if self._loaded is None else replace(self._loaded.choice, notes=self._loaded.notes())

    @property
    def computes(self) -> Mapping[str, str]:
        """The compute precision of each backend that may run a graph, `fp32` or `bf16`; none if they were given."""
        return {} if self._loaded is None else self._loaded.computes

    @property
    def store(self) -> MemoryStore | None:
        """The generation of the store that questions are answered from, None without a store; `refresh` replaces it."""
        return self._current.serving.store

    @property
    def codec(self) -> Codec | None:
        """What memory is in; None if there is no memory."""
        return self._current.serving.codec

    @property
    def passage_cache_counts(self) -> tuple[int, int]:
        """Passages that the GPU's cache had when they were read, and those that it had not; 0 and 0 without one."""
        return self._current.serving.reader.passage_cache_counts

    def answer(
        self,
        question: str,
        top_k: int | None = None,
        top_m: int | None = None,
        *,
        mass: float | None = None,
        passages: GivenRow | None = None,
        on_token: OnToken | None = None,
    ) -> Answer:
        """Answer one question.

        Retrieves `top_k` passages (None: the manifest's k) and reads the best `top_m` of them (None: the manifest's
        m). With a `mass`, above 0 and at most 1, it reads no more of these than hold that share of softmax(scores),
        which is faster and not exact: `parity --mass` tells what it costs. `passages` takes the retrieval's place: ids
        of the store, or texts, which are encoded on the spot; all of them are ranked, or the first `top_k`. `on_token`
        is that of `answer_many`. Raises QuestionError (no text, empty, too long), PassageError (unknown id, no list),
        OptionError and NotFiniteError.
        """
        given = None if passages is None else [passages]
        result = self.answer_many([question], top_k, top_m, mass=mass, passages=given, on_token=on_token)[0]
        if result.error is not None:
            raise result.error
        return result

    def answer_many(
        self,
        questions: Iterable[str],
        top_k: int | None = None,
        top_m: int | None = None,
        *,
        mass: float | None = None,
        passages: Iterable[GivenRow | None] | None = None,
        on_token: OnToken | None = None,
        on_answer: OnAnswer | None = None,
    ) -> list[Answer]:
        """Answer questions in one batch, each as `answer` would; they may differ in k and in length.

        Where the backend's engines were built for smaller batches, it is in as few equal parts as they take.
        `passages` holds a list for each question, or None to retrieve; the first text among them that is longer than
        passage_length gives a PassageTruncatedWarning. A question or passage that cannot be taken
        gives an Answer with its `error`, and the others their answers. Raises OptionError; and NotFiniteError where a
        score or a logit is NaN or infinite, which no question causes: what else the bundle answers is then in doubt.

        `on_token(index, text)` is called with what the answer to question `index` has grown by; all that it was told of
        an answer is, joined, the answer. `on_answer(index, answer)` is called once a question: as soon as its answer
        has ended, which need not be the batch's end, so that its milliseconds are those until then. What these raise is
        raised, and the batch is not finished.
        """
        self._home.check()
        with self._current.use() as serving:
            asked = items("questions", questions, of="questions")
            top_k, top_m = checked_k_and_m(top_k, top_m, self._shape)
            mass = checked_mass(mass, self._shape, witnessed=self._requires_parity)
            given = checked_passages(passages, len(asked), serving.store)
            clock = StageClock()
            taken, errors = rows_of(
                asked, given, top_k, store=serving.store, text=self.text, shape=self._shape, clock=clock
            )
            rows = [row for row in taken if row.candidates]
            self._warn_of_cut(rows)
            found = {
                index: Answer(words(question), None, error=errors.get(index), milliseconds=clock.milliseconds())
                for index, question in enumerate(asked)
            }

            def answered(row: Row, reading: Reading) -> Answer:
                text = self.text.decode(reading.tokens)
                answer = answer_of(words(asked[row.index]), text, row, reading)
                found[row.index] = answer = replace(answer, milliseconds=clock.milliseconds())
                return answer

            progress = Progress(self.text, answered, on_token, on_answer)
            if on_answer is not None:
                for index in found.keys() - {row.index for row in rows}:
                    on_answer(index, found[index])
            for part in parts_of(rows, serving.reader.max_batch):
                serving.reader.read(
                    part, top_m or self._shape.num_selected, clock, mass=mass, on_step=partial(progress.step, part)
                )
        milliseconds = clock.milliseconds()
        return [replace(found[index], milliseconds=milliseconds) for index in range(len(asked))]

    def rank(self, question: str, passages: GivenRow) -> Answer:
        """Score passages for one question; an answer without an answer, whose passages have the model's scores.

        Raises as `answer`, and OptionError if the architecture does not rank.
        """
        result = self.rank_many([question], [passages])[0]
        if result.error is not None:
            raise result.error
        return result

    def rank_many(self, questions: Iterable[str], passages: Iterable[GivenRow]) -> list[Answer]:
        """Score the passages of each question, as many as there are, each as `rank` would; nothing is read or decoded.

        A passage's score does not depend on the others: they are ranked as many at a time as the manifest's k, or as a
        cascade shortlists, and none is dropped. A
        question or passage that cannot be taken gives an Answer with its `error`. Raises as `answer_many`, and
        OptionError if the architecture does not rank.
        """
        self._home.check()
        shape = self._shape
        if not shape.traits.selects:
            raise OptionError(
                "session", expected="an architecture that ranks passages", found=shape.architecture,
                fix="open a bundle of a GLIMMER",
            )
        with self._current.use() as serving:
            asked = items("questions", questions, of="questions")
            given = checked_passages(passages, len(asked), serving.store)
            clock = StageClock()
            rows, errors = rows_of(asked, given, None, store=serving.store, text=self.text, shape=shape, clock=clock)
            self._warn_of_cut(rows)
            pieces = [piece for row in rows for piece in pieces_of(row, shape.num_ranked)]
            scores: dict[int, list[float]] = {row.index: [] for row in rows}
            for part in parts_of(pieces, min(RANKED_AT_ONCE, serving.reader.max_batch or RANKED_AT_ONCE)):
                for piece, scored in zip(part, serving.reader.rank(part, clock), strict=True):
                    scores[piece.index] += scored.tolist()
        ranked = {row.index: ranking_of(words(asked[row.index]), row, scores[row.index]) for row in rows}
        milliseconds = clock.milliseconds()
        unranked = {index: Answer(words(asked[index]), None, error=error) for index, error in errors.items()}
        return [replace((ranked | unranked)[index], milliseconds=milliseconds) for index in range(len(asked))]

    def passages(self, ids: Iterable[int | str]) -> list[Passage]:
        """The store's passages by their ids, in that order, whatever is refreshed meanwhile.

        Raises PassageError for an id that the store does not hold, OptionError without a store.
        """
        self._home.check()
        with self._current.use() as serving:
            if serving.store is None:
                raise OptionError(
                    "session", expected="a store to look passages up in", found="none", fix="open it with store=...",
                )
            return serving.store.passages(serving.store.numbers(ids))

    def refresh(self) -> int | None:
        """Answer from the store's newest generation from now on; its number, None if nothing of it has changed.

        The graphs stay as they are. Questions that are being answered are so from the generation that they began with,
        whose files are let go after the last of them. A file that is the same and was verified is not read again. Where
        it raises, the earlier generation goes on being served: StoreError if the store is damaged, of another
        checkpoint, in another codec, or without what the session's retrieval needs; OptionError without a store.
        """
        self._home.check()
        with self._refreshing, self._current.use() as serving:
            if serving.store is None:
                raise OptionError(
                    "session", expected="a store to take the newest generation of", found="none",
                    fix="open it with store=...",
                )
            newer = serving.store.newer()
            if newer is None:
                return None
            with ExitStack() as failed:
                failed.callback(newer.close)
                if newer.manifest.codec != serving.store.manifest.codec:
                    raise StoreError(
                        f"store {newer.directory}", expected=f"the codec {serving.store.manifest.codec}, whose graphs "
                        "are loaded", found=str(newer.manifest.codec), fix="open another session",
                    )
                self._current.replace(self._serving(newer, newer.codec))
                failed.pop_all()
            return newer.manifest.generation

    def warm_up(self) -> None:
        """Run every graph once, on a question and passages of the greatest length and as many as the manifest's k.

        What is done at a first run only (memory that is taken, kernels that are chosen, files that are read) is then
        done before the first question. Answers do not change. Raises as `answer` does.
        """
        self._home.check()
        with self._current.use() as serving:
            warm_up(serving, self.text, self._shape)

    def close(self) -> None:
        """Release the store's files, and the device where the session chose its backend itself.

        Questions that other threads are asking are answered first, and the last of them releases it. A second time, and
        in a forked child, it is nothing.
        """
        if self._home.is_here:
            self._current.close()

    def left_in_child(self) -> tuple[object, ...]:
        """The graphs' threads are not in a forked child, which therefore never closes them."""
        return (self,)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _serving(self, store: MemoryStore | None, codec: Codec | None) -> Serving:
        reader = Reader(
            self.graphs, self._shape, self.text, store, codec, check_finite=True, draft_tokens=self._draft_tokens
        )
        return Serving(store, codec, reader)

    def _release(self) -> None:
        if self._loaded is not None:
            self._loaded.close()

    def _warn_of_cut(self, rows: Sequence[Row]) -> None:
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
