"""The questions of a batch, and the k passages of each: found, tokenised, and laid out as the graphs read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, SupportsIndex

import numpy as np

from glimmer_export.runtime.arguments import (
    MAX_PASSAGES,
    as_index,
    described,
    items,
    question_text,
    share,
    whole_number,
)
from glimmer_export.runtime.backends import Tensor
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    MEMORY_ENCODER,
    BundleError,
    GlimmerError,
    ModelShape,
    OptionError,
    PassageError,
    QuestionError,
)
from glimmer_export.runtime.passage_memory import PassageMemory, encode_passages, pad_ids
from glimmer_export.runtime.placement import Placement
from glimmer_export.runtime.retrieval import Hit
from glimmer_export.runtime.store import MemoryStore, Passage
from glimmer_export.runtime.text import TextEncoder

__all__ = [
    "Candidate",
    "Given",
    "GivenRow",
    "PassageId",
    "PassageSource",
    "Row",
    "candidates_from_given",
    "candidates_from_search",
    "checked_k_and_m",
    "checked_mass",
    "checked_passages",
    "join_question",
    "memory_inputs",
    "parts_of",
    "passage_ids",
    "pieces_of",
    "rows_of",
    "token_inputs",
]

TEXTS_AT_ONCE = 8
"""At base size on a CPU 25 passages took 1.0 s by eight of like length and 1.6 s by sixteen as they come (INT8)."""


@dataclass(frozen=True)
class PassageId:
    """An id of the store, said to be one: a plain str that has white space in it may be taken for a text."""

    value: int | str


Given = SupportsIndex | str | PassageId | Passage
"""A passage from the caller's own retriever: its id in the store (an int, numpy's too, or a str), or a text."""
GivenRow = Iterable[Given]


class PassageSource(Protocol):
    """Where passages are found and looked up, as in a MemoryStore, whose errors are raised."""

    def numbers(self, ids: Iterable[int | str]) -> list[int]:
        """Passage numbers of ids, in their order."""
        ...

    def passages(self, numbers: Iterable[int]) -> list[Passage]:
        """Passages by their numbers, in their order."""
        ...

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The best passages for a question, best first."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One passage for one question; `number` is its place in the store, None for a text given by the caller.

    `ids` are its tokens if they are not the store's: those of question and passage in one text, if the model reads
    them so, or of a text given by the caller. `truncated`: that was longer than passage_length, and was cut.
    """

    passage: Passage
    number: int | None
    retrieval_score: float | None
    ids: Sequence[int] | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Row:
    """A question that can be taken: its place among those asked, its tokens, and what it is answered from."""

    index: int
    question_ids: Sequence[int]
    candidates: Sequence[Candidate]


def checked_k_and_m(top_k: object, top_m: object, shape: ModelShape) -> tuple[int | None, int | None]:
    """How many passages are retrieved and read; raises OptionError if that cannot be."""
    k, m = (
        None if value is None else whole_number(name, value, least=1, most=MAX_PASSAGES)
        for name, value in (("top_k", top_k), ("top_m", top_m))
    )
    if m is not None and not shape.traits.selects:
        raise OptionError(
            "top_m", expected=f"None, as {shape.architecture} reads all passages", found=str(m),
            fix="leave it out, or lower top_k",
        )
    return k, m


def checked_mass(mass: object, shape: ModelShape, *, witnessed: bool) -> float | None:
    """The share of the scores' softmax that is read, None for all m passages; raises OptionError if that cannot be.

    `witnessed`: only what a parity record witnesses may be answered, which is the reading of m passages.
    """
    if mass is None:
        return None
    if witnessed:
        raise OptionError(
            "mass", expected="None where a parity record is required, which is of all m passages",
            found=described(mass), fix="judge it by `glimmer-export parity --mass`, and require no record",
        )
    if not shape.traits.selects:
        raise OptionError(
            "mass", expected=f"None, as {shape.architecture} reads all passages", found=described(mass),
            fix="leave it out",
        )
    return share("mass", mass)


def checked_passages(passages: object, num_questions: int, store: MemoryStore | None) -> list[object]:
    """What was given for each question, None if it retrieves; raises OptionError if that cannot be."""
    given = [None] * num_questions if passages is None else items("passages", passages, of="lists, one a question")
    if len(given) != num_questions:
        raise OptionError(
            "passages", expected=f"a list for each of {num_questions} questions", found=f"{len(given)}",
            fix="give None for a question that should retrieve",
        )
    if store is None and any(row is None for row in given):
        raise OptionError(
            "session", expected="a store to retrieve from, or passages", found="neither",
            fix="open it with store=..., or give passages=[...]",
        )
    return given


