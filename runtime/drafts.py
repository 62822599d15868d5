"""Drafts of an answer's next tokens: those that follow its last ones in a passage that is read.

Answers are mostly spans of what they are read from (docs/design.md, section 2). A draft is a guess, which the decoder
verifies: a wrong one costs time and changes no answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAFT_TOKENS", "LONGEST_SUFFIX", "MAX_DRAFT_TOKENS", "DraftSource", "Drafts", "kept_of"]

DRAFT_TOKENS = 4
"""Of a draft at most, where nothing else is asked for."""
MAX_DRAFT_TOKENS = 63

LONGEST_SUFFIX = 3
"""Of an answer's last tokens, how many are looked for at most."""
NO_TOKEN = -1
"""Stands where no token may be drafted: at the ends of passages, and in the place of EOS and padding."""


class DraftSource:
    """The passages that one question's answer is read from, as drafts are taken from them."""

    def __init__(self, passages: Iterable[Sequence[int]], stops: Collection[int]) -> None:
        """`passages` are token ids, those first that are to be looked in first; none of `stops` is ever drafted."""
        parts: list[NDArray[np.int64]] = [np.full(LONGEST_SUFFIX, NO_TOKEN)]
        for passage in passages:
            parts += [np.asarray(passage, np.int64), np.full(1, NO_TOKEN)]
        self._tokens = np.concatenate(parts)
        self._tokens[np.isin(self._tokens, [*stops])] = NO_TOKEN

    def draft(self, answer: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow an answer; none where its last token stands before no other.

        They follow the longest suffix of the answer, of three tokens, two or one, that is found in a passage with a
        token behind it: in the first passage, at the first of its places. They end before the passage does, and before
        a token that is not drafted.
        """
        if not answer or most < 1:
            return []
        tokens = self._tokens
        places = np.flatnonzero(tokens[:-1] == answer[-1])
        places = places[(tokens[places] != NO_TOKEN) & (tokens[places + 1] != NO_TOKEN)]
        for back in range(1, min(LONGEST_SUFFIX, len(answer))):
            longer = places[tokens[places - back] == answer[-1 - back]]
            if not len(longer):
                break
            places = longer
        if not len(places):
            return []
        following = tokens[places[0] + 1 : places[0] + 1 + most]
        ends = np.flatnonzero(following == NO_TOKEN)
        found: list[int] = following[: ends[0] if len(ends) else most].tolist()
        return found


@dataclass(frozen=True)
class Drafts:
    """Where the rows of a batch draft from, and how many tokens a draft has at most."""

    sources: Sequence[DraftSource]
    tokens: int


def kept_of(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """How many of a run's choices stand: the first, and each behind a token of the draft that was chosen too.

    `chosen` are the decoder's choices at the token before the draft and at each of the draft's, and at padding behind.
    """
    kept = 1
    for guess, choice in zip(draft, chosen, strict=False):
        if guess != choice:
            break
        kept += 1
    return kept
