"""What goes in and out, as pydantic models: they check requests, write responses, and are the schema of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag

from glimmer_export.runtime import answer as runtime_answer
from glimmer_export.runtime.candidates import Given, PassageId
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.store import Passage
from glimmer_export.runtime.writes import MAX_WRITTEN, Written

__all__ = [
    "AnswerEvent", "AnswerIn", "AnswerList", "AnswerOut", "DeleteIn", "Document", "DocumentOut", "ErrorBody",
    "ErrorOut", "Health", "PassageIn", "PassageOut", "PassagesIn", "RankedOut", "Refreshed", "RerankIn", "RerankOut",
    "RerankResult", "TokenEvent", "WrittenOut", "given_of",
]  # fmt: skip

MAX_QUESTION = 20_000
"""Characters of a question; what a model takes is fewer, and is counted in tokens."""
MAX_QUESTIONS = 64
MAX_DOCUMENTS = 1000
INTEGER = 1 << 63

Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]
IntId = Annotated[int, Field(strict=True, ge=-INTEGER, lt=INTEGER)]
StrId = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)]


class _In(BaseModel):
    """A request of our own: an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredPassage(_In):
    """A passage of the store, by its id; 1 and "1" are two ids."""

    id: IntId | StrId


class GivenPassage(BaseModel):
    """A passage that is sent along. Further fields, such as rerankers' clients send, are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    text: str
    title: str = ""
    id: IntId | StrId | None = None


def _kind(value: Any) -> str | None:
    """Which of a Document's forms it is."""
    if isinstance(value, (str, GivenPassage)):
        return "text" if isinstance(value, str) else "given"
    if isinstance(value, (int, StoredPassage)):
        return "number" if isinstance(value, int) else "stored"
    if isinstance(value, dict):
        return "given" if "text" in value else "stored"
    return None


Document = Annotated[
    Annotated[str, Tag("text")] | Annotated[IntId, Tag("number")] | Annotated[StoredPassage, Tag("stored")]
    | Annotated[GivenPassage, Tag("given")],
    Discriminator(
        _kind, custom_error_type="document",
        custom_error_message='expected a text, a whole number (an id), {"id": ...} or {"text": ..., "title": ...}',
    ),
]
"""A string is always a text: ids are whole numbers, or stand in {"id": ...}."""
Documents = Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS)]


def given_of(document: Document) -> Given:
    """A document as `Session` takes it."""
    if isinstance(document, str):
        return Passage(None, "", document)
    if isinstance(document, int):
        return PassageId(document)
    if isinstance(document, StoredPassage):
        return PassageId(document.id)
    return Passage(document.id, document.title, document.text)


class AnswerIn(_In):
    """One question, or several with answers in their order."""

    question: Question | Annotated[list[Question], Field(min_length=1, max_length=MAX_QUESTIONS)]
    passages: Annotated[
        Documents | None,
        Field(description="Read instead of retrieving. With several questions, each is answered from all of them."),
    ] = None
    top_k: Annotated[Count | None, Field(description="Passages to retrieve. Default: the bundle's k.")] = None
    top_m: Annotated[Count | None, Field(description="Passages to read of these. Default: the bundle's m.")] = None
    min_log_probability: Annotated[
        float | None, Field(le=0, description="Abstain from an answer that the model held less likely, in nats.")
    ] = None
    stream: Annotated[bool, Field(description="Send events, of which the last of each question is its answer.")] = False


class PassageOut(_Out):
    """A passage of the store."""

    id: int | str | None
    title: str
    text: str
    wikipedia_id: str | None = None

    @classmethod
    def of(cls, passage: Passage) -> PassageOut:
        """As the runtime has it."""
        return cls(
            id=passage.id, title=passage.title, text=passage.text, wikipedia_id=passage.wikipedia_id
        )


class RankedOut(PassageOut):
    """A passage that was found for a question, and what the model made of it."""

    rank: int
    retrieval_score: float | None
    score: float | None
    read: bool
    truncated: bool


