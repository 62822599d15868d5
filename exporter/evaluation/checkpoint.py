"""A checkpoint that answers in torch, in batches, from memory of a store or of its own, which it computes once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glimmer_export.exporter.bundle.forms import DEFAULT_FORMS, choose_forms
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.evaluation.grid import Cell
from glimmer_export.exporter.evaluation.models import ModelOptions
from glimmer_export.exporter.evaluation.passages import Asked, Found
from glimmer_export.exporter.stages import GlimmerModel, Masked, greedy_answers, model_from_checkpoint
from glimmer_export.exporter.training.frozen_memory import CheckpointBundle
from glimmer_export.runtime import Answer, Passage
from glimmer_export.runtime.answer import answer_of
from glimmer_export.runtime.candidates import Candidate, Row, join_question
from glimmer_export.runtime.contract import (
    Forms,
    ModelShape,
    NotFiniteError,
    QuestionError,
    TokenizerError,
    file_digest,
)
from glimmer_export.runtime.decode import Reading
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["CheckpointModel"]

MAX_CACHED_BYTES = 1 << 30
PASSAGES_AT_ONCE = 16


class CheckpointModel:
    """A checkpoint, whose weights were looked at and are loaded when it answers."""

    kind = "checkpoint"

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError, and TokenizerError without a tokenizer."""
        self.path = path
        self._checkpoint = read_checkpoint(path)
        self.shape: ModelShape = self._checkpoint.config.shape
        if self._checkpoint.tokenizer is None:
            raise TokenizerError(
                str(self._checkpoint), expected="a tokenizer, to encode questions and passages", found="none",
                fix="put the tokenizer.json that the model was trained with into its directory",
            )
        self._text = TextEncoder.open(self._checkpoint.tokenizer, self.shape)

    @property
    def digest(self) -> str:
        """Of config, weights and tokenizer, whatever files they came in."""
        assert self._checkpoint.tokenizer is not None
        return f"{checkpoint_digest(self._checkpoint)} {file_digest(self._checkpoint.tokenizer)}"

    @property
    def forms(self) -> Forms:
        """Those that `export` would choose."""
        return choose_forms(self._checkpoint.config, DEFAULT_FORMS)

    def open_store(self, store: Path, *, verify: bool, retrieval: str = "bm25") -> MemoryStore:
        """Raises StoreError if another memory encoder or tokenizer wrote the store."""
        return MemoryStore.open(
            store, CheckpointBundle.of(self._checkpoint), verify=verify, retrieval=retrieval
        )

    @contextmanager
    def opened(self, found: Found, options: ModelOptions) -> Iterator[TorchAnswering]:  # noqa: ARG002 - passages have texts
        """With its weights in FP32, on the GPU if there is one that torch can use."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = model_from_checkpoint(self._checkpoint).to(device)
        threads = torch.get_num_threads()
        torch.set_num_threads(options.threads or threads)
        store = None
        try:
            if options.store is not None:
                store = self.open_store(options.store, verify=options.verify)
            yield TorchAnswering(str(self._checkpoint), model, self._text, store)
        finally:
            torch.set_num_threads(threads)
            if store is not None:
                store.close()


class TorchAnswering:
    """Greedy answers of the whole model, of a batch at a time."""

    def __init__(self, name: str, model: GlimmerModel, text: TextEncoder, store: MemoryStore | None) -> None:
        self._name, self._model, self._text, self._store = name, model, text, store
        self._shape = model.config.shape
        self.forget()

    def answer(self, batch: Sequence[Asked], cells: Sequence[Cell]) -> list[list[Answer]]:
        """By cell, from memory that is read or computed once for all of them."""
        rows: list[Row] = []
        unread = {}
        for index, asked in enumerate(batch):
            words = asked.question.question
            unread[index] = Answer(words, None, error=asked.error)
            try:
                ids = self._text.question(words)
                candidates = join_question(words, asked.candidates, self._text, self._shape)
            except QuestionError as error:
                unread[index] = Answer(words, None, error=asked.error or error)
            else:
                if candidates:
                    rows.append(Row(index, ids, candidates))
        if not rows:
            return [list(unread.values()) for _ in cells]
        question, passages = _padded([row.question_ids for row in rows]), self._passages(rows)
        return [list((unread | self._read(batch, rows, question, passages, cell)).values()) for cell in cells]

    def forget(self) -> None:
        """Passages are encoded beside others, whose lengths show in the last bits."""
        self._memory = PassageStates(self._model, self._store)

    def _read(
        self, batch: Sequence[Asked], rows: Sequence[Row], question: Masked, passages: Masked, cell: Cell
    ) -> dict[int, Answer]:
        device = self._model.shared.weight.device
        values, mask = (tensor[:, : cell.k].to(device) for tensor in passages)
        asked = Masked(*(tensor.to(device) for tensor in question))
        found = greedy_answers(self._model, asked, Masked(values, mask), cell.m)
        if found.scores is not None and bool(found.scores.isnan().any()):
            raise NotFiniteError(
                self._name, expected="a finite score for every passage", found="NaN",
                fix="take a state from before its training diverged",
            )
        answers = {}
        for place, row in enumerate(rows):
            taken = row.candidates[: cell.k]
            reading = Reading(found.tokens[place])
            if found.scores is not None and found.selected is not None:
                reading.scores = found.scores[place, : len(taken)].cpu().numpy()
                reading.selected = tuple(item for item in found.selected[place].tolist() if item < len(taken))
            text = self._text.decode(reading.tokens)
            words = batch[row.index].question.question
            answers[row.index] = answer_of(words, text, replace(row, candidates=taken), reading)
        return answers

    def _passages(self, rows: Sequence[Row]) -> Masked:
        """Memory (b, k, n_p, d_model) of each row's passages, or their ids (b, k, n_p) if the model has no memory."""
        most = max(len(row.candidates) for row in rows)
        if self._shape.traits.has_memory:
            states = self._memory.of(rows, self._ids)
            absent = torch.zeros(0, self._shape.d_model)
        else:
            states = [[torch.tensor(list(self._ids(item))) for item in row.candidates] for row in rows]
            absent = torch.zeros(0, dtype=torch.int64)
        flat = [passage for row in states for passage in (*row, *[absent] * (most - len(row)))]
        return Masked(*(values.unflatten(0, (len(rows), most)) for values in _with_mask(flat)))

    def _ids(self, candidate: Candidate) -> Sequence[int]:
        if candidate.ids is not None:
            return candidate.ids
        if self._store is not None and candidate.number is not None:
            ids: list[int] = self._store.input_ids(candidate.number).tolist()
            return ids
        return self._text.passage(candidate.passage.title, candidate.passage.text)[0]


