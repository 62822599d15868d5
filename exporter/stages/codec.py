"""What stands in front of the stages that read memory: a store codec's decoder, and the selection of passages.

Each is a graph of its own, which the exporter merges in front of a stage. Decoding uses operators that every target has
for tensors of any rank: Cast, Mul, Add, Sub, Floor, Concat, Reshape and Gather.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from glimmer_export.runtime.contract import CodecLayout, codec_layout
from glimmer_export.runtime.contract.codec_layout import CODE_ZERO, GROUP_CHANNELS

__all__ = ["CodecDecoder", "SelectedMemory", "take_selected"]


class CodecDecoder(nn.Module):
    """A codec's tensors -> memory, as runtime/codecs decodes them in numpy.

    `scaled=False` leaves out `memory_scale`, for a stage that applies it to something smaller.
    """

    def __init__(self, codec: str, d_model: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.layout = codec_layout(codec, d_model)
        self.scaled = scaled
        self.names = tensor_names(self.layout, scaled=scaled)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The codec's tensors (b, k, ...), its arrays behind them -> memory (b, k, n_p, d_model) float32."""
        values = dict(zip(self.names, tensors, strict=True))
        states = _UNSCALED[self.layout.name](values)
        return states * scale_of(values["memory_scale"]) if self.scaled else states


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


def tensor_names(layout: CodecLayout, *, scaled: bool) -> tuple[str, ...]:
    """What a decoder takes, in the order of the graphs' inputs."""
    names = [tensor.name for part in (layout.per_token, layout.per_passage, layout.arrays) for tensor in part]
    return tuple(name for name in names if scaled or name != "memory_scale")


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


def _fp16(values: Mapping[str, Tensor]) -> Tensor:
    return values["memory"].float()


def _int8(values: Mapping[str, Tensor]) -> Tensor:
    return (values["memory"].float() - CODE_ZERO) * values["memory_channel_scale"]


def _int4(values: Mapping[str, Tensor]) -> Tensor:
    """Channel j is the low half of byte j, channel j + half the high half."""
    packed = values["memory"].float()
    high = torch.floor(packed * (1 / 16))
    nibbles = torch.cat([packed - high * 16, high], dim=-1) - 7.5
    groups = values["memory_group_scale"].float().unsqueeze(-1)
    grouped = (nibbles.unflatten(-1, (-1, GROUP_CHANNELS)) * groups).flatten(-2)
    both = torch.cat([grouped, values["memory_outliers"].float() - CODE_ZERO], dim=-1)
    return both.index_select(-1, values["memory_channel_order"]) * values["memory_channel_scale"]


def _pq(values: Mapping[str, Tensor]) -> Tensor:
    codebook = values["memory_codebook"]
    stages, groups, centroids, width = codebook.shape
    codes = values["memory"].float().int()
    # One table of all centroids; a stage reads its own codes, so that no more than one stage's values are held.
    table = codebook.reshape(stages * groups * centroids, width)
    places = torch.arange(stages * groups, dtype=torch.int32, device=codes.device).reshape(stages, groups)

    def values_of(stage: Tensor) -> Tensor:
        return table.index_select(0, (codes.index_select(-1, stage) + stage * centroids).flatten())

    return reduce(torch.add, map(values_of, places)).reshape(*codes.shape[:-1], groups * width)


_UNSCALED: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "fp16": _fp16, "int8": _int8, "int4": _int4, "pq8x": _pq, "pq16x": _pq,
}
