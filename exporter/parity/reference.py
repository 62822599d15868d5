"""The reference: the torch checkpoint answering a question, with nothing taken from the graphs or the runtime's loop.

Lengths are padded to the model's own, every layer runs in full, and the decoder has no cache. Its stages also stand in
the place of graphs, so that it can be observed, and mixed with a bundle's graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import Forms, GraphIO, codec_of, graph_io, stage_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["ReferenceAnswer", "TorchReference", "graphs_from_model"]


@dataclass(frozen=True)
class ReferenceAnswer:
    """Answer tokens without EOS; scores (k,) and the selected positions where the architecture ranks.

    `margins`: by step, EOS's included, how far the best logit stood above the next. `log_probability`: of the tokens
    that were chosen, EOS's included, by torch's log_softmax.
    """

    tokens: list[int]
    scores: NDArray[np.float32] | None
    selected: list[int] | None
    margins: list[float] = field(default_factory=list)
    log_probability: float = 0.0


class TorchReference:
    """Answers with the torch model, one question at a time."""

    def __init__(self, model: GlimmerModel) -> None:
        self.model = model
        self._config = model.config
        self._traits = model.config.shape.traits

    def memory(self, passages: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Memory of tokenised passages, each (tokens, d_model) float32, encoded together."""
        import torch

        ids, mask = self._padded(passages, self._config.passage_length)
        with torch.inference_mode():
            states = self.model.encode_memory(ids, mask)
        return [states[row, : len(passage)].numpy() for row, passage in enumerate(passages)]

    def answer(
        self,
        question: Sequence[int],
        passages: Sequence[Sequence[int]],
        memory: Sequence[NDArray[np.float32]] | None,
        num_selected: int | None,
    ) -> ReferenceAnswer:
        """Answer one tokenised question from tokenised passages and their memory (None where there is none).

        The passages hold the question too where the model joins them in one text.
        """
        import torch

        with torch.inference_mode():
            if memory is None:
                return self._decode(question, *self._encode_joined(question, passages))
            return self._answer_from_memory(question, memory, num_selected)

    def _answer_from_memory(
        self, question: Sequence[int], memory: Sequence[NDArray[np.float32]], num_selected: int | None
    ) -> ReferenceAnswer:
        import torch

        length = self._config.passage_length
        states = torch.zeros(1, len(memory), length, self._config.d_model)
        mask = torch.zeros(1, len(memory), length, dtype=torch.int32)
        for place, passage in enumerate(memory):
            states[0, place, : len(passage)] = torch.from_numpy(passage)
            mask[0, place, : len(passage)] = 1
        if not self._traits.encodes_question:
            normed = self.model.live_encoder.final_layer_norm(states)
            return self._decode(question, normed.flatten(1, 2), mask.flatten(1))
        question_ids, question_mask = self._padded([question], self._config.question_length)
        question_states = self.model.encode_question(question_ids, question_mask)
        if not self._traits.selects:
            encoded = self.model.stage_b(self.model.join(question_states, states), question_mask, mask)
            readable = self.model.readable_mask(question_mask, mask)
            return self._decode(question, encoded.flatten(1, 2), readable.flatten(1))
        scores, reranked = self.model.stage_a(question_states, question_mask, states, mask)
        ranking = sorted(range(len(memory)), key=lambda place: -float(scores[0, place]))
        selected = sorted(ranking[:num_selected])
        encoded = self.model.stage_b(reranked[:, selected], question_mask, mask[:, selected])
        readable = self.model.readable_mask(question_mask, mask[:, selected])
        answer = self._decode(question, encoded.flatten(1, 2), readable.flatten(1))
        return replace(answer, scores=scores[0].numpy(), selected=selected)

    def _encode_joined(
        self, question: Sequence[int], passages: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        import torch

        ids, mask = self._padded(passages, self._config.passage_length)
        if self._config.question_layout == "joined":
            return self.model.encode_joined(ids[None], mask[None]).flatten(1, 2), mask.flatten()[None]
        question_ids, question_mask = self._padded([question], self._config.question_length)
        count = len(passages)
        joined = torch.cat([question_ids.expand(count, -1), ids], 1).unsqueeze(0)
        joined_mask = torch.cat([question_mask.expand(count, -1), mask], 1).unsqueeze(0)
        return self.model.encode_joined(joined, joined_mask).flatten(1, 2), joined_mask.flatten(1)

    def _decode(self, question: Sequence[int], states: Tensor, mask: Tensor) -> ReferenceAnswer:
        """Greedy decoding that runs the decoder again over all tokens so far for every new one."""
        import torch

        ids = [self._config.decoder_start_token_id, *(question if self._traits.prefixes_decoder else ())]
        key_values = self.model.cross_key_values(states)
        tokens: list[int] = []
        margins: list[float] = []
        log_probability = 0.0
        while len(tokens) < self._config.max_new_tokens:
            logits = self.model.decode_over(torch.tensor([ids + tokens], dtype=torch.int32), key_values, mask)[0, -1]
            token = int(logits.argmax())
            best = logits.topk(2).values
            margins.append(float(best[0] - best[1]))
            log_probability += float(torch.log_softmax(logits, dim=-1)[token])
            if token == self._config.eos_token_id:
                break
            tokens.append(token)
        return ReferenceAnswer(tokens, None, None, margins, log_probability)

    @staticmethod
    def _padded(rows: Sequence[Sequence[int]], length: int) -> tuple[Any, Any]:
        import torch

        ids = torch.zeros(len(rows), length, dtype=torch.int32)
        mask = torch.zeros(len(rows), length, dtype=torch.int32)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(list(row), dtype=torch.int32)
            mask[place, : len(row)] = 1
        return ids, mask


class StageGraph:
    """One stage of the torch model, run as a graph is."""

    def __init__(self, stage: nn.Module, io: GraphIO, codec: str) -> None:
        self._stage, self._io, self._codec = stage, io, codec

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs and outputs are those of the graph that is traced from the stage."""
        from glimmer_export.exporter.graphs.check import run_stage

        return run_stage(self._stage, self._io, inputs, self._codec)


def graphs_from_model(model: GlimmerModel, forms: Forms, codec: str | None) -> dict[str, Graph]:
    """The graphs that answer, of a bundle in these forms, for memory in a codec, by their stages, in torch and FP32."""
    from glimmer_export.exporter.stages import stage_from_model

    io = graph_io(model.config.shape, replace(forms, codecs=() if codec is None else (codec,), both_forms=False))
    return {
        stage_of(name): StageGraph(stage_from_model(model, name, forms), tensors, codec_of(name))
        for name, tensors in io.items()
    }