class PassageStates:
    """Memory of passages, as serving reads it: a store's, decoded, or computed here; up to a gigabyte of it is kept.

    A text that was given beside a store goes through the store's codec, as it does in a session.
    """

    def __init__(self, model: GlimmerModel, store: MemoryStore | None) -> None:
        self._model, self._store = model, store
        self._kept: dict[int | Passage, Tensor] = {}
        self._bytes = 0

    def of(self, rows: Sequence[Row], ids: Callable[[Candidate], Sequence[int]]) -> list[list[Tensor]]:
        """Of each row's passages, each (tokens, d_model) float32; `ids` gives a passage's tokens."""
        if self._bytes > MAX_CACHED_BYTES:
            self._kept, self._bytes = {}, 0
        wanted = {_key(item): item for row in rows for item in row.candidates}
        missing = {key: item for key, item in wanted.items() if key not in self._kept}
        if self._store is not None and self._store.codec is not None:
            stored = [key for key in missing if isinstance(key, int)]
            self._store.prefetch(stored)
            for number in stored:
                self._keep(number, torch.from_numpy(self._store.codec.decode(self._store.memory(number).tensors)))
                del missing[number]
        texts = sorted(((key, ids(item)) for key, item in missing.items()), key=lambda pair: len(pair[1]))
        for start in range(0, len(texts), PASSAGES_AT_ONCE):
            self._encode(texts[start : start + PASSAGES_AT_ONCE])
        return [[self._kept[_key(item)] for item in row.candidates] for row in rows]

    @torch.no_grad()
    def _encode(self, texts: Sequence[tuple[int | Passage, Sequence[int]]]) -> None:
        """Keep the memory of passages of like length."""
        device = self._model.shared.weight.device
        tokens, mask = _padded([ids for _, ids in texts])
        states = self._model.encode_memory(tokens.to(device), mask.to(device)).cpu()
        codec = None if self._store is None else self._store.codec
        for (key, ids), found in zip(texts, states, strict=True):
            memory = found[: len(ids)].clone()  # without the padding
            if codec is not None:
                memory = torch.from_numpy(codec.decode(codec.encode(memory.numpy())))
            self._keep(key, memory)

    def _keep(self, key: int | Passage, memory: Tensor) -> None:
        self._kept[key] = memory
        self._bytes += memory.nbytes


def _key(candidate: Candidate) -> int | Passage:
    return candidate.passage if candidate.number is None else candidate.number


def _padded(texts: Sequence[Sequence[int]]) -> Masked:
    """Token ids padded on the right: ids and mask, (rows, tokens) int64."""
    return _with_mask([torch.tensor(list(ids), dtype=torch.int64) for ids in texts])


def _with_mask(rows: Sequence[Tensor]) -> Masked:
    """Rows (tokens, ...) padded to the longest, and which of them are there."""
    values = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return Masked(values, (torch.arange(values.shape[1]) < lengths[:, None]).long())
