"""The first run of every graph, before the first question: what is done then only is done before anybody waits."""

from __future__ import annotations

import numpy as np

from glimmer_export.runtime.candidates import Candidate, Row
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.contract import ModelShape
from glimmer_export.runtime.current_store import Serving
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.text import TextEncoder

__all__ = ["warm_up"]

FIRST_WORD = 3
"""In T5's vocabulary and in those made like it the ids before are padding, EOS and what is unknown."""


def warm_up(serving: Serving, text: TextEncoder, shape: ModelShape) -> None:
    """Read k passages for a question of question_length random tokens, and decode max_new_tokens from them.

    One passage is a text of passage_length random tokens, encoded on the spot; the others are the first of the store,
    or, without one, such texts too. The store is searched for the words of the first. Nothing stays but what the
    graphs, the backend and the system keep of any run. Raises as `Reader.read` and `MemoryStore.search` do.
    """
    random = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        ids: list[int] = random.integers(min(FIRST_WORD, shape.vocab_size - 1), shape.vocab_size, count).tolist()
        return ids

    def given() -> Candidate:
        ids = tokens(shape.passage_length)
        return Candidate(Passage(None, "", ""), None, None, ids)

    joined = shape.question_layout == "joined"
    question, clock = tokens(shape.question_length), StageClock()
    candidates = [given()]
    if serving.store is not None:
        stored = serving.store.first_numbers(shape.num_retrieved - 1)
        for number, passage in zip(stored, serving.store.passages(stored), strict=True):
            ids = text.joined("", passage.title, passage.text)[0] if joined else None
            candidates.append(Candidate(passage, number, None, ids))
        serving.store.search(f"{candidates[-1].passage.title} {candidates[-1].passage.text}", shape.num_retrieved)
    candidates += [given() for _ in range(shape.num_retrieved - len(candidates))]
    serving.reader.read([Row(0, question, candidates)], shape.num_selected, clock, stop_at_eos=False)
