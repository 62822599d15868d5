"""What stands in front of the stages that read memory: a store codec's decoder, and the selection of passages.

Each is a graph of its own, which the exporter merges in front of a stage.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Fp16Codes", "Fp16Decoder", "SelectedMemory", "take_selected"]


class Fp16Codes(nn.Module):
    """The fp16 codec up to its scale, for a stage that applies the scale to something smaller."""

    def forward(self, memory: Tensor) -> Tensor:
        """Codes (b, k, n_p, d_model) float16 -> the same in float32."""
        return memory.float()


class Fp16Decoder(nn.Module):
    """The fp16 codec: memory = codes * scale, with one power-of-two scale a passage."""

    def forward(self, memory: Tensor, memory_scale: Tensor) -> Tensor:
        """Codes (b, k, n_p, d_model) float16 and scale (b, k) float32 -> memory (b, k, n_p, d_model) float32."""
        return memory.float() * memory_scale[:, :, None, None]


class SelectedMemory(nn.Module):
    """Takes the selected passages out of the k while they are still codes, then decodes them alone."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Codec tensors (b, k, ...), memory_mask (b, k, n_p), selected (b, m) -> memory (b, m, n_p, d) and its mask."""
        *codes, memory_mask, selected = tensors
        taken = take_selected(selected, *codes, memory_mask)
        return self.decoder(*taken[:-1]), taken[-1]


def take_selected(selected: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows `selected` (b, m) int32 of tensors (b, k, ...) -> (b, m, ...)."""
    batch, passages = tensors[0].shape[0], tensors[0].shape[1]
    first = torch.arange(batch, dtype=torch.int32, device=selected.device).unsqueeze(1) * passages
    # index_select becomes Gather; indexing with an int32 tensor becomes a GatherND that not every runtime takes.
    rows = (selected + first).flatten()
    return tuple(
        tensor.flatten(0, 1).index_select(0, rows).unflatten(0, (batch, selected.shape[1])) for tensor in tensors
    )
