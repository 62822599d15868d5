"""Store codecs as small graphs of their own, which the exporter sets in front of the stages that read memory."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Fp16Decoder"]


class Fp16Decoder(nn.Module):
    """The fp16 codec: memory = codes * scale, with one power-of-two scale a passage."""

    def forward(self, memory: Tensor, memory_scale: Tensor) -> Tensor:
        """Codes (b, k, n_p, d_model) float16 and scale (b, k) float32 -> memory (b, k, n_p, d_model) float32."""
        return memory.float() * memory_scale[:, :, None, None]