def rows_of(
    questions: Sequence[object], given: Sequence[object], top_k: int | None, *, store: MemoryStore | None,
    text: TextEncoder, shape: ModelShape, clock: StageClock,
) -> tuple[list[Row], dict[int, GlimmerError]]:
    """The rows of the questions that can be taken, as `_row_of` has them, and by their places why others cannot."""
    rows: list[Row] = []
    errors: dict[int, GlimmerError] = {}
    for index, question in enumerate(questions):
        try:
            rows.append(_row_of(index, question, given[index], top_k, store=store, text=text, shape=shape, clock=clock))
        except (QuestionError, PassageError) as error:
            errors[index] = error
    return rows, errors


def _row_of(
    index: int, question: object, given: object, top_k: int | None, *, store: MemoryStore | None, text: TextEncoder,
    shape: ModelShape, clock: StageClock,
) -> Row:
    """A question's tokens and passages: the first `top_k` of those `given`, or retrieved where these are None.

    Raises QuestionError and PassageError.
    """
    with clock.stage("tokenize"):
        question = question_text(question)
        question_ids = text.question(question)
    with clock.stage("retrieve"):
        if given is None and store is not None:
            candidates = candidates_from_search(store, question, top_k or shape.num_retrieved)
        else:
            passages = items("passages", given, of="ids, texts or Passages", error=PassageError)
            candidates = candidates_from_given(store, passages[:top_k])
    with clock.stage("tokenize"):
        return Row(index, question_ids, join_question(question, candidates, text, shape))


