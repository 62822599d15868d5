"""What stands in front of the stages that read memory: a store codec's decoder, and the selection of passages.

Each is a graph of its own, which the exporter merges in front of a stage. Decoding uses operators that every target has
for tensors of any rank: Cast, Mul, Add, Sub, Floor, Concat, Reshape and Gather.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn

from glimmer_export.runtime.codecs import CODECS, CodecLayout, codec_layout
from glimmer_export.runtime.codecs.contract import MEMORY_SCALE, GraphDecode
from glimmer_export.runtime.contract import ExportError

__all__ = ["CodecDecoder", "SelectedMemory", "graph_decode", "take_selected"]


class CodecDecoder(nn.Module):
    """A codec's tensors -> memory, as runtime/codecs decodes them in numpy.

    `scaled=False` leaves out `memory_scale`, for a stage that applies it to something smaller. Raises ExportError for a
    codec that was registered without `graph_decode`.
    """

    def __init__(self, codec: str, d_model: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.layout = codec_layout(codec, d_model)
        self.decode = graph_decode(codec)
        self.scaled = scaled
        self.names = tensor_names(self.layout, scaled=scaled)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The codec's tensors (b, k, ...), its arrays behind them -> memory (b, k, n_p, d_model) float32."""
        values = dict(zip(self.names, tensors, strict=True))
        states: Tensor = self.decode(self.layout, values)
        return states * scale_of(values[MEMORY_SCALE]) if self.scaled else states


class SelectedMemory(nn.Module):
    """Takes the selected passages out of the k while they are still codes, then decodes them alone."""

    def __init__(self, decoder: CodecDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.num_arrays = len(decoder.layout.arrays)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Codec tensors (b, k, ...), arrays, memory_mask (b, k, n_p), selected (b, m) int32 -> memory of these, mask.

        The memory (b, m, n_p, d_model) is float32, the mask (b, m, n_p) int32.
        """
        *codes, memory_mask, selected = tensors
        end = len(codes) - self.num_arrays
        # TensorRT takes bytes at a graph's boundary alone, and casts them to nothing but floats.
        movable = [tensor.float() if tensor.dtype == torch.uint8 else tensor for tensor in codes[:end]]
        *taken, mask = take_selected(selected, *movable, memory_mask)
        return self.decoder(*taken, *codes[end:]), mask


def graph_decode(name: str) -> GraphDecode:
    """How a registered codec is decoded in a graph; raises ExportError for one that was registered without it."""
    codec = CODECS[name]
    if codec.module is not None:
        own: GraphDecode = import_module(f"{__package__}.{codec.module}").decode
        return own
    if codec.graph_decode is None:
        raise ExportError(
            f"codec {name}", expected="one that a graph can decode", found="one registered without `graph_decode`",
            fix="register it with that",
        )
    return codec.graph_decode


def tensor_names(layout: CodecLayout, *, scaled: bool) -> tuple[str, ...]:
    """What a decoder takes, in the order of the graphs' inputs."""
    names = [tensor.name for part in (layout.per_token, layout.per_passage, layout.arrays) for tensor in part]
    return tuple(name for name in names if scaled or name != MEMORY_SCALE)


def scale_of(memory_scale: Tensor) -> Tensor:
    """A scale for all (1,), a passage (b, k) or a token (b, k, n_p), as it is multiplied with (b, k, n_p, d_model)."""
    if memory_scale.dim() == 1:
        return memory_scale
    return memory_scale.unsqueeze(-1) if memory_scale.dim() == 3 else memory_scale[:, :, None, None]


def take_selected(selected: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows `selected` (b, m) int32 of tensors (b, k, ...) -> (b, m, ...)."""
    batch, passages = tensors[0].shape[0], tensors[0].shape[1]
    first = torch.arange(batch, dtype=torch.int32, device=selected.device).unsqueeze(1) * passages
    # index_select becomes Gather; indexing with an int32 tensor becomes a GatherND that not every runtime takes.
    rows = (selected + first).flatten()
    return tuple(
        tensor.flatten(0, 1).index_select(0, rows).unflatten(0, (batch, selected.shape[1])) for tensor in tensors
    )
