"""What a session should answer: torch's own answer from the corpus's text, with memory that is torch's but for FP16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glimmer_export.exporter.parity.reference import ReferenceAnswer, TorchReference
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime import Answer
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import VOCABULARY
from tests.exported import CORPUS, Exported

__all__ = ["ROWS", "assert_same_answer", "assert_same_scores", "reference_answer", "words"]

ROWS: Mapping[int | str, dict[str, Any]] = {row["id"]: row for row in CORPUS}
"""The corpus by id."""
NAMES = {number: word for word, number in VOCABULARY.items()}
EOS, UNKNOWN = VOCABULARY["</s>"], VOCABULARY["<unk>"]


def words(tokens: Sequence[int]) -> str:
    """The text of answer tokens."""
    return " ".join(NAMES[token] for token in tokens)


def reference_answer(
    source: Exported, question: str, ids: Sequence[int | str], num_selected: int | None = None,
    store: MemoryStore | None = None,
) -> ReferenceAnswer:
    """Torch's answer from the passages of these ids, with the memory that `store` gives back.

    By default that of the variant, in fp16, once it is seen to be torch's own.
    """
    reference, shape = TorchReference(source.model), source.shape
    template = shape.input_template or shape.passage_template
    texts = [template.format(question=question, title=ROWS[name]["title"], text=ROWS[name]["text"]) for name in ids]
    passages = [_tokens(text, shape.passage_length, eos=shape.passage_eos) for text in texts]
    memory = None
    if store is not None and store.codec is not None:
        memory = [store.codec.decode(store.memory(number).tensors) for number in store.numbers(ids)]
    elif shape.traits.has_memory:
        stored = source.session.store
        memory = [stored.codec.decode(stored.memory(number).tensors) for number in stored.numbers(ids)]
        # Where torch and the graph stand on two sides of a rounding to FP16, scores move by more than float32's sums.
        for states, found in zip(reference.memory(passages), memory, strict=True):
            assert max_abs_error(found, states) <= TOLERANCES["fp16_codec"].limit(states)
    tokens = _tokens(question, shape.question_length, eos=shape.question_eos)
    return reference.answer(tokens, passages, memory, num_selected or shape.num_selected)


def assert_same_answer(answer: Answer, expected: ReferenceAnswer) -> None:
    """Every token, every score within the tolerance, and the same passages read."""
    assert answer.error is None
    assert list(answer.token_ids) == expected.tokens
    assert answer.answer == words(expected.tokens)
    if expected.scores is None:
        assert set(answer.scores) == {None}
        assert answer.selected == tuple(range(len(answer.passages)))
    else:
        _assert_close(answer.scores, expected.scores)
        assert list(answer.selected) == expected.selected


def assert_same_scores(answer: Answer, other: Answer) -> None:
    """Equal within the tolerance, or none in both."""
    if None in other.scores:
        assert answer.scores == other.scores
    else:
        _assert_close(answer.scores, other.scores)


def _assert_close(found: Sequence[float | None], expected: Sequence[float | None] | np.ndarray) -> None:
    reference = np.array(expected, np.float32)
    assert max_abs_error(np.array(found, np.float32), reference) <= TOLERANCES["fp32"].limit(reference)


def _tokens(text: str, length: int, *, eos: bool) -> list[int]:
    ids = [VOCABULARY.get(word, UNKNOWN) for word in text.split()]
    return [*ids[: length - 1], EOS] if eos else ids[:length]
