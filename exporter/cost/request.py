"""What is asked of `glimmer-export cost`, and the model and workload that it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from glimmer_export.exporter.bundle.forms import FormOptions
from glimmer_export.exporter.checkpoint.partition import parse_proportion
from glimmer_export.exporter.cost.model import (
    DEFAULT_CUT,
    CostModel,
    Proportions,
    check_same_size,
    model_from_manifest,
    model_from_preset,
)
from glimmer_export.exporter.cost.workload import Workload, check_workload
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BundleManifest, OptionError

__all__ = ["CostRequest", "Resolved", "resolve"]

NUM_RETRIEVED, NUM_SELECTED = 25, 5
QUESTION_TOKENS, PASSAGE_TOKENS, ANSWER_TOKENS = 48, 304, 16


@dataclass(frozen=True)
class CostRequest:
    """Options as given; None is the bundle's own value where there is a bundle, and else the papers'.

    Counts are of passages and tokens; `passages` is the size of the corpus. Proportions are written as "1/3" or "0.25".
    """

    model: str | None = None
    architecture: str | None = None
    k: int | None = None
    m: int | None = None
    question_tokens: int | None = None
    passage_tokens: int | None = None
    answer_tokens: int = ANSWER_TOKENS
    stage_a: str | None = None
    cross_attention: str = "auto"
    live_proportion: str | None = None
    rerank_proportion: str | None = None
    score_pooling: str | None = None
    passages: int = 1_000_000
    target: str | None = None
    bundle: Path | None = None


@dataclass(frozen=True)
class Resolved:
    """A model, one question's workload, and the bundle whose graphs are to be counted."""

    model: CostModel
    workload: Workload
    bundle: Bundle | None


def resolve(request: CostRequest) -> Resolved:
    """Check everything that was asked for.

    Raises OptionError for an option out of range, unknown, or at odds with the others; BundleError for what is no
    bundle; CheckpointError where the proportions leave a part of the model empty.
    """
    if request.bundle is None:
        return _of_preset(request)
    bundle = Bundle.open(request.bundle)
    workload = _workload(request, bundle.manifest)
    _check_bundle_fits(request, bundle.manifest)
    _check_prefix(workload, bundle.manifest)
    model = model_from_manifest(str(request.bundle), bundle.manifest, workload)
    if request.model is not None:
        check_same_size(model, request.model)
    return Resolved(model, workload, bundle)


def _of_preset(request: CostRequest) -> Resolved:
    if request.model is None:
        raise OptionError(
            "cost", expected="--model SIZE or --bundle BUNDLE", found="neither", fix="say which model to reckon with"
        )
    workload = _workload(request, None)
    cut = Proportions(
        _proportion(request.live_proportion, "--live-proportion", DEFAULT_CUT.live),
        _proportion(request.rerank_proportion, "--rerank-proportion", DEFAULT_CUT.rerank),
    )
    forms = FormOptions(
        request.stage_a, request.cross_attention, request.answer_tokens, request.target or "cpu"
    )
    architecture = request.architecture or "glimmer"
    pooling = request.score_pooling or "first"
    return Resolved(model_from_preset(request.model, architecture, workload, forms, cut, pooling), workload, None)


def _proportion(text: str | None, option: str, default: Fraction) -> Fraction:
    return default if text is None else parse_proportion(text, option=option)


def _workload(request: CostRequest, manifest: BundleManifest | None) -> Workload:
    shape = manifest.model if manifest else None
    k = _first(request.k, shape.num_retrieved if shape else NUM_RETRIEVED)
    default_m = shape.num_selected if shape and shape.num_selected else NUM_SELECTED
    question_tokens = _first(request.question_tokens, shape.question_length if shape else QUESTION_TOKENS)
    passage_tokens = shape.passage_length if shape else PASSAGE_TOKENS
    if shape and shape.question_layout == "joined":  # one limit for both
        question_tokens = _first(request.question_tokens, min(QUESTION_TOKENS, shape.passage_length // 2))
        passage_tokens = max(1, shape.passage_length - question_tokens)
    workload = Workload(
        num_retrieved=k,
        num_selected=_first(request.m, max(1, min(default_m, k))),
        question_tokens=question_tokens,
        passage_tokens=_first(request.passage_tokens, passage_tokens),
        answer_tokens=request.answer_tokens,
        corpus_passages=request.passages,
    )
    check_workload(workload)
    return workload


def _first(given: int | None, default: int) -> int:
    return default if given is None else given


def _check_bundle_fits(request: CostRequest, manifest: BundleManifest) -> None:
    """What a bundle has decided may be said again, not changed."""
    cross_attention = None if request.cross_attention == "auto" else request.cross_attention
    decided = {
        "--architecture": (request.architecture, manifest.model.architecture),
        "--stage-a": (request.stage_a, manifest.stage_a or "full"),
        "--cross-attention": (cross_attention, manifest.cross_attention),
        "--live-proportion": (request.live_proportion, None),
        "--rerank-proportion": (request.rerank_proportion, None),
        "--score-pooling": (request.score_pooling, None),
    }
    for option, (given, own) in decided.items():
        if given not in (None, own):
            expected = f"{own}, as the bundle has it" if own else "none, as the bundle has its own"
            raise OptionError(f"option {option}", expected=expected, found=str(given), fix="leave the option out")


def _check_prefix(workload: Workload, manifest: BundleManifest) -> None:
    """Where the question stands in front of the answer, the graphs have the length of the decoder's cache built in."""
    limits = {
        "--question-tokens": (workload.question_tokens, manifest.model.question_length),
        "--answer-tokens": (workload.answer_tokens, manifest.model.max_new_tokens),
    }
    for option, (value, limit) in limits.items():
        if manifest.model.traits.prefixes_decoder and value > limit:
            raise OptionError(
                f"option {option}", expected=f"at most the bundle's {limit}", found=str(value), fix="lower it"
            )
