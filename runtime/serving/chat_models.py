"""What goes in and out of /v1/chat/completions, in OpenAI's shape as far as an answer from passages has one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glimmer_export.runtime.serving.models import MAX_QUESTION

__all__ = [
    "Annotation", "ChatChoice", "ChatChunk", "ChatChunkChoice", "ChatDelta", "ChatIn", "ChatMessageOut", "ChatOut",
    "CitedPassage", "UrlCitation", "Usage",
]  # fmt: skip

MAX_MESSAGES = 1000
MAX_PARTS = 100
IGNORED = "Taken and ignored."
Text = Annotated[str, Field(max_length=1 << 20)]
"""Of what was said before: a question has a bound of its own."""


class _In(BaseModel):
    """Clients send what their newest release knows: a further field is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class ContentPart(_In):
    """A part of a message; those without text, such as images, are not read."""

    type: str
    text: Text | None = None


class ChatMessage(_In):
    """One message of a conversation."""

    role: str
    content: Text | Annotated[list[ContentPart], Field(max_length=MAX_PARTS)] | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class StreamOptions(_In):
    """What goes with a stream."""

    include_usage: bool | None = None


class ChatIn(_In):
    """A conversation, of which the last message of the user is the question.

    Greedy decoding has one answer, and this model calls no tools: temperature, top_p, n, tools and further fields
    change nothing.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    model: Annotated[Any, Field(description=IGNORED)] = None
    temperature: Annotated[Any, Field(description=IGNORED)] = None
    top_p: Annotated[Any, Field(description=IGNORED)] = None
    n: Annotated[Any, Field(description=IGNORED)] = None
    max_tokens: Annotated[Any, Field(description=IGNORED)] = None
    tools: Annotated[Any, Field(description=IGNORED)] = None

    def question(self) -> str | None:
        """The last message of the user; None if there is none with a text, or it is too long for any model."""
        text = next((message.text for message in reversed(self.messages) if message.role == "user"), "")
        return text if text.strip() and len(text) <= MAX_QUESTION else None


class UrlCitation(_Out):
    """Where a passage stands on this server, and which characters of the answer it is cited for."""

    url: str
    title: str
    start_index: int
    end_index: int


class CitedPassage(_Out):
    """A passage that was read, and the model's score of it."""

    id: int | str | None
    text: str
    score: float | None


class Annotation(_Out):
    """A citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation
    passage: CitedPassage


class ChatMessageOut(_Out):
    """The answer; empty if nothing was found."""

    role: Literal["assistant"] = "assistant"
    content: str
    annotations: list[Annotation]


class ChatChoice(_Out):
    """The only one."""

    index: int = 0
    message: ChatMessageOut
    finish_reason: str


class Usage(_Out):
    """Tokens of question and answer, without the passages."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatOut(_Out):
    """A completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(_Out):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    annotations: list[Annotation] | None = None


class ChatChunkChoice(_Out):
    """The only one."""

    index: int = 0
    delta: ChatDelta
    finish_reason: str | None = None


class ChatChunk(_Out):
    """A part of a completion that is streamed."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
