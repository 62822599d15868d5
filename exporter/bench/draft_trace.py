"""Traces of passage-lookup decoding: the runs that verified a question's drafts, and how many tokens each kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.drafts import MAX_DRAFT_TOKENS, DraftSource, kept_of

__all__ = ["DraftTrace", "Run", "read_trace", "runs_of"]

FIX = "record one with `python -m tests.demo.draft_traces`"
MAX_ANSWER = 4096
MAX_TRACED = 100_000

Run = tuple[int, ...]
"""Of the decoder: its positions, 1 or one more than a draft's tokens, and the tokens that it kept of them."""


@dataclass(frozen=True)
class DraftTrace:
    """The runs of each question's answer, EOS included; `source` says whose answers these are."""

    source: str
    draft_tokens: int
    questions: tuple[tuple[Run, ...], ...]

    @property
    def tokens(self) -> int:
        """Of all answers: the runs of plain decoding."""
        return sum(kept for runs in self.questions for _, kept in runs)

    @property
    def runs(self) -> int:
        """Of all answers."""
        return sum(map(len, self.questions))


def runs_of(
    answer: Sequence[int], passages: Sequence[Sequence[int]], draft_tokens: int, stops: Collection[int]
) -> tuple[Run, ...]:
    """The runs in which a decoder that answers so verifies its drafts; an answer's last token is EOS, if it ends.

    `passages` are those that it reads, in the order in which they are looked in.
    """
    source, runs, done = DraftSource(passages, stops), [(1, 1)], 1
    while done < len(answer):
        draft = source.draft(answer[:done], min(draft_tokens, len(answer) - done - 1))
        kept = kept_of(draft, answer[done:])
        runs.append((1 + draft_tokens if draft else 1, kept))
        done += kept
    return tuple(runs)


def read_trace(path: Path) -> DraftTrace:
    """Raises OptionError for a file that is none."""
    subject = f"--draft-trace {path}"
    data = read_json(path, error=OptionError, fix=FIX)
    trace = record_from_json(DraftTrace, data, error=OptionError, subject=subject, fix=FIX)

    def refused(expected: str, found: object) -> OptionError:
        return OptionError(subject, expected=expected, found=str(found)[:80], fix=FIX)

    if not 1 <= trace.draft_tokens <= MAX_DRAFT_TOKENS:
        raise refused(f"draft_tokens from 1 to {MAX_DRAFT_TOKENS}", trace.draft_tokens)
    if not 1 <= len(trace.questions) <= MAX_TRACED:
        raise refused(f"1 to {MAX_TRACED:,} questions", len(trace.questions))
    for runs in trace.questions:
        fits = all(
            len(run) == 2 and run[0] in (1, 1 + trace.draft_tokens) and 1 <= run[1] <= run[0] for run in runs
        )
        if not fits or not runs or runs[0] != (1, 1) or sum(kept for _, kept in runs) > MAX_ANSWER:
            raise refused(
                f"runs of 1 or {1 + trace.draft_tokens} positions that keep at least one, the first of one",
                [list(run) for run in runs],
            )
    return trace
