"""The graphs in order: question and candidates in, answer tokens out, with the selection between stages A and B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from glimmer_export.runtime.backends import Array, Graph, Tensor
from glimmer_export.runtime.candidates import Candidate, memory_inputs, token_inputs
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    ENCODER,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    QUESTION_ENCODER,
    ModelShape,
    question_stage,
)
from glimmer_export.runtime.decode import Decoded, greedy_decode
from glimmer_export.runtime.passage_memory import pad_ids
from glimmer_export.runtime.placement import placement_of
from glimmer_export.runtime.rerank import check_scores, select_top_m
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Reader", "Reading"]

NO_TOKEN = -1


@dataclass(frozen=True)
class Reading:
    """What came of a batch: an answer a row; scores (b, k) and selected (b, m) where the architecture ranks."""

    answers: list[Decoded]
    scores: Array | None
    selected: Array | None


@dataclass(frozen=True)
class _Encoded:
    """The decoder's view of the passages: states (b, s, d_model) and mask (b, s)."""

    states: Tensor
    mask: Tensor
    scores: Array | None = None
    selected: Array | None = None


class Reader:
    """Runs a bundle's graphs on a batch. Holds no state of a run, so it is safe from several threads.

    On a device a graph's run is only queued, so the clock's stages are the host's: the first that needs what the device
    computes (`select`, else `decode`) waits for what came before it too. `max_batch` is the most questions of one read,
    None where there is no limit.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        shape: ModelShape,
        text: TextEncoder,
        store: MemoryStore | None,
        codec: Codec | None,
        *,
        check_finite: bool = False,
    ) -> None:
        """`graphs` by the stages that they compute, for memory in `codec`, which is None where there is no memory.

        `check_finite` refuses scores and logits that are no numbers; parity looks at what came all the same.
        """
        self._check_finite = check_finite
        self._place, self._shape, self._text, self._store = placement_of(graphs), shape, text, store
        self._codec = codec
        self._arrays = self._place.constants({} if codec is None else codec.arrays)
        self.max_batch = min(self._place.max_batches.values(), default=None)

    def read(
        self,
        questions: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[Candidate]],
        num_selected: int | None,
        clock: StageClock,
        *,
        stop_at_eos: bool = True,
    ) -> Reading:
        """Answer a batch of tokenised questions, each from at least one candidate passage.

        `num_selected` is m; a row with fewer candidates reads them all. None where nothing is selected. Raises
        NotFiniteError where it is to check that. Without `stop_at_eos` every answer has max_new_tokens tokens.
        """
        if self._codec is not None:
            encoded = self._encode_with_memory(questions, candidates, self._codec, num_selected, clock)
        else:
            with clock.stage("fetch"):
                inputs = token_inputs(questions, candidates, self._store, self._text, self._shape, self._place)
            encoded = self._encoded(ENCODER, inputs, clock)
        prefixes = [[self._shape.decoder_start_token_id] for _ in questions]
        if self._shape.traits.prefixes_decoder:
            prefixes = [[*prefix, *question] for prefix, question in zip(prefixes, questions, strict=True)]
        shape = self._shape if stop_at_eos else replace(self._shape, eos_token_id=NO_TOKEN)
        with clock.stage("decode"):
            answers = greedy_decode(
                self._place, shape, encoded.states, encoded.mask, prefixes,
                check_finite=self._check_finite,
            )
        return Reading(answers, encoded.scores, encoded.selected)

    def _encode_with_memory(
        self,
        questions: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[Candidate]],
        codec: Codec,
        num_selected: int | None,
        clock: StageClock,
    ) -> _Encoded:
        place, shape = self._place, self._shape
        question: dict[str, Tensor] = {}
        if shape.traits.encodes_question:
            ids, mask = pad_ids(questions, place.length(max(map(len, questions)), shape.question_length))
            encoder = question_stage(shape)
            with clock.stage(QUESTION_ENCODER):
                states = place.run(encoder, {"input_ids": ids, "attention_mask": mask})["hidden_states"]
            question = {"question_states": states, "question_mask": mask}
        # A device encodes the question while its passages are read from the store and copied.
        with clock.stage("fetch"):
            memory = memory_inputs(candidates, self._store, codec, self._text, shape, place)
        fixed = {**question, **self._arrays}
        if num_selected is None:
            return self._encoded(LIVE_STAGE_B, {**fixed, **memory}, clock)
        with clock.stage(LIVE_STAGE_A):
            ranked = place.run(LIVE_STAGE_A, {**fixed, **memory})
        with clock.stage("select"):
            scores = place.fetch(ranked.pop("scores"))()
            if self._check_finite:
                check_scores(scores, [len(row) for row in candidates])
            # A row with fewer candidates than the batch's m fills up with absent passages, which the graph masks.
            selected = select_top_m(scores, num_selected)
            # Stage A leaves its states, or stage B begins with the memory.
            taken = place.select({"memory_mask": memory["memory_mask"], **(ranked or memory)}, selected)
        encoded = self._encoded(LIVE_STAGE_B, {**fixed, **taken}, clock)
        return _Encoded(encoded.states, encoded.mask, scores, selected)

    def _encoded(self, graph: str, inputs: Mapping[str, Tensor], clock: StageClock) -> _Encoded:
        with clock.stage(graph):
            outputs = self._place.run(graph, inputs)
        return _Encoded(outputs["encoder_hidden_states"], outputs["encoder_attention_mask"])
