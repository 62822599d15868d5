"""Which graphs of a bundle get weights of few bits, and what their algorithm has to know of real questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.moments import Moments, collect_moments
from glimmer_export.calibration.quantize import WeightOnly
from glimmer_export.calibration.questions import Question
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    ACCURACY_LEVELS,
    BLOCK_SIZE,
    DECODER_PREFILL,
    DECODER_STEP,
    WEIGHT_ALGORITHMS,
    WEIGHT_BITS,
    OptionError,
    WeightOnlyEntry,
    stage_of,
)

__all__ = ["GPTQ", "WEIGHT_GRAPHS", "WeightOnlyOptions", "check_weight_only_options", "weights_of_graphs"]

GPTQ = "gptq"
WEIGHT_GRAPHS = (DECODER_STEP, DECODER_PREFILL)
"""Where weights of few bits pay: each is read for a few tokens. An encoder's products wait for arithmetic instead."""


@dataclass(frozen=True)
class WeightOnlyOptions:
    """`bits` a key of WEIGHT_BITS, `algorithm` one of WEIGHT_ALGORITHMS, `accuracy_level` one of ACCURACY_LEVELS.

    `graphs` are stages, None for the decoder's. `eight_bit` are regular expressions, beside the policy's, of what has 8
    bits among 4. GPTQ asks `questions` of `store` as `calibration` has it; the others ask none.
    """

    bits: str
    algorithm: str = WEIGHT_ALGORITHMS[0]
    accuracy_level: int = ACCURACY_LEVELS[0]
    graphs: tuple[str, ...] | None = None
    eight_bit: tuple[str, ...] = ()
    store: Path | None = None
    questions: Sequence[Question] = ()
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)

    def narrow(self) -> WeightOnly:
        """What becomes of a graph, without what was found by asking questions."""
        return WeightOnly(WEIGHT_BITS[self.bits], self.algorithm, self.accuracy_level, self.eight_bit)

    def entry(self, graphs: Sequence[str], eight_bit: Sequence[str]) -> WeightOnlyEntry:
        """How a manifest states it; `eight_bit` with the policy's."""
        return WeightOnlyEntry(
            tuple(graphs), WEIGHT_BITS[self.bits], BLOCK_SIZE, self.accuracy_level, self.algorithm, tuple(eight_bit)
        )


def check_weight_only_options(
    options: WeightOnlyOptions, stages: Sequence[str], *, precision: str, target: str
) -> None:
    """Raise OptionError for what does not go together; `stages` are those that the bundle has."""
    if target != "cpu":
        raise OptionError(
            "--weight-only",
            expected="--target cpu, whose ONNX Runtime has MatMulNBits; TensorRT takes weights of 4 bits otherwise, "
            "and from 10.14 on for a compute capability of 8.0 or more alone",
            found=f"--target {target}", fix="leave --weight-only out, or quantise for a CPU",
        )
    if "fp16" in precision:
        raise OptionError(
            "--weight-only", expected="--precision fp32 or int8 beside it", found=f"--precision {precision}",
            fix="choose one of these",
        )
    unknown = sorted(set(options.graphs or ()) - set(stages))
    if unknown:
        raise OptionError(
            "--weight-graphs", expected=f"some of {', '.join(stages)}", found=unknown[0], fix="choose from these"
        )
    if options.eight_bit and WEIGHT_BITS[options.bits] == 8:
        raise OptionError("--eight-bit", expected="--weight-only int4", found="int8", fix="leave it out")
    for pattern in options.eight_bit:
        try:
            re.compile(pattern)
        except re.error as error:
            raise OptionError(
                "--eight-bit", expected="a regular expression", found=f"{pattern!r}: {error}", fix="correct it"
            ) from None
    asks = options.algorithm == GPTQ
    if asks != bool(options.questions):
        raise OptionError(
            "--questions", expected="the questions that gptq is calibrated on" if asks else "none but for gptq",
            found="some" if options.questions else "none",
            fix="give those of `calibrate`, with --store, or choose another --algorithm" if asks else "leave it out",
        )


def weights_of_graphs(
    bundle: Bundle, names: Sequence[str], options: WeightOnlyOptions, *,
    on_question: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, WeightOnly]:
    """What becomes of each of these graphs that has weights of few bits, by its name.

    GPTQ runs the questions through the bundle here, and `on_question(done, count)` is called after each. Raises what
    `collect_moments` does.
    """
    chosen = [name for name in names if stage_of(name) in (options.graphs or WEIGHT_GRAPHS)]
    moments = _moments(bundle, chosen, options, on_question) if options.algorithm == GPTQ else {}
    return {name: replace(options.narrow(), moments=moments.get(name, {})) for name in chosen}


def _moments(
    bundle: Bundle, names: Sequence[str], options: WeightOnlyOptions, on_question: Callable[[int, int], None]
) -> Moments:
    from glimmer_export.calibration.passes.block_products import block_candidates
    from glimmer_export.calibration.passes.fold_weights import FoldWeights

    tensors = {}
    for name in names:
        model = load_graph(bundle.graph_path(name))
        FoldWeights()(model)
        tensors[name] = {str(linear.x.name) for linear in block_candidates(model.graph)}
    done = 0
    count = min(options.calibration.samples, len(options.questions))

    def advance(more: int) -> None:
        nonlocal done
        done += more
        on_question(done, count)

    return collect_moments(
        bundle.directory, options.store, options.questions, tensors, options.calibration, advance=advance
    )
