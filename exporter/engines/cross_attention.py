"""The form of cross-attention in which a machine is faster: by reckoning, or by answers decoded in either, in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from glimmer_export.exporter.config.read import config_label
from glimmer_export.exporter.config.targets import Profile, Target, TensorRTTarget
from glimmer_export.exporter.engines.profiles import dim_sizes
from glimmer_export.exporter.files.links import require_no_link
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.backends.tensorrt import TensorRTBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CROSS_ATTENTION_FORMS,
    DECODER_STEP,
    MANIFEST,
    MEASURED,
    BackendError,
    EngineRecord,
    FormChoice,
    ModelShape,
    OptionError,
    form_of,
    record_to_json,
    stage_of,
)
from glimmer_export.runtime.decode import Asked, SingleSteps, decoder_steps
from glimmer_export.runtime.drafts import DRAFT_TOKENS
from glimmer_export.runtime.placement import DevicePlacement, Placement, placement_of

if TYPE_CHECKING:
    from glimmer_export.runtime.backends import Backend

__all__ = ["KERNELS", "choose_form_here", "cross_attention_ms", "form_on_engines", "reckoned_form"]

KERNELS = {"absorbed": 7, "cached": 3}
"""Of the cross-attention of one layer and step at batch 1, as TensorRT-RTX 1.7 lists them: projections, scores, softmax
and context, or one fused kernel between two projections (docs/measurements/kernels.md)."""
ONCE_KERNELS = {"absorbed": 0, "cached": 8}
"""Of one layer before the first step: the projections to keys and values, at base and large size."""
FP16_BYTES = 2
ONE_QUESTION = Profile(batch=(1, 1, 1), texts=(1, 1, 1), text="question")
WARM_UPS = 3
"""Answers in each form before any is timed: a GPU captures its graphs meanwhile."""
REPEATS, LEAST = 9, 3
SECONDS = 60.0
"""After so many no further repeat is begun, beyond the least."""
KEPT_TOKENS = 2
"""Of an answer, what a run with a draft keeps (docs/measurements/draft-decoding.md: 1.85 to 2.2 of gold answers)."""
FURTHER_POSITION = 0.63
"""What a further position of a run adds, of what the first costs, in absorbed cross-attention on a CPU beside cached:
at base size in FP32 one takes 2.2 ms more there and five 7.7, 9.4 and 9.7 (docs/measurements/exact-algebra.md)."""
PADDED = 1 / 8
"""Of an answer's encoder tokens, those that are padding: passages are rarely as long as a model takes."""


def reckoned_form(shape: ModelShape, answer_tokens: int, target: Target) -> str:
    """The form that costs less for an answer of so many tokens, the model's most at most (docs/design.md, section 2).

    On a CPU by multiply-adds: an encoder token and layer, absorbed cross-attention saves `2 d_model inner` of them
    before the first position and adds `2 (heads d_model - inner)` at each that is run, those of drafts among them. A
    GPU's step waits for memory and for its kernels to start, so there these are counted, and nothing is drafted.
    """
    tokens = min(answer_tokens, shape.max_new_tokens)
    if target.tensorrt is not None:
        gpu, positions = target.tensorrt, tokens + shape.decoder_prefix_length - 1
        return min(CROSS_ATTENTION_FORMS, key=lambda form: cross_attention_ms(form, shape, positions, target, gpu))
    run = sum(1 + FURTHER_POSITION * (length - 1) for length in drafted_runs(tokens)) + shape.decoder_prefix_length - 1
    inner = shape.num_heads * shape.d_kv
    saved = shape.d_model * inner * target.absorbed_efficiency
    return "absorbed" if run * (shape.num_heads * shape.d_model - inner) <= saved else "cached"


def drafted_runs(answer_tokens: int) -> list[int]:
    """How many positions each run has where drafts are looked up: the first one, as nothing was said before it."""
    return [1, *[1 + DRAFT_TOKENS] * math.ceil((answer_tokens - 1) / KEPT_TOKENS)]


def cross_attention_ms(form: str, shape: ModelShape, positions: int, target: Target, gpu: TensorRTTarget) -> float:
    """Milliseconds of a machine's cross-attention in FP16, all layers, over an answer of so many positions.

    The time of arithmetic at the peak rate or of moving every operand once, whichever is longer, and that of starting
    the kernels: an estimate to compare two forms by, no forecast. No operand is taken to stay in a cache. Questions are
    as many as the target's first profile is tuned for, and as long as the model takes.
    """
    sizes = dim_sizes(shape, gpu.profiles[0], DECODER_STEP)
    batch, tokens = sizes["batch"].opt, sizes["encoder_tokens"].opt
    width, inner = shape.d_model, shape.num_heads * shape.d_kv
    projection = width * inner

    def milliseconds(macs: int, elements: int, kernels: int) -> float:
        arithmetic = 2 * macs / (target.peak_tops.fp16 * 1e9)
        bandwidth = FP16_BYTES * elements / (target.memory_bandwidth_gb_per_s * 1e6)
        return max(arithmetic, bandwidth) + kernels * gpu.kernel_us / 1e3

    if form == "absorbed":
        # Four projections; scores and context by the states themselves, read for each.
        macs = batch * (4 * projection + 2 * tokens * shape.num_heads * width)
        step = milliseconds(macs, 4 * projection + 2 * batch * tokens * width, KERNELS[form])
        once = 0.0
    else:
        macs = batch * (2 * projection + 2 * tokens * inner)
        step = milliseconds(macs, 2 * projection + 2 * batch * tokens * inner, KERNELS[form])
        written = 2 * projection + batch * tokens * (width + 2 * inner)
        once = milliseconds(2 * batch * tokens * projection, written, ONCE_KERNELS[form])
    return shape.num_decoder_layers * (once + positions * step)


