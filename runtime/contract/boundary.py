"""What goes from graph to graph in FP32, or in FP16 where a bundle says so.

Only what a final norm or a projection keeps small may: the encoder's normed states, keys and values. The residual
stream, in `question_states`, `memory`'s FP32 forms and `rerank_states`, may pass FP16's end in checkpoint units, and
scores, logits and log-probabilities are read by people.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.graph_io import GraphIO, IOTensor

__all__ = ["boundaries_of", "boundary_of", "check_boundaries", "with_fp16"]

STATES = "encoder_hidden_states"
PAST, PRESENT = "past_key_values.", "present."


def boundary_of(tensor: str) -> str | None:
    """The name between graphs of an input or output that may be FP16, such as `past_key_values.0.decoder.key`.

    What a decoder writes as `present.` it reads as `past_key_values.`. None for what has one type in every bundle.
    """
    if tensor == STATES or tensor.startswith(PAST):
        return tensor
    return f"{PAST}{tensor.removeprefix(PRESENT)}" if tensor.startswith(PRESENT) else None


def boundaries_of(graphs: Mapping[str, GraphIO]) -> dict[str, tuple[str, ...]]:
    """What may be FP16 between these graphs, with the graphs that read or write it, in their order."""
    found: dict[str, tuple[str, ...]] = {}
    for name, io in graphs.items():
        for tensor in (*io.inputs, *io.outputs):
            boundary = boundary_of(tensor.name)
            if boundary is not None and name not in found.get(boundary, ()):
                found[boundary] = (*found.get(boundary, ()), name)
    return found


def with_fp16(graphs: Mapping[str, GraphIO], boundaries: Collection[str]) -> dict[str, GraphIO]:
    """The same graphs with these boundaries in FP16, on all sides of them."""
    chosen = frozenset(boundaries)

    def typed(tensors: tuple[IOTensor, ...]) -> tuple[IOTensor, ...]:
        return tuple(
            replace(tensor, dtype="float16") if boundary_of(tensor.name) in chosen else tensor for tensor in tensors
        )

    return {name: GraphIO(typed(io.inputs), typed(io.outputs)) for name, io in graphs.items()}


def check_boundaries(boundaries: Collection[str], graphs: Mapping[str, GraphIO], *, subject: str, fix: str) -> None:
    """Raise BundleError naming one that these graphs have not or that may not be FP16, and one that is listed twice."""
    known = boundaries_of(graphs)
    for name in boundaries:
        if name not in known:
            raise BundleError(
                f"{subject}, fp16_boundaries", expected="the encoder's normed states, keys and values that it has",
                found=name[:80], fix=fix,
            )
    if len(set(boundaries)) != len(boundaries):
        raise BundleError(f"{subject}, fp16_boundaries", expected="each tensor once", found="one twice", fix=fix)