class AnswerOut(_Out):
    """An answer with what it was read from; `answer` is null if nothing was found, or if it abstains."""

    question: str
    answer: str | None
    abstained: bool
    log_probability: float | None
    decoder_runs: int
    passages: list[RankedOut]
    milliseconds: dict[str, float | None]

    @classmethod
    def of(cls, found: runtime_answer.Answer, min_log_probability: float | None) -> AnswerOut:
        """As the runtime has it, less the answer if it is not likely enough.

        Raises OptionError if the bundle does not tell how likely an answer is.
        """
        fields = found.to_dict()
        if min_log_probability is not None and found.answer is not None and found.log_probability is None:
            raise OptionError(
                "min_log_probability", expected="a bundle whose graphs tell how likely an answer is",
                found="one that was exported before they did", fix="export it again, or leave this out",
            )
        abstained = (
            min_log_probability is not None and found.log_probability is not None
            and found.log_probability < min_log_probability
        )
        return cls(
            question=found.question, answer=None if abstained else found.answer, abstained=abstained,
            log_probability=fields["log_probability"], decoder_runs=found.decoder_runs,
            milliseconds=fields["milliseconds"],
            passages=[RankedOut.model_validate(passage) for passage in fields["passages"]],
        )


class AnswerList(_Out):
    """The answers to several questions."""

    answers: list[AnswerOut]


class TokenEvent(_Out):
    """What the answer to a question has grown by; those of an answer, joined, are the answer."""

    index: int
    text: str


class AnswerEvent(_Out):
    """An answer, which is the last that is told of its question."""

    index: int
    answer: AnswerOut


class RerankIn(BaseModel):
    """What clients of rerankers send; what they send further, as `model`, is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    query: Question
    documents: Documents
    top_n: Annotated[int | None, Field(ge=1, description="The best so many. Default: all.")] = None
    return_documents: Annotated[bool | None, Field(description="Send the texts back.")] = None


class DocumentOut(_Out):
    """A document's text, and its id if it has one."""

    id: int | str | None = None
    title: str | None = None
    text: str

    @classmethod
    def of(cls, passage: Passage) -> DocumentOut:
        """As the runtime has it."""
        return cls(id=passage.id, title=passage.title or None, text=passage.text)


class RerankResult(_Out):
    """`index` is the document's place among those sent; `score` the model's own, of which the softmax is relevance."""

    index: int
    relevance_score: float
    score: float
    document: DocumentOut | None = None


class RerankOut(_Out):
    """The best first."""

    id: str
    model: str
    results: list[RerankResult]


class Refreshed(_Out):
    """The store's generation, and whether it is another than before."""

    changed: bool
    generation: int


class PassageIn(_In):
    """A passage for the store; 1 and "1" are two ids. Of a store that cuts its documents into passages, a document."""

    id: IntId | StrId
    title: str = ""
    text: Annotated[str, Field(pattern=r"\S", description="Not blank.")]
    wikipedia_id: str | None = None


def _count(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


class PassagesIn(RootModel[Any]):
    """One passage, or a list of them with an id each."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: Annotated[
        Annotated[PassageIn, Tag("one")]
        | Annotated[list[PassageIn], Field(min_length=1, max_length=MAX_WRITTEN), Tag("several")],
        Discriminator(_count),
    ]


class DeleteIn(_In):
    """Ids of the passages to be deleted, or of documents that were cut into passages."""

    ids: Annotated[list[IntId | StrId], Field(min_length=1, max_length=MAX_WRITTEN)]


class WrittenOut(_Out):
    """What a write made of the store, which is answered from now; `passages` are in it.

    `added` passages came, some in the places of `replaced` ones; `truncated` of them were longer than is read. `ids`
    are those of the request. `already_complete`: the last change was this one, and nothing was done.
    """

    generation: int
    ids: list[int | str]
    added: int
    replaced: int
    deleted: int
    truncated: int
    passages: int
    already_complete: bool
    warnings: list[str]

    @classmethod
    def of(cls, written: Written, ids: Sequence[int | str]) -> WrittenOut:
        """As the writer has it."""
        return cls(
            generation=written.generation, ids=list(ids), added=written.added, replaced=written.replaced,
            deleted=written.deleted, truncated=written.truncated, passages=written.passages,
            already_complete=written.already_complete, warnings=list(written.warnings),
        )


class Health(_Out):
    """Whether the server lives, or takes questions."""

    status: Literal["ok", "ready"]


class ErrorBody(_Out):
    """`type` is for programs, `message` for people, and `request_id` finds it in the server's log."""

    type: str
    message: str
    request_id: str


class ErrorOut(_Out):
    """What every error is."""

    error: ErrorBody
