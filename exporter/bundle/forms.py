"""Which algebraic form each graph is exported in: asked for, or chosen by what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines.cross_attention import reckoned_form
from glimmer_export.runtime.contract import (
    CODECS,
    CROSS_ATTENTION_FORMS,
    STAGE_A_FORMS,
    Forms,
    ModelShape,
    OptionError,
    codec_layout,
)

__all__ = ["BOTH", "DEFAULT_FORMS", "FormOptions", "choose_forms"]

BOTH = "both"

DEFAULT_CODECS = ("fp16", "int8")


@dataclass(frozen=True)
class FormOptions:
    """Forms asked for.

    `stage_a` None: lazy where the pooling allows it. `cross_attention` may be `auto`: absorbed while `answer_tokens`,
    the expected length of an answer, is so small that it pays on `target`, a machine of `configs/targets`; or BOTH, to
    measure on the machine that answers, with the one of `auto` to begin with. `codecs` are those of the stores whose
    memory the graphs are to decode, None for the default ones.
    """

    stage_a: str | None = None
    cross_attention: str = "auto"
    answer_tokens: int = 16
    target: str = "cpu"
    codecs: tuple[str, ...] | None = None


DEFAULT_FORMS = FormOptions()


def choose_forms(config: CheckpointConfig, options: FormOptions) -> Forms:
    """The forms of a checkpoint's graphs; raises OptionError for one that does not exist or does not fit."""
    target = read_target(options.target)
    if options.stage_a not in (None, *STAGE_A_FORMS):
        raise _unknown("--stage-a", STAGE_A_FORMS, str(options.stage_a))
    if options.cross_attention not in (known := ("auto", BOTH, *CROSS_ATTENTION_FORMS)):
        raise _unknown("--cross-attention", known, options.cross_attention)
    selects, mean = config.shape.traits.selects, config.score_pooling == "mean"
    if options.stage_a == "lazy" and (mean or not selects):
        because = "the score is a mean over all tokens" if selects else f"a {config.architecture} ranks nothing"
        raise OptionError("--stage-a", expected=f"full, as {because}", found="lazy", fix="leave the option out")
    stage_a = None
    if selects:
        stage_a = options.stage_a or ("full" if mean else "lazy")
    cross_attention = options.cross_attention
    if cross_attention in ("auto", BOTH):
        cross_attention = reckoned_form(config.shape, options.answer_tokens, target)
    return Forms(
        _codecs(config.shape, options), stage_a, cross_attention, both_forms=options.cross_attention == BOTH
    )


def _codecs(shape: ModelShape, options: FormOptions) -> tuple[str, ...]:
    """The codecs in the order of CODECS; none if there is no memory."""
    if not shape.traits.has_memory:
        return ()
    wanted = DEFAULT_CODECS if options.codecs is None else options.codecs
    if unknown := [codec for codec in wanted if codec not in CODECS]:
        raise _unknown("--codecs", tuple(CODECS), unknown[0])
    if not wanted:
        raise OptionError(
            "--codecs", expected="at least one codec", found="none", fix=f"choose from {', '.join(CODECS)}"
        )
    for codec in wanted:
        try:
            codec_layout(codec, shape.d_model)
        except ValueError as reason:
            raise OptionError(
                "--codecs", expected="codecs that fit d_model", found=str(reason), fix="choose another"
            ) from None
    return tuple(codec for codec in CODECS if codec in wanted)


def _unknown(option: str, known: tuple[str, ...], found: str) -> OptionError:
    return OptionError(option, expected=f"one of {', '.join(known)}", found=found, fix="choose one of them")
