"""Which algebraic form each graph is exported in: asked for, or chosen by what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.bundle.attention_time import cross_attention_ms
from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.config.targets import Target, read_target
from glimmer_export.runtime.contract import (
    CODECS,
    CROSS_ATTENTION_FORMS,
    STAGE_A_FORMS,
    Forms,
    ModelShape,
    OptionError,
    codec_layout,
)

__all__ = ["DEFAULT_FORMS", "FormOptions", "choose_forms"]

DEFAULT_CODECS = ("fp16", "int8")


@dataclass(frozen=True)
class FormOptions:
    """Forms asked for.

    `stage_a` None: lazy where the pooling allows it. `cross_attention` may be `auto`: absorbed while `answer_tokens`,
    the expected length of an answer, is so small that it pays on `target`, a machine of `configs/targets`. `codecs` are
    those of the stores whose memory the graphs are to decode, None for the default ones.
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
    if options.cross_attention not in ("auto", *CROSS_ATTENTION_FORMS):
        raise _unknown("--cross-attention", ("auto", *CROSS_ATTENTION_FORMS), options.cross_attention)
    selects, mean = config.shape.traits.selects, config.score_pooling == "mean"
    if options.stage_a == "lazy" and (mean or not selects):
        because = "the score is a mean over all tokens" if selects else f"a {config.architecture} ranks nothing"
        raise OptionError("--stage-a", expected=f"full, as {because}", found="lazy", fix="leave the option out")
    stage_a = None
    if selects:
        stage_a = options.stage_a or ("full" if mean else "lazy")
    cross_attention = options.cross_attention
    if cross_attention == "auto":
        answer_tokens = min(options.answer_tokens, config.max_new_tokens)
        positions = answer_tokens + config.shape.decoder_prefix_length - 1
        cross_attention = _cheaper(config.shape, positions, target)
    return Forms(_codecs(config.shape, options), stage_a, cross_attention)


def _codecs(shape: ModelShape, options: FormOptions) -> tuple[str, ...]:
    """The codecs in the order of CODECS; none where there is no memory."""
    if not shape.traits.has_memory:
        return ()
    wanted = DEFAULT_CODECS if options.codecs is None else options.codecs
    if unknown := [codec for codec in wanted if codec not in CODECS]:
        raise _unknown("--codecs", CODECS, unknown[0])
    if not wanted:
        raise OptionError("--codecs", expected="at least one codec", found="none", fix=f"choose from {CODECS}")
    for codec in wanted:
        try:
            codec_layout(codec, shape.d_model)
        except ValueError as reason:
            raise OptionError(
                "--codecs", expected="codecs that fit d_model", found=str(reason), fix="choose another"
            ) from None
    return tuple(codec for codec in CODECS if codec in wanted)


def _cheaper(shape: ModelShape, positions: int, target: Target) -> str:
    """The form that costs less (docs/design.md, section 2).

    On a CPU by multiply-adds: an encoder token and layer, absorbed cross-attention saves `2 d_model inner` of them
    before the first position and adds `2 (heads d_model - inner)` at each. A GPU's step waits for memory and for its
    kernels to start, so there these are counted.
    """
    if target.tensorrt is not None:
        gpu = target.tensorrt
        return min(CROSS_ATTENTION_FORMS, key=lambda form: cross_attention_ms(form, shape, positions, target, gpu))
    inner = shape.num_heads * shape.d_kv
    saved = shape.d_model * inner * target.absorbed_efficiency
    return "absorbed" if positions * (shape.num_heads * shape.d_model - inner) <= saved else "cached"


def _unknown(option: str, known: tuple[str, ...], found: str) -> OptionError:
    return OptionError(option, expected=f"one of {', '.join(known)}", found=found, fix="choose one of them")
