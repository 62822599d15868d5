"""How much one question asks of a model: passages and lengths."""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.runtime.contract import OptionError

__all__ = ["Workload", "check_workload"]

LIMITS = {
    "--k": 3840,
    "--m": 3840,
    "--question-tokens": 1 << 16,
    "--passage-tokens": 1 << 16,
    "--answer-tokens": 4096,
    "--passages": 10**12,
}
"""The most that a checkpoint's config takes; and a corpus that no disk holds."""


@dataclass(frozen=True)
class Workload:
    """One question, a batch of one: k and m in passages, lengths in tokens, `corpus_passages` in its store."""

    num_retrieved: int
    num_selected: int
    question_tokens: int
    passage_tokens: int
    answer_tokens: int
    corpus_passages: int

    @property
    def joint_tokens(self) -> int:
        """Question and passage together: one input of the live encoder."""
        return self.question_tokens + self.passage_tokens


def check_workload(workload: Workload) -> None:
    """Raise OptionError for a count that is not positive or beyond any model, and for m above k."""
    values = {
        "--k": workload.num_retrieved,
        "--m": workload.num_selected,
        "--question-tokens": workload.question_tokens,
        "--passage-tokens": workload.passage_tokens,
        "--answer-tokens": workload.answer_tokens,
        "--passages": workload.corpus_passages,
    }
    for option, value in values.items():
        if not 1 <= value <= LIMITS[option]:
            raise OptionError(
                f"option {option}", expected=f"1 to {LIMITS[option]}", found=str(value), fix="choose one in that range"
            )
    if workload.num_selected > workload.num_retrieved:
        raise OptionError(
            "option --m", expected=f"at most the k = {workload.num_retrieved} passages retrieved",
            found=str(workload.num_selected), fix="lower --m or raise --k",
        )