def parts_of(rows: list[Row], most: int | None) -> Iterator[list[Row]]:
    """Rows in as few parts of at most `most` as there can be, equal up to one row."""
    count = -(-len(rows) // (most or len(rows) or 1))
    for part in range(count):
        yield rows[part * len(rows) // count : (part + 1) * len(rows) // count]


def pieces_of(row: Row, most: int) -> Iterator[Row]:
    """The row with as many passages at a time; none if it has none."""
    for start in range(0, len(row.candidates), most):
        yield replace(row, candidates=row.candidates[start : start + most])


def candidates_from_search(store: PassageSource, question: str, top_k: int) -> list[Candidate]:
    """The `top_k` best by the store's retrieval, best first; none where it finds none."""
    hits = store.search(question, top_k)
    passages = store.passages([hit.number for hit in hits])
    return [Candidate(passage, hit.number, hit.score) for passage, hit in zip(passages, hits, strict=True)]


def candidates_from_given(store: PassageSource | None, given: Iterable[Given]) -> list[Candidate]:
    """Passages as the caller ordered them.

    An int or a PassageId is an id; a str is an id if the store holds it, else a text if it has white space in
    it; a Passage is a text with its title. Raises PassageError for an unknown id, for a text that is empty or that
    UTF-8 cannot write, for an id without a store, and for what is none of these.
    """
    candidates: list[Candidate | int | str] = []
    for item in given:
        if isinstance(item, Passage):
            candidates.append(_candidate_from_text(item))
            continue
        value = _id(item.value if isinstance(item, PassageId) else item)
        if isinstance(item, str) and isinstance(value, str) and len(value.split()) > 1 and not _is_id(store, value):
            candidates.append(_candidate_from_text(Passage(None, "", value)))
        else:
            candidates.append(value)
    ids = [item for item in candidates if not isinstance(item, Candidate)]
    if ids and store is None:
        raise PassageError(
            f"passage {described(ids[0])}", expected="a store to look ids up in", found="none",
            fix="open the session with store=..., or give Passage(text=...) objects",
        )
    numbers = store.numbers(ids) if store is not None and ids else []
    passages = store.passages(numbers) if store is not None and ids else []
    found = iter([Candidate(passage, number, None) for passage, number in zip(passages, numbers, strict=True)])
    return [item if isinstance(item, Candidate) else next(found) for item in candidates]


def join_question(
    question: str, candidates: Sequence[Candidate], text: TextEncoder, shape: ModelShape
) -> list[Candidate]:
    """The candidates with their `ids`: of all where the model's layout is `joined`, else of given texts."""
    joined, found = shape.question_layout == "joined", []
    for item in candidates:
        title, body = item.passage.title, item.passage.text
        if joined or item.number is None:
            ids, truncated = text.joined(question, title, body) if joined else text.passage(title, body)
            found.append(replace(item, ids=ids, truncated=truncated))
        else:
            found.append(item)
    return found


def _id(value: object) -> int | str:
    """A value as the store's SQLite takes it: retrievers hand out numpy's integers and strings."""
    found = str(value) if isinstance(value, str) else as_index(value)
    if found is None:
        raise PassageError(
            f"passage {described(value)}", expected="an id, which is an int or a str, a text, a PassageId or a Passage",
            found=type(value).__name__, fix="give one of these",
        )
    return found


def _candidate_from_text(passage: Passage) -> Candidate:
    found_id = passage.id if passage.id is None else _id(passage.id)
    for name, value in (("title", passage.title), ("text", passage.text), ("wikipedia_id", passage.wikipedia_id)):
        if not isinstance(value, str) and not (name == "wikipedia_id" and value is None):
            raise PassageError(
                f"given passage, {name}", expected="a str", found=described(value),
                fix='give "" for a title that is not there',
            )
    if not passage.text.strip():
        raise PassageError("given passage", expected="some text", found="none", fix="leave it out")
    try:
        f"{passage.title}{passage.text}".encode()
    except UnicodeEncodeError:
        raise PassageError(
            f"given passage {passage.text[:60]!r}", expected="text that UTF-8 can write", found="a lone surrogate",
            fix="repair the text",
        ) from None
    return Candidate(replace(passage, id=found_id), None, None)


def _is_id(store: PassageSource | None, value: str) -> bool:
    try:
        return store is not None and bool(store.numbers([value]))
    except PassageError:
        return False


def memory_inputs(
    rows: Sequence[Row],
    store: MemoryStore | None,
    codec: Codec,
    text: TextEncoder,
    shape: ModelShape,
    place: Placement,
) -> Mapping[str, Tensor]:
    """Memory of each row's passages, padded to the longest and the most, where the graphs read it.

    The codec's tensors (b, k, ...), and `memory_mask` (b, k, n_p) int32. Given texts are encoded here, by the graph.
    """
    candidates = [item for row in rows for item in row.candidates]
    tokenised = [_text_ids(item, text) for item in candidates if item.number is None]
    if store is not None:
        store.prefetch(item.number for item in candidates if item.number is not None)
    encoded = iter(_encode_texts(tokenised, codec, shape, place))
    memories = [
        [
            next(encoded) if item.number is None or store is None else store.memory(item.number)
            for item in row.candidates
        ]
        for row in rows
    ]
    longest = max(passage.num_tokens for row in memories for passage in row)
    return place.device.memory(memories, place.length(longest, shape.passage_length))


def _encode_texts(
    tokenised: Sequence[Sequence[int]], codec: Codec, shape: ModelShape, place: Placement
) -> list[PassageMemory]:
    """Given passages in the codec. A few of like length are encoded at a time: that takes little memory and padding."""
    encoded: dict[int, PassageMemory] = {}
    at_once = min(TEXTS_AT_ONCE, place.max_batches.get(MEMORY_ENCODER, TEXTS_AT_ONCE))
    by_length = sorted(range(len(tokenised)), key=lambda number: len(tokenised[number]))
    for start in range(0, len(tokenised), at_once):
        numbers = by_length[start : start + at_once]
        batch = [tokenised[number] for number in numbers]
        length = place.length(len(batch[-1]), shape.passage_length)
        memories = encode_passages(place.graphs[MEMORY_ENCODER], batch, length)
        for number, memory in zip(numbers, memories, strict=True):
            try:
                encoded[number] = PassageMemory(codec.encode(memory))
            except FloatingPointError:
                raise BundleError(
                    "graph memory_encoder", expected="finite memory of a given passage", found="NaN or infinity",
                    fix="compare the bundle with its checkpoint: `glimmer-export parity`",
                ) from None
    return [encoded[number] for number in range(len(tokenised))]


def _text_ids(candidate: Candidate, text: TextEncoder) -> Sequence[int]:
    if candidate.ids is not None:
        return candidate.ids
    return text.passage(candidate.passage.title, candidate.passage.text)[0]


def passage_ids(candidate: Candidate, store: MemoryStore | None, text: TextEncoder) -> Sequence[int]:
    """The tokens of a passage as it is read: its own, the store's, or else the tokenizer's."""
    if candidate.ids is not None or candidate.number is None or store is None:
        return _text_ids(candidate, text)
    ids: list[int] = store.input_ids(candidate.number).tolist()
    return ids


def token_inputs(
    rows: Sequence[Row], store: MemoryStore | None, text: TextEncoder, shape: ModelShape, place: Placement
) -> Mapping[str, Tensor]:
    """FiD's encoder input: each passage's tokens behind the question's, which take question_length positions.

    `input_ids` and `attention_mask`, (b, k, question_length + n_p) int32, all 0 if a row has fewer passages. Where
    question and passage are joined in one text, that is all: (b, k, n_p), n_p at least the shape's
    `least_joined_tokens`.
    """
    joined = shape.question_layout == "joined"
    start = 0 if joined else shape.question_length
    passages = [[passage_ids(candidate, store, text) for candidate in row.candidates] for row in rows]
    num_passages = max(map(len, passages))
    longest = max(shape.least_joined_tokens, *(len(ids) for row in passages for ids in row))
    length = start + place.length(longest, shape.passage_length)
    input_ids = np.zeros((len(rows), num_passages, length), np.int32)
    mask = np.zeros_like(input_ids)
    for batch, (row, tokenised) in enumerate(zip(rows, passages, strict=True)):
        question = () if joined else row.question_ids
        ids, present = pad_ids(tokenised)
        for target, values in ((input_ids, (question, ids)), (mask, ([1] * len(question), present))):
            target[batch, : len(tokenised), : len(question)] = values[0]
            target[batch, : len(tokenised), start : start + ids.shape[1]] = values[1]
    return {"input_ids": input_ids, "attention_mask": mask}