def choose_form_here(bundle_dir: Path, target_name: str) -> FormChoice:
    """Measure a bundle of both forms with ONNX Runtime on this CPU, and write the choice in its manifest.

    It is that of one question with passages of the model's own number and lengths, decoded with drafts where the bundle
    takes them. Whatever parity found concerns the manifest of before. Raises OptionError for a bundle of one form,
    BundleError, and OutputError.
    """
    bundle = Bundle.open(bundle_dir)
    choice = bundle.manifest.cross_attention_choice
    if choice is None:
        raise OptionError(
            "--target", expected="a machine with a GPU", found=target_name,
            fix="build nothing: ONNX Runtime runs the bundle's graphs as they are (of one that was exported with "
            "--cross-attention both, this measures which form is faster here)",
        )
    require_no_link(bundle_dir, [MANIFEST], subject=f"bundle {bundle_dir}")
    sizes = dim_sizes(bundle.manifest.model, ONE_QUESTION, DECODER_STEP)
    choice = replace(choice, target=config_label("target", target_name))
    measured = _measured(bundle, OnnxRuntimeBackend(), choice, 1, sizes["encoder_tokens"].opt)
    replace_file(bundle_dir / MANIFEST, record_to_json(bundle.manifest.chosen(measured)).encode())
    return measured


def form_on_engines(bundle: Bundle, record: EngineRecord) -> FormChoice:
    """Measure a bundle's engines on the GPU of this machine, at the sizes that their first profile is tuned for.

    Raises BackendError if they do not run here.
    """
    backend = TensorRTBackend(bundle.directory, record.key.library)
    try:
        if backend.record != record or record.cross_attention is None:
            raise BackendError(
                f"engines {record.key.fingerprint}", expected="the engines that this GPU would run",
                found=f"it would run {backend.record.key.fingerprint}", fix="build on the GPU that is to run them",
            )
        step = next(engine for name, engine in record.engines.items() if stage_of(name) == DECODER_STEP)
        batch, encoder_tokens = step.profiles[0]["encoder_attention_mask"].opt
        return _measured(bundle, backend, record.cross_attention, batch, encoder_tokens)
    finally:
        backend.close()


def _measured(
    bundle: Bundle, backend: Backend, choice: FormChoice, batch: int, encoder_tokens: int
) -> FormChoice:
    """The faster form on a backend, of as many answers of the choice's length at once as `batch` says."""
    manifest = bundle.manifest
    io = manifest.io()
    places: dict[str, Placement] = {}
    for form in CROSS_ATTENTION_FORMS:
        graphs = {
            stage_of(name): backend.load(bundle.graph_path(name), io[name])
            for name in manifest.graphs if form_of(name) == form
        }
        places[form] = placement_of(graphs)
    asked = _asked(manifest.model, batch, encoder_tokens)
    drafted = manifest.takes_drafts and not any(isinstance(place, DevicePlacement) for place in places.values())
    runs = drafted_runs(choice.answer_tokens) if drafted else [1] * choice.answer_tokens
    seconds = _seconds(places, asked, runs)
    form = min(seconds, key=seconds.__getitem__)
    ratio = max(seconds.values()) / seconds[form]
    return replace(choice, form=form, by=MEASURED, ratio=round(ratio, 4))


def _seconds(places: Mapping[str, Placement], asked: Asked, runs: Sequence[int]) -> dict[str, float]:
    """By form the median of an answer's decoding, by runs of so many positions, until its last token is on the host.

    A run of one goes on from the token before, a longer one from random tokens: what it costs hangs on none.
    """
    random, batch = np.random.default_rng(0), len(asked.prefixes)
    ids = random.integers(0, asked.shape.vocab_size, (batch, max(runs))).astype(np.int32)

    def answer(place: Placement) -> float:
        began = time.perf_counter()
        if max(runs) > 1:
            drafted = SingleSteps(place, asked)
            drafted.next(1)
            for number, length in enumerate(runs[1:], start=1):
                first = min(KEPT_TOKENS * number, asked.shape.cache_length - 1)
                drafted.verify(ids[:, :length], np.full(batch, first, np.int32))
            return time.perf_counter() - began
        remaining = len(runs)
        with decoder_steps(place, asked) as steps:
            while remaining > 0:
                remaining -= len(steps.next(remaining))
        return time.perf_counter() - began

    for _ in range(WARM_UPS):
        for place in places.values():
            answer(place)
    found: dict[str, list[float]] = {form: [] for form in places}
    began = time.perf_counter()
    for turn in range(REPEATS):
        if turn >= LEAST and time.perf_counter() - began > SECONDS:
            break
        for form in sorted(places, reverse=bool(turn % 2)):
            found[form].append(answer(places[form]))
    return {form: median(times) for form, times in found.items()}


def _asked(shape: ModelShape, batch: int, encoder_tokens: int) -> Asked:
    """Random states of the size of a final norm's, a mask whose end is padding, and random tokens in front."""
    random = np.random.default_rng(0)
    states = random.standard_normal((batch, encoder_tokens, shape.d_model), np.float32)
    mask = np.ones((batch, encoder_tokens), np.int32)
    mask[:, encoder_tokens - int(encoder_tokens * PADDED) :] = 0
    rest = random.integers(0, shape.vocab_size, (batch, shape.decoder_prefix_length - 1))
    prefixes = [[shape.decoder_start_token_id, *map(int, row)] for row in rest]
    return Asked(shape, states, mask, prefixes, logits=False)
