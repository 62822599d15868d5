"""Which algebraic form each graph is exported in: asked for, or chosen by what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.checkpoint import CheckpointConfig
from runtime.contract import CROSS_ATTENTION_FORMS, STAGE_A_FORMS, Forms, OptionError

__all__ = ["DEFAULT_FORMS", "FormOptions", "choose_forms"]

CODEC = "fp16"
MAX_ABSORBED_TOKENS = 20
"""Decoder positions up to which absorbed cross-attention is cheaper on a CPU, where it was timed.

Counting multiply-adds alone it would be d_kv.
"""


@dataclass(frozen=True)
class FormOptions:
    """Forms asked for.

    `stage_a` None: lazy where the pooling allows it. `cross_attention` may be `auto`: absorbed while `answer_tokens`,
    the expected length of an answer, is so small that it pays.
    """

    stage_a: str | None = None
    cross_attention: str = "auto"
    answer_tokens: int = 16


DEFAULT_FORMS = FormOptions()


def choose_forms(config: CheckpointConfig, options: FormOptions) -> Forms:
    """The forms of a checkpoint's graphs; raises OptionError for one that does not exist or does not fit."""
    if options.stage_a not in (None, *STAGE_A_FORMS):
        raise _unknown("--stage-a", STAGE_A_FORMS, str(options.stage_a))
    if options.cross_attention not in ("auto", *CROSS_ATTENTION_FORMS):
        raise _unknown("--cross-attention", ("auto", *CROSS_ATTENTION_FORMS), options.cross_attention)
    stage_a = None
    if config.shape.traits.selects:
        stage_a = options.stage_a or ("full" if config.score_pooling == "mean" else "lazy")
        if stage_a == "lazy" and config.score_pooling == "mean":
            raise OptionError(
                "--stage-a", expected="full, as this checkpoint's score is a mean over all tokens", found="lazy",
                fix="leave the option out",
            )
    cross_attention = options.cross_attention
    if cross_attention == "auto":
        positions = options.answer_tokens + config.shape.decoder_prefix_length - 1
        cross_attention = "absorbed" if positions <= MAX_ABSORBED_TOKENS else "cached"
    return Forms(CODEC, stage_a, cross_attention)


def _unknown(option: str, known: tuple[str, ...], found: str) -> OptionError:
    return OptionError(option, expected=f"one of {', '.join(known)}", found=found, fix="choose one of them")
