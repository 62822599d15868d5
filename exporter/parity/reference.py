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

    from glimmer_export.exporter.stages import GlimmerModel, Masked

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
        """Answer one tokenised question from tokenised passages and their memory (None if there is none).

        The passages hold the question too where the model joins them in one text.
        """
        import torch

        from glimmer_export.exporter.stages import Masked

        with torch.inference_mode():
            # A question that its passages' texts hold already is not read, and may be longer.
            asked = Masked(*self._padded([question], max(self._config.question_length, len(question))))
            if memory is None:
                texts = self._padded(passages, self._config.passage_length)
                encoded = self.model.encode_texts(asked, Masked(*(values[None] for values in texts)), num_selected)
            else:
                encoded = self.model.encode(asked, self._stacked(memory), num_selected)
            answer = self._decode(question, encoded.states, encoded.mask)
            if encoded.scores is None or encoded.selected is None:
                return answer
            return replace(answer, scores=encoded.scores[0].numpy(), selected=encoded.selected[0].tolist())

    def _stacked(self, memory: Sequence[NDArray[np.float32]]) -> Masked:
        """One question's memory (1, k, passage_length, d_model), padded, and its mask."""
        import torch

        from glimmer_export.exporter.stages import Masked

        length = self._config.passage_length
        states = torch.zeros(1, len(memory), length, self._config.d_model)
        mask = torch.zeros(1, len(memory), length, dtype=torch.int32)
        for place, passage in enumerate(memory):
            states[0, place, : len(passage)] = torch.from_numpy(passage)
            mask[0, place, : len(passage)] = 1
        return Masked(states, mask)

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
