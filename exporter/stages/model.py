"""The whole model in torch: one module that holds the weights by name and composes the stages.

The graph stages (encoding.py, lazy.py, decoding.py) are cut from it. What runs it whole goes through `encode` or
`encode_texts`: the parity reference, the demo and its training, and the model that transformers opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.stages.decoder import DecoderStack
from glimmer_export.exporter.stages.encoder import EncoderStack
from glimmer_export.exporter.stages.layers import Dropout, in_full_precision, masked_bias
from glimmer_export.exporter.stages.stack import Stack

__all__ = ["Encoded", "GlimmerModel", "Masked", "cascade_scores"]


class Masked(NamedTuple):
    """Token ids (..., n), or states (..., n, d_model), with their mask (..., n), 1 where a token counts."""

    values: Tensor
    mask: Tensor


class Encoded(NamedTuple):
    """What the decoder reads of a question's passages, and how they were chosen.

    states (b, s, d_model) and mask (b, s). Where the architecture ranks: scores (b, k), -inf for absent passages; the
    places `selected` (b, m) int64, ascending; and `reranked` (b, k, n, d_model), the un-normalised states of all k
    that stage B goes on from: those behind stage A, or question and memory beside a separate reranker.

    `levels` are the scores (b, k) of all k by each head, which training draws to the answer's likelihood: the
    shortlist's and stage A's in a cascade, whose `scores` are `cascade_scores` of the two; else none.
    """

    states: Tensor
    mask: Tensor
    scores: Tensor | None = None
    selected: Tensor | None = None
    reranked: Tensor | None = None
    levels: tuple[Tensor, ...] = ()


class GlimmerModel(nn.Module):
    """LUMEN, GLIMMER, MemoryFiD or FiD (GLIMMER paper, section 3), as `config.architecture` says.

    Parameters are allocated, not initialised: load a state dict. Masks are 1 where a token counts.

    For training there are T5's dropout (`set_dropout`, in training mode alone) and `set_gradient_checkpointing`. Under
    torch.autocast in BF16 the residual stream, the norms, attention's softmax, `wo` and the score head stay in FP32.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        traits = config.shape.traits
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        if traits.has_memory:
            self.memory_encoder = EncoderStack(config, config.num_memory_layers, final_norm=config.memory_final_norm)
        if config.separate_question_encoder:
            self.question_encoder = EncoderStack(config, config.num_memory_layers, final_norm=config.memory_final_norm)
        self.live_encoder = EncoderStack(config, config.num_live_layers, final_norm=True)
        if config.separate_reranker:
            self.reranker = EncoderStack(config, config.num_stage_a_layers, final_norm=False)
        if traits.selects:
            self.score = nn.Linear(config.d_model, 1)
        if config.num_shortlisted is not None:
            self.shortlist_score = nn.Linear(config.d_model, 1)
        self.decoder = DecoderStack(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @classmethod
    def of_children(cls, owner: nn.Module, config: CheckpointConfig) -> GlimmerModel:
        """The model whose parts are another module's children: those that it has now, and what takes their place."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.config, model.training = config, owner.training
        model._modules = owner._modules  # noqa: SLF001  # the one dictionary: a weight stands in one place
        return model

    def set_dropout(self, rate: float) -> None:
        """Drop this share wherever T5 does, in every stack: while the model, or a part of it, is in training mode.

        That is behind the embedding, of attention's weights, inside the feed-forward layer, of what each layer adds to
        the residual stream, and behind a final norm. A stack that has none, as memory encoders by default, ends where
        T5's was cut between two blocks, and drops nothing there; nor is anything dropped of memory read from a store.
        """
        for module in self.modules():
            if isinstance(module, Dropout):
                module.p = rate

    def set_gradient_checkpointing(self, enabled: bool) -> None:  # noqa: FBT001  # as nn.Module.requires_grad_
        """Keep each layer's inputs alone for the backward pass, which computes the rest again; the same gradients."""
        for module in self.modules():
            if isinstance(module, Stack):
                module.gradient_checkpointing = enabled

    def encode_memory(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Memory of passages (GLIMMER paper, section 3.1): (r, n) ids and mask -> (r, n, d_model)."""
        return self._encode(self.memory_encoder, input_ids, attention_mask)

    def encode_question(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Question states, by the memory encoder unless the question has its own: (b, n) -> (b, n, d_model)."""
        separate = self.config.separate_question_encoder
        return self._encode(self.question_encoder if separate else self.memory_encoder, input_ids, attention_mask)

    def encode(self, question: Masked, memory: Masked, num_selected: int | None) -> Encoded:
        """A question and its passages' memory, every layer in full (GLIMMER paper, section 3); not for `fid`.

        Question ids (b, n_q), memory (b, k, n_p, d_model), and m: the best by score are read in retrieval order, the
        earlier of two equal ones first. None or more than k reads all k, as architectures that do not rank always do.
        """
        traits = self.config.shape.traits
        if not traits.encodes_question:
            return Encoded(self.live_encoder.finish(memory.values).flatten(1, 2), memory.mask.flatten(1))
        states = self.encode_question(*question)
        if not traits.selects:
            return Encoded(*self.read(self.join(states, memory.values), question.mask, memory.mask))
        scores, reranked, shortlist = self._rank(states, question.mask, *memory)
        ranking = scores
        levels: tuple[Tensor, ...] = ()
        if self.config.separate_reranker:
            reranked = self.join(states, memory.values)
        if shortlist is not None:
            levels = shortlist, scores
            scores, ranking = self._cascaded(shortlist, scores, num_selected)
        best = torch.sort(-ranking.detach(), dim=1, stable=True).indices[:, :num_selected]
        selected = torch.sort(best, dim=1).values
        rows = torch.arange(len(selected), device=selected.device)[:, None]
        read = self.read(reranked[rows, selected], question.mask, memory.mask[rows, selected])
        return Encoded(*read, scores, selected, reranked, levels)

    def _cascaded(self, shortlist: Tensor, scores: Tensor, num_selected: int | None) -> tuple[Tensor, Tensor]:
        """`cascade_scores` (b, k) of as many passages as are read at least, and what of them may be read, else -inf."""
        num_passages = scores.shape[1]
        most = max(self.config.num_shortlisted or num_passages, num_selected or num_passages)
        scores, dropped = cascade_scores(shortlist, scores, most)
        return scores, scores.masked_fill(dropped, -torch.inf)

    def encode_texts(self, question: Masked, passages: Masked, num_selected: int | None) -> Encoded:
        """`encode` from passages' ids (b, k, n_p), whose memory is encoded on the spot; for every architecture.

        Where question and passage are joined in one text, that text is what `passages` holds.
        """
        if not self.config.shape.traits.has_memory:
            joined = self._joined(question, passages)
            return Encoded(self.encode_joined(*joined).flatten(1, 2), joined.mask.flatten(1))
        memory = self.encode_memory(passages.values.flatten(0, 1), passages.mask.flatten(0, 1))
        memory = memory.unflatten(0, passages.values.shape[:2])
        return self.encode(question, Masked(memory, passages.mask), num_selected)

    def stage_a(
        self, question_states: Tensor, question_mask: Tensor, memory: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The layers that rank (GLIMMER paper, section 3.2): the first live ones, or the separate reranker's.

        question_states (b, n_q, d_model), memory (b, k, n_p, d_model) and their masks -> scores (b, k), -inf for a
        passage that is all masked, and the un-normalised rerank_states (b, k, n_q + n_p, d_model).
        """
        scores, states, _ = self._rank(question_states, question_mask, memory, memory_mask)
        return scores, states

    def _rank(
        self, question_states: Tensor, question_mask: Tensor, memory: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """`stage_a`, and in a cascade the shortlist's scores (b, k) behind its first layer."""
        states, shortlist, done = self.join(question_states, memory), None, 0
        if self.config.num_shortlisted is not None:
            states, done = self.rank_layers(states, question_mask, memory_mask, slice(0, 1)), 1
            shortlist = self.scores(states[:, :, 0], memory_mask, self.shortlist_score)
        states = self.rank_layers(states, question_mask, memory_mask, slice(done, self.config.num_stage_a_layers))
        if self.config.score_pooling == "first":
            pooled = states[:, :, 0]
        else:
            mask = self.joint_mask(question_mask, memory_mask).unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(2) / mask.sum(2).clamp(min=1)
        return self.scores(pooled, memory_mask), states, shortlist

    def scores(self, pooled: Tensor, memory_mask: Tensor, head: nn.Module | None = None) -> Tensor:
        """A score head, stage A's unless another is given: (b, k, d_model) -> (b, k), -inf where all is masked."""
        scores = in_full_precision(self.score if head is None else head, pooled).squeeze(-1)
        return scores.masked_fill(memory_mask.amax(-1) == 0, -torch.inf)

    def stage_b(
        self, states: Tensor, question_mask: Tensor, memory_mask: Tensor, first_layer: int | None = None
    ) -> Tensor:
        """The live layers from `first_layer` on and the final norm: (b, m, n_q + n_p, d_model) -> the same shape.

        By default the layers behind those that stage A ran; a lazy stage A leaves its last layer to stage B.
        """
        first_layer = self.config.num_shared_layers if first_layer is None else first_layer
        return self.live_encoder.finish(self.live_layers(states, question_mask, memory_mask, slice(first_layer, None)))

    def read(
        self, states: Tensor, question_mask: Tensor, memory_mask: Tensor, first_layer: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """`stage_b` as the decoder reads it: passage behind passage, states (b, m * n, d_model) and mask (b, m * n).

        A passage that is all masked is not read, nor is its copy of the question.
        """
        encoded = self.stage_b(states, question_mask, memory_mask, first_layer)
        return encoded.flatten(1, 2), self.readable_mask(question_mask, memory_mask).flatten(1)

    def encode_joined(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """FiD's encoder, question and passage text together: (b, k, n) ids and mask -> (b, k, n, d_model)."""
        states = self._encode(self.live_encoder, input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
        unflattened: Tensor = states.unflatten(0, (input_ids.shape[0], input_ids.shape[1]))
        return unflattened

    def decode(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_mask: Tensor,
        decoder_mask: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced decoder: ids (b, t) over states (b, s, d_model) and mask (b, s) -> logits (b, t, vocab).

        Where decoder_mask (b, t) is 0 there is padding that no later token attends to, as on the left of an answer.
        """
        hidden_states, self_bias, cross_bias = self._decoder_inputs(decoder_input_ids, encoder_mask, decoder_mask)
        for block in self.decoder.blocks():
            # Keys and values inside what is checkpointed: of many passages they are most of a layer's activations.
            hidden_states = self.decoder.run(block, hidden_states, encoder_hidden_states, self_bias, cross_bias)
        return self.logits(hidden_states)

    def cross_key_values(self, encoder_hidden_states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (b, heads, s, d_kv) of states (b, s, d_model), for each decoder layer."""
        return [
            block.cross_attention.EncDecAttention.key_value(encoder_hidden_states) for block in self.decoder.blocks()
        ]

    def decode_over(
        self, decoder_input_ids: Tensor, key_values: Sequence[tuple[Tensor, Tensor]], encoder_mask: Tensor
    ) -> Tensor:
        """`decode` over keys and values that are at hand: ids (b, t) and mask (b, s) -> logits (b, t, vocab)."""
        hidden_states, self_bias, cross_bias = self._decoder_inputs(decoder_input_ids, encoder_mask)
        for block, (key, value) in zip(self.decoder.blocks(), key_values, strict=True):
            hidden_states = block.over(hidden_states, key, value, self_bias, cross_bias)
        return self.logits(hidden_states)

    def _decoder_inputs(
        self, decoder_input_ids: Tensor, encoder_mask: Tensor, decoder_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded tokens (b, t, d_model), causal bias (b or 1, heads, t, t) and `cross_bias`."""
        hidden_states = self.decoder.dropout(self.shared(decoder_input_ids))
        positions = torch.arange(decoder_input_ids.shape[1], dtype=torch.int32, device=decoder_input_ids.device)
        keep = positions <= positions[:, None]
        if decoder_mask is not None:
            keep = keep & (decoder_mask[:, None, None, :] > 0)
        self_bias = masked_bias(self.decoder.relative_bias(positions, positions).unsqueeze(0), keep)
        return hidden_states, self_bias, self.cross_bias(encoder_mask, positions, hidden_states.dtype)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """The decoder's final norm and vocabulary projection: (..., d_model) -> (..., vocab)."""
        hidden_states = self.decoder.finish(hidden_states)
        if self.config.tie_word_embeddings:
            # T5 v1.0 scales what meets the tied embedding, as the embedding itself was never scaled down.
            return nn.functional.linear(hidden_states * self.config.d_model**-0.5, self.shared.weight)
        projected: Tensor = self.lm_head(hidden_states)
        return projected

    def join(self, question_states: Tensor, memory: Tensor) -> Tensor:
        """H_i = [QEnc(Q); M_i]: (b, n_q, d) and (b, k, n_p, d) -> (b, k, n_q + n_p, d)."""
        question = question_states.unsqueeze(1).expand(-1, memory.shape[1], -1, -1)
        return torch.cat([question, memory], dim=2)

    def joint_mask(self, question_mask: Tensor, memory_mask: Tensor) -> Tensor:
        """Masks of question (b, n_q) and passages (b, k, n_p), side by side: (b, k, n_q + n_p)."""
        return torch.cat([question_mask.unsqueeze(1).expand(-1, memory_mask.shape[1], -1), memory_mask], dim=2)

    def readable_mask(self, question_mask: Tensor, memory_mask: Tensor) -> Tensor:
        """What the decoder may attend: the joint mask, less the question's copy of a passage that is all masked."""
        present = memory_mask.amax(-1, keepdim=True)
        return self.joint_mask(question_mask, memory_mask) * present

    def cross_bias(self, encoder_mask: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Bias of the decoder's cross-attention: encoder_mask (b, s) -> (b, 1, 1, s), which no position changes.

        With `cross_attention_bias` it is (b, heads, t, s), for tokens at positions (t,) or (b or 1, t) int32: the key
        at place j of the flattened passages stands at position j, whichever passage it is of.
        """
        keep = encoder_mask[:, None, None, :] > 0
        if not self.config.cross_attention_bias:
            return masked_bias(torch.zeros((), dtype=dtype, device=encoder_mask.device), keep)
        keys = torch.arange(encoder_mask.shape[1], dtype=torch.int32, device=encoder_mask.device)
        return masked_bias(self.decoder.cross_relative_bias(positions, keys), keep)

    def _joined(self, question: Masked, passages: Masked) -> Masked:
        """What FiD encodes: a question's block in front of each passage, or the texts that hold both already.

        A passage that is all masked is not read, nor is its copy of the question.
        """
        length = self.config.passage_length
        if self.config.question_layout == "block":
            padding = self.config.question_length - question.mask.shape[1]
            blocks = (nn.functional.pad(values, (0, padding)).unsqueeze(1) for values in question)
            pairs = zip(blocks, passages, strict=True)
            ids, mask = (torch.cat([block.expand(-1, text.shape[1], -1), text], 2) for block, text in pairs)
            return Masked(ids, mask * passages.mask.amax(-1, keepdim=True))
        if self.config.cross_attention_bias and passages.mask.shape[2] < length:
            # As FiD pads: the place of a key among all passages' tells there, whatever the longest of these.
            return Masked(*(nn.functional.pad(values, (0, length - values.shape[2])) for values in passages))
        return passages

    def _encode(self, stack: EncoderStack, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], dtype=torch.int32, device=input_ids.device)
        embedded = stack.dropout(self.shared(input_ids))
        return stack.finish(stack(embedded, stack.bias(positions, attention_mask)))

    def live_positions(self, num_question: int, num_passage: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions (n_q,) and (n_p,) int32 of question and passage tokens in the live encoder.

        The question block is question_length positions wide however short the question was cut, so that cutting
        padding off either side changes no relative position.
        """
        question = torch.arange(num_question, dtype=torch.int32, device=device)
        return question, torch.arange(num_passage, dtype=torch.int32, device=device) + self.config.question_length

    def live_layers(self, states: Tensor, question_mask: Tensor, memory_mask: Tensor, layers: slice) -> Tensor:
        """Run some of the live layers, without the final norm: (b, k, n_q + n_p, d_model) -> the same shape."""
        return self._joint_layers(self.live_encoder, states, question_mask, memory_mask, layers)

    def rank_layers(self, states: Tensor, question_mask: Tensor, memory_mask: Tensor, layers: slice) -> Tensor:
        """The same with the stack that ranks."""
        return self._joint_layers(self.ranking_stack, states, question_mask, memory_mask, layers)

    @property
    def ranking_stack(self) -> EncoderStack:
        """The stack whose first layers are stage A: the separate reranker, or the live encoder."""
        return self.reranker if self.config.separate_reranker else self.live_encoder

    def _joint_layers(
        self, stack: EncoderStack, states: Tensor, question_mask: Tensor, memory_mask: Tensor, layers: slice
    ) -> Tensor:
        if not len(stack.block):
            return states
        positions = torch.cat(self.live_positions(question_mask.shape[1], memory_mask.shape[2], states.device))
        mask = self.joint_mask(question_mask, memory_mask).flatten(0, 1)
        output = stack(states.flatten(0, 1), stack.bias(positions, mask), layers)
        unflattened: Tensor = output.unflatten(0, (states.shape[0], states.shape[1]))
        return unflattened


def cascade_scores(shortlist: Tensor, scores: Tensor, num_shortlisted: int) -> tuple[Tensor, Tensor]:
    """Scores of k passages by a cascade, and which of them it dropped, both (b, k).

    The best `num_shortlisted` by `shortlist` (b, k), of equal ones the earlier, keep their `scores` (b, k) by all of
    stage A. The others keep their order below these: by as much as the shortlist has them below the last that it kept.
    Absent passages are -inf in all three, and are not dropped where there is room for them.
    """
    if scores.shape[1] <= num_shortlisted:
        return scores, torch.zeros_like(scores, dtype=torch.bool)
    order = torch.sort(-shortlist.detach(), dim=1, stable=True).indices
    dropped = torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :num_shortlisted], False)
    least = [
        values.masked_fill(dropped | values.isinf(), torch.inf).amin(1, keepdim=True) for values in (scores, shortlist)
    ]
    return torch.where(dropped & ~shortlist.isinf(), least[0] + (shortlist - least[1]), scores), dropped
