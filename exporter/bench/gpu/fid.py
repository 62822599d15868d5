"""The peer: fusion-in-decoder by Hugging Face in torch, BF16, as it is and compiled in two ways.

It is given token ids that are on the device already, so neither tokenising nor copying counts for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glimmer_export.exporter.bench.inputs import BenchQuestion

__all__ = ["MODES", "TorchFid", "load_t5"]

MODES = ("eager", "default", "reduce-overhead")
"""As it is with a growing cache; `torch.compile` with its defaults; a static cache with mode="reduce-overhead"."""


def load_t5(directory: Path, device: str) -> Any:
    """A T5 in BF16 on a device; it never stops at EOS."""
    import torch
    from transformers import T5ForConditionalGeneration

    model: Any = T5ForConditionalGeneration.from_pretrained(directory, local_files_only=True)
    model = model.to(device=device, dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None
    return model


class TorchFid:
    """One mode of a loaded T5, which modes share; `compiler` is torch.compile's backend."""

    def __init__(self, model: Any, mode: str, *, passages: int, answer_tokens: int, compiler: str = "inductor") -> None:
        import torch

        self._passages, self._answer_tokens, self._static = passages, answer_tokens, mode == "reduce-overhead"
        self._device = model.device
        self._model, self._encode = model, model.encoder
        if mode != "eager":
            options: dict[str, Any] = {"mode": mode, "backend": compiler}
            # A copy that shares every weight: `generate` calls its own `forward`.
            self._model = copy.copy(model)
            self._model.forward = torch.compile(model.forward, **options)
            self._encode = torch.compile(model.encoder, **options)

    def prepared(self, batch: Sequence[BenchQuestion]) -> Callable[[], list[list[int]]]:
        """What answers a batch whose ids are on the device already; all passages are encoded together."""
        import torch

        rows = [[*item.token_ids, *ids] for item in batch for ids in item.passage_ids[: self._passages]]
        ids = torch.tensor(rows, device=self._device)
        mask = torch.ones_like(ids)
        return lambda: self._answer(ids, mask, len(batch))

    def _answer(self, ids: Any, mask: Any, count: int) -> list[list[int]]:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        static = {"cache_implementation": "static", "disable_compile": True} if self._static else {}
        with torch.inference_mode():
            states = self._encode(input_ids=ids, attention_mask=mask).last_hidden_state
            if self._static:
                # A CUDA graph's output is overwritten by its next run.
                states = states.clone()
            generated = self._model.generate(
                encoder_outputs=BaseModelOutput(states.reshape(count, -1, states.shape[-1])),
                attention_mask=mask.reshape(count, -1), max_new_tokens=self._answer_tokens, do_sample=False,
                num_beams=1, **static,
            )
        tokens: list[list[int]] = generated[:, 1:].tolist()
        if any(len(row) != self._answer_tokens for row in tokens):
            raise RuntimeError(f"answers of {sorted({len(row) for row in tokens})} tokens, not {self._answer_tokens}")
        return tokens
