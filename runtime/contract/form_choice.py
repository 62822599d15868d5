"""Which of its two forms of cross-attention a bundle answers in, and how that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.graph_io import CROSS_ATTENTION_FORMS

__all__ = ["MEASURED", "RECKONED", "FormChoice", "check_form_choice"]

RECKONED, MEASURED = CHOSEN_BY = ("reckoned", "measured")


@dataclass(frozen=True)
class FormChoice:
    """The form that takes less time for the decoder's part of an answer of `answer_tokens` tokens.

    `by` is `estimated`, from the bytes, kernels and arithmetic of `target`, a machine of configs/targets, or `measured`
    on such a machine; `ratio` is then how many times as long the other form took, at least 1, and None otherwise.
    """

    form: str
    by: str
    target: str
    answer_tokens: int
    ratio: float | None = None


def check_form_choice(choice: FormChoice, *, subject: str, fix: str) -> None:
    """Raise BundleError for a choice that no writer makes."""
    if choice.form not in CROSS_ATTENTION_FORMS:
        raise BundleError(f"{subject}.form", expected="a form of cross-attention", found=choice.form[:80], fix=fix)
    if choice.by not in CHOSEN_BY:
        raise BundleError(f"{subject}.by", expected=" or ".join(CHOSEN_BY), found=choice.by[:80], fix=fix)
    if choice.answer_tokens < 1:
        raise BundleError(f"{subject}.answer_tokens", expected="at least 1", found=str(choice.answer_tokens), fix=fix)
    known = choice.ratio is not None and 1 <= choice.ratio < math.inf
    if known != (choice.by == MEASURED) or (choice.ratio is not None and not known):
        raise BundleError(
            f"{subject}.ratio", expected="at least 1 of a measured choice, else null", found=repr(choice.ratio)[:80],
            fix=fix,
        )
