"""The graphs in order: rows in, a reading of each out, with the selection between stages A and B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glimmer_export.runtime.backends import Array, CachingDevice, Graph, Tensor
from glimmer_export.runtime.candidates import Row, memory_inputs, passage_ids, token_inputs
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    DECODER_STEP,
    ENCODER,
    LIVE_SHORTLIST,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    QUESTION_ENCODER,
    ModelShape,
    question_stage,
)
from glimmer_export.runtime.decode import OnStep, Reading, greedy_decode
from glimmer_export.runtime.drafts import DRAFT_TOKENS, Drafts, DraftSource
from glimmer_export.runtime.passage_memory import pad_ids
from glimmer_export.runtime.placement import DevicePlacement, placement_of
from glimmer_export.runtime.rerank import cascade_scores, check_scores, select_by_mass, select_top_m
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Reader"]

NO_TOKEN = -1
MOST_DRAFTED_ROWS = 16
"""Of a batch for which drafts save time on a CPU, unless it is said how many tokens they are to have."""


@dataclass(frozen=True)
class _Ranked:
    """What stage A made of a batch.

    `scores` (b, c) of the passages at `places` (b, c) of the k, None if they are all; `combined` (b, k) of all. Stage B
    goes on from `states`, None if it begins with the memory; `mask` (b, c, n_p) says what of them counts.
    """

    scores: Array
    combined: Array
    places: Array | None
    states: Mapping[str, Tensor] | None
    mask: Tensor


class Reader:
    """Runs a bundle's graphs on a batch. Holds no state of a run, so it is safe from several threads.

    On a device a graph's run is only queued, so the clock's stages are the host's: the first that needs what the device
    computes (`select`, else `decode`) waits for what came before it too. `max_batch` is the most questions of one read,
    None if there is no limit.
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
        draft_tokens: int | None = 0,
    ) -> None:
        """`graphs` by the stages that they compute, for memory in `codec`, which is None if there is no memory.

        `check_finite` refuses scores and logits that are no numbers; parity looks at what came all the same.
        `draft_tokens` are those of a draft at most, for graphs that take any; with 0 tokens come one by one, with None
        there are as many as save time here.
        """
        self._check_finite, self._draft_tokens = check_finite, draft_tokens
        self._place, self._shape, self._text, self._store = placement_of(graphs), shape, text, store
        self._codec = codec
        self._arrays = self._place.device.constants({} if codec is None else codec.arrays)
        self.max_batch = min(self._place.max_batches.values(), default=None)

    @property
    def passage_cache_counts(self) -> tuple[int, int]:
        """How many passages the device's cache had, and had not; 0 and 0 if it has none."""
        device = self._place.device
        return device.passage_cache_counts if isinstance(device, CachingDevice) else (0, 0)

    def read(
        self, rows: Sequence[Row], num_selected: int | None, clock: StageClock, *, mass: float | None = None,
        stop_at_eos: bool = True, on_step: OnStep | None = None,
    ) -> list[Reading]:
        """Answer a batch of questions, each from at least one candidate passage.

        `num_selected` is m; a row with fewer candidates reads them all, and with a `mass` one reads no more than
        `select_by_mass` takes. None if nothing is selected. Raises
        NotFiniteError if it is to check that. Without `stop_at_eos` every answer has max_new_tokens tokens. `on_step`
        is that of `greedy_decode`, whose readings have scores and selected passages here.
        """
        place, shape = self._place, self._shape
        encoded, scores, selected = self._encode(rows, num_selected, mass, clock)
        prefixes = [[shape.decoder_start_token_id] for _ in rows]
        if shape.traits.prefixes_decoder:
            prefixes = [[*prefix, *row.question_ids] for prefix, row in zip(prefixes, rows, strict=True)]

        def rank(index: int, reading: Reading) -> None:
            if scores is not None and selected is not None:
                count = len(rows[index].candidates)
                reading.scores = scores[index, :count]
                reading.selected = tuple(item for item in selected[index] if item < count)

        def step(index: int, reading: Reading, ended: bool) -> None:  # noqa: FBT001  # as OnStep has it
            assert on_step is not None
            if ended:
                rank(index, reading)
            on_step(index, reading, ended)

        with clock.stage("decode"):
            drafts = self._drafts(rows, scores, selected)
            readings = greedy_decode(
                place, shape if stop_at_eos else replace(shape, eos_token_id=NO_TOKEN),
                encoded["encoder_hidden_states"], encoded["encoder_attention_mask"], prefixes,
                drafts=drafts, check_finite=self._check_finite, on_step=None if on_step is None else step,
            )
        for index, reading in enumerate(readings):
            rank(index, reading)
        return readings

    def _drafts(
        self, rows: Sequence[Row], scores: Array | None, selected: Sequence[Sequence[int]] | None
    ) -> Drafts | None:
        """What the passages of each row that are read say, the best by score first; as given, where nothing ranks."""
        tokens = self._draft_tokens_of(len(rows))
        if not tokens:
            return None
        sources = []
        for index, row in enumerate(rows):
            places = list(range(len(row.candidates)))
            if scores is not None and selected is not None:
                own = scores[index].tolist()
                read = [place for place in selected[index] if place < len(places)]
                places = sorted(read, key=own.__getitem__, reverse=True)
            passages = (passage_ids(row.candidates[place], self._store, self._text) for place in places)
            sources.append(DraftSource(passages, {self._shape.eos_token_id, self._shape.pad_token_id}))
        return Drafts(sources, tokens)

    def _draft_tokens_of(self, rows: int) -> int:
        """A draft's most tokens in a batch of so many rows: what was asked for, or saves time; what an engine takes."""
        tokens = self._draft_tokens
        if tokens is None:
            pays = not isinstance(self._place, DevicePlacement) and rows <= MOST_DRAFTED_ROWS
            tokens = DRAFT_TOKENS if pays else 0
        most: int | None = getattr(self._place.graphs[DECODER_STEP], "max_positions", None)  # as an engine says
        return tokens if most is None else min(tokens, most - 1)

    def rank(self, rows: Sequence[Row], clock: StageClock) -> list[Array]:
        """Stage A's scores of each row's candidates, (k,) float32, if the architecture ranks; nothing is read.

        A cascade drops none here. Raises NotFiniteError if it is to check that.
        """
        assert self._codec is not None
        fixed, memory = self._fetch(rows, self._codec, clock)
        scores = self._rank(rows, fixed, memory, memory["memory_mask"].shape[1], clock).combined
        return [scored[: len(row.candidates)] for row, scored in zip(rows, scores, strict=True)]

    def _encode(
        self, rows: Sequence[Row], num_selected: int | None, mass: float | None, clock: StageClock
    ) -> tuple[Mapping[str, Tensor], Array | None, list[list[int]] | None]:
        """What the decoder reads, scores (b, k) and each row's selected. What it was made of goes before decoding."""
        place, shape = self._place, self._shape
        scores = selected = None
        if self._codec is not None:
            fixed, memory = self._fetch(rows, self._codec, clock)
            if num_selected is not None:
                memory, scores, selected = self._select(rows, fixed, memory, num_selected, mass, clock)
            inputs: Mapping[str, Tensor] = {**fixed, **memory}
        else:
            with clock.stage("fetch"):
                inputs = token_inputs(rows, self._store, self._text, shape, place)
        graph = ENCODER if self._codec is None else LIVE_STAGE_B
        with clock.stage(graph):
            return place.run(graph, inputs), scores, selected

    def _fetch(
        self, rows: Sequence[Row], codec: Codec, clock: StageClock
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """What every live stage reads, encoded questions and the codec's arrays; and the memory of the passages."""
        place, shape = self._place, self._shape
        question: dict[str, Tensor] = {}
        if shape.traits.encodes_question:
            questions = [row.question_ids for row in rows]
            ids, mask = pad_ids(questions, place.length(max(map(len, questions)), shape.question_length))
            encoder = question_stage(shape)
            with clock.stage(QUESTION_ENCODER):
                states = place.run(encoder, {"input_ids": ids, "attention_mask": mask})["hidden_states"]
            question = {"question_states": states, "question_mask": mask}
        # A device encodes the question while its passages are read from the store and copied.
        with clock.stage("fetch"):
            memory = memory_inputs(rows, self._store, codec, self._text, shape, place)
        return {**question, **self._arrays}, memory

    def _select(
        self, rows: Sequence[Row], fixed: Mapping[str, Tensor], memory: Mapping[str, Tensor], num_selected: int,
        mass: float | None, clock: StageClock,
    ) -> tuple[Mapping[str, Tensor], Array, list[list[int]]]:
        """Stage A: what stage B reads of the selected passages, the scores (b, k), and which each row reads."""
        ranked = self._rank(rows, fixed, memory, num_selected, clock)
        with clock.stage("select"):
            # A row with fewer candidates than the batch's m fills up with absent passages, which the graph masks.
            if mass is None:
                selected, read = select_top_m(ranked.scores, num_selected), None
            else:
                selected, read = select_by_mass(ranked.scores, num_selected, mass)
            places = selected if ranked.places is None else np.take_along_axis(ranked.places, selected, axis=1)
            # Stage A leaves its states, or stage B begins with the memory.
            if ranked.states is None:
                taken = self._place.select(memory, places, read)
            else:
                taken = self._place.select({"memory_mask": ranked.mask, **ranked.states}, selected, read)
        kept = places if read is None else [row[own] for row, own in zip(places, read, strict=True)]
        return taken, ranked.combined, [row.tolist() for row in kept]

    def _rank(
        self, rows: Sequence[Row], fixed: Mapping[str, Tensor], memory: Mapping[str, Tensor], num_selected: int,
        clock: StageClock,
    ) -> _Ranked:
        """Stage A on all k passages, or in a cascade on those that the shortlist keeps, `num_selected` at least."""
        num_shortlisted, present = self._shape.num_shortlisted, [len(row.candidates) for row in rows]
        if num_shortlisted is None:
            scores, states = self._score(LIVE_STAGE_A, {**fixed, **memory}, present, clock)
            return _Ranked(scores, scores, None, states or None, memory["memory_mask"])
        size, passages = memory["memory_mask"].shape[:2]
        places = np.tile(np.arange(passages, dtype=np.int32), (size, 1))
        shortlist: Array | None = None
        if passages > (most := max(num_shortlisted, num_selected)):
            shortlist, _ = self._score(LIVE_SHORTLIST, {**fixed, **memory}, present, clock)
            places = select_top_m(shortlist, most)
        with clock.stage("select"):
            taken = dict(self._place.select(memory, places))
        present = [int((own < count).sum()) for own, count in zip(places, present, strict=True)]
        scores, states = self._score(LIVE_STAGE_A, {**fixed, **taken}, present, clock)
        with clock.stage("select"):
            # A place's graph gathers what it did not take itself: `selected` says where the graph found its passages.
            mask = self._place.fetch(taken["memory_mask"])()
            mask = np.take_along_axis(mask, self._place.fetch(taken["selected"])()[..., None], axis=1)
            combined = scores if shortlist is None else cascade_scores(shortlist, places, scores)
        return _Ranked(scores, combined, places, states or None, mask)

    def _score(
        self, stage: str, inputs: Mapping[str, Tensor], counts: Sequence[int], clock: StageClock
    ) -> tuple[Array, dict[str, Tensor]]:
        """A stage that ranks rows of so many passages, the present first: scores (b, k), and what else it gives."""
        with clock.stage(stage):
            ranked = dict(self._place.run(stage, inputs))
        with clock.stage("select"):
            scores = self._place.fetch(ranked.pop("scores"))()
            if self._check_finite:
                check_scores(scores, counts, stage)
        return scores, ranked
