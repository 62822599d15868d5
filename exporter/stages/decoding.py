"""The decoder's stages: a token and its draft at a time, over the encoder's states or keys and values projected once.

The self-attention cache has one length for all steps and is written from each row's own position on, so that every step
of an answer has the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from glimmer_export.exporter.stages.layers import masked_bias
from glimmer_export.exporter.stages.model import GlimmerModel

__all__ = ["CrossKV", "DecoderPrefill", "DecoderStep"]


class CrossKV(nn.Module):
    """Keys and values of the encoder's states, for every decoder layer."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoder_hidden_states: Tensor) -> tuple[Tensor, ...]:
        """(b, s, d_model) -> key and value of each layer in turn, (b, heads, s, d_kv)."""
        outputs: list[Tensor] = []
        for block in self.model.decoder.blocks():
            outputs.extend(block.cross_attention.EncDecAttention.key_value(encoder_hidden_states))
        return tuple(outputs)


class DecoderStep(nn.Module):
    """One greedy step: a token in, the next out, and what follows each token of its draft.

    `absorbed` says what it attends to: see `_run_blocks`. Without `takes_drafts` it is that of bundles of before schema
    10, whose logits have no axis for the positions of a draft.
    """

    def __init__(
        self, model: GlimmerModel, *, absorbed: bool, log_probability: bool = True, takes_drafts: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.absorbed, self.log_probability, self.takes_drafts = absorbed, log_probability, takes_drafts

    def forward(
        self, decoder_input_ids: Tensor, step: Tensor, encoder_attention_mask: Tensor, *caches: Tensor
    ) -> tuple[Tensor, ...]:
        """Take a token to the next, and each token of a draft behind it to the one that the model would choose there.

        decoder_input_ids (b, t), step (b,) the position that the first stands at, encoder_attention_mask (b, s);
        caches: the self-attention's key and value of each layer (b, heads, cache_length, d_kv), then what is attended
        to. Returns next_token (b, t) int32, logits (b, t, vocab), where wanted next_token's log-probability (b, t), and
        the self-attention's caches with these tokens written. Those that stand beyond cache_length are written nowhere,
        and what follows them means nothing.
        """
        batch, length = decoder_input_ids.shape
        depth = 2 * self.model.config.num_decoder_layers
        own, cross = caches[:depth], caches[depth:]
        key_positions = torch.arange(own[0].shape[2], dtype=torch.int32, device=step.device)
        place = key_positions - step.unsqueeze(1)  # in this run, of what the cache is to hold at each of its positions
        written = ((place >= 0) & (place < length))[:, None, :, None]
        first = torch.arange(batch, dtype=torch.int32, device=step.device).unsqueeze(1) * length
        rows = first + place.clamp(min=0).clamp(max=length - 1)

        def store(index: int, new: Tensor) -> Tensor:
            heads, d_kv = own[index].shape[1], own[index].shape[3]
            by_row = new.transpose(1, 2).reshape(-1, heads * d_kv)
            arranged = nn.functional.embedding(rows, by_row).unflatten(2, (heads, d_kv)).transpose(1, 2)
            return torch.where(written, arranged, own[index])

        offsets = torch.arange(length, dtype=torch.int32, device=step.device)
        hidden_states, present = _run_blocks(
            self.model, decoder_input_ids, step.unsqueeze(1) + offsets, key_positions, encoder_attention_mask, cross,
            store, absorbed=self.absorbed,
        )
        logits = self.model.logits(hidden_states.flatten(0, 1))  # rows of one matrix, however many positions there are
        if self.takes_drafts:
            logits = logits.unflatten(0, (batch, length))
        chosen = _next_token(logits, log_probability=self.log_probability, keepdim=not self.takes_drafts)
        return (*chosen, *present)


class DecoderPrefill(nn.Module):
    """MemoryFiD's first pass: the start token and the question together (LUMEN paper, section 3)."""

    def __init__(self, model: GlimmerModel, *, absorbed: bool, log_probability: bool = True) -> None:
        super().__init__()
        self.model = model
        self.absorbed, self.log_probability = absorbed, log_probability

    def forward(
        self, decoder_input_ids: Tensor, step: Tensor, encoder_attention_mask: Tensor, *cross: Tensor
    ) -> tuple[Tensor, ...]:
        """Take a prefix to its first answer token.

        decoder_input_ids (b, n) padded on the right, step (b,) the position of each row's last token; cross: as in a
        step. Returns what a step returns, the caches filled up to cache_length; what padding wrote past a row's own
        step is overwritten before it is ever attended to.
        """
        batch, length = decoder_input_ids.shape
        cache_length = self.model.config.shape.cache_length
        key_positions = torch.arange(cache_length, dtype=torch.int32, device=step.device)
        positions = torch.arange(length, dtype=torch.int32, device=step.device).unsqueeze(0)

        def store(_index: int, new: Tensor) -> Tensor:
            return nn.functional.pad(new, (0, 0, 0, cache_length - length))

        hidden_states, present = _run_blocks(
            self.model, decoder_input_ids, positions, key_positions, encoder_attention_mask, cross, store,
            absorbed=self.absorbed,
        )
        last = step + torch.arange(batch, dtype=torch.int32, device=step.device) * length
        rows = hidden_states.flatten(0, 1).index_select(0, last)
        return (*_next_token(self.model.logits(rows), log_probability=self.log_probability, keepdim=True), *present)


def _run_blocks(
    model: GlimmerModel,
    decoder_input_ids: Tensor,
    positions: Tensor,
    key_positions: Tensor,
    encoder_attention_mask: Tensor,
    cross: Sequence[Tensor],
    store: Callable[[int, Tensor], Tensor],
    *,
    absorbed: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Tokens (b, t) at positions (b or 1, t) through all blocks, attending to the cache that `store` extends.

    `store(index, new)` puts new keys or values (b, heads, t, d_kv) into cache number `index` and returns it whole.
    `cross` is the encoder's states (b, s, d_model) where `absorbed`, else each layer's key and value of them.
    """
    hidden_states = model.shared(decoder_input_ids)
    bias = model.decoder.relative_bias(positions, key_positions)
    self_bias = masked_bias(bias, (key_positions <= positions.unsqueeze(-1)).unsqueeze(1))
    cross_bias = model.cross_bias(encoder_attention_mask, positions, hidden_states.dtype)
    present: list[Tensor] = []
    for layer, block in enumerate(model.decoder.blocks()):
        attention = block.self_attention.SelfAttention
        normed = block.self_attention.layer_norm(hidden_states)
        new_key, new_value = attention.key_value(normed)
        key, value = store(2 * layer, new_key), store(2 * layer + 1, new_value)
        present += [key, value]
        hidden_states = hidden_states + attention.attend(attention.query(normed), key, value, self_bias)
        if absorbed:
            hidden_states = block.cross_attention.absorbed(hidden_states, cross[0], cross_bias)
        else:
            hidden_states = block.cross_attention(hidden_states, cross[2 * layer], cross[2 * layer + 1], cross_bias)
        hidden_states = block.feed_forward(hidden_states)
    return hidden_states, present


def _next_token(logits: Tensor, *, log_probability: bool, keepdim: bool) -> tuple[Tensor, ...]:
    """Logits (..., vocab) -> greedy next_token int32, the logits, and what it was chosen by; (...), or (..., 1).

    The token chosen is the one of the greatest logit, so its log-probability is minus the log of the sum of
    exp(logit - greatest), which lies from 1 to the vocabulary's size: nothing overflows, whatever the logits are. It is
    written out, as ONNX-TensorRT makes of ReduceLogSumExp a sum that subtracts nothing first.
    """
    next_token = logits.argmax(-1, keepdim=keepdim).int()
    if not log_probability:
        return next_token, logits
    below = logits - logits.amax(-1, keepdim=True)
    return next_token, logits, -below.exp().sum(-1, keepdim=keepdim).log()
