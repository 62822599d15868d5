"""Our graphs in a session on a setting's backend: whole answers of a fixed length, and each graph alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime import PassageId, Session
from runtime.backends.choice import load_graphs
from runtime.bundle import Bundle
from runtime.store import MemoryStore
from tests.gpu.backends import open_backend
from tests.gpu.bundles import Model
from tests.gpu.recording import Recorder
from tests.gpu.setting import Setting

if TYPE_CHECKING:
    from exporter.bench.inputs import BenchQuestion

__all__ = ["Ours", "host_inputs"]

NO_TOKEN = -1
AT_ONCE = 8
"""Runs of a graph that are queued before one wait, so that it is the GPU that is timed and not the queueing."""


class Ours:
    """A session that never meets EOS: every answer has as many tokens as the model allows."""

    def __init__(self, bundle: Bundle, store: MemoryStore, graphs: dict[str, Any], setting: Setting) -> None:
        assert bundle.text is not None
        self.recorder, self.graphs, self._setting = Recorder(), graphs, setting
        shape = replace(bundle.manifest.model, eos_token_id=NO_TOKEN)
        self.bundle = replace(bundle, manifest=replace(bundle.manifest, model=shape))
        self._session = Session(self.bundle, store, self.recorder.wrap(graphs), bundle.text, store.codec)

    @classmethod
    @contextmanager
    def open(cls, setting: Setting, model: Model, precision: str, **switches: Any) -> Iterator[Ours]:
        """Open a random model's bundle; its engines were built before."""
        bundle = Bundle.open(model.bundle(precision))
        store = MemoryStore.open(model.store, bundle)
        try:
            with open_backend(setting, bundle.directory, **switches) as backend:
                graphs = load_graphs(backend, bundle.directory, bundle.manifest, store.manifest.codec)
                yield cls(bundle, store, graphs, setting)
        finally:
            store.close()

    def answer(self, batch: Sequence[BenchQuestion]) -> list[list[int]]:
        """Tokens of a batch of questions, from the text to the host's tokens; raises what a question raises."""
        scale = self._setting.scale
        passages = [[PassageId(number) for number in item.numbers[: scale.k]] for item in batch]
        answers = self._session.answer_many([item.text for item in batch], None, scale.m, passages=passages)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
            if len(answer.token_ids) != scale.answer_tokens:
                raise RuntimeError(f"an answer of {len(answer.token_ids)} tokens instead of {scale.answer_tokens}")
        return [list(answer.token_ids) for answer in answers]

    def record(self, questions: Sequence[BenchQuestion]) -> dict[str, list[Any]]:
        """Inputs of each graph, one set a question: of a decoder's steps the middle one."""
        self.answer(questions[:1])
        self.recorder.on = True
        for question in questions:
            self.answer([question])
        self.recorder.on = False
        found = {}
        for name, inputs in self.recorder.inputs.items():
            runs = len(inputs) // len(questions)
            found[name] = inputs[runs // 2 :: runs]
        self.recorder.inputs.clear()
        return found

    def alone(self, name: str, inputs: Sequence[Any]) -> Callable[[int], None]:
        """AT_ONCE runs of a graph on one set of inputs after the other, then a wait."""
        graph = self.graphs[name]
        wait = getattr(graph.device, "synchronize", lambda: None)

        def work(run: int) -> None:
            for turn in range(AT_ONCE):
                # What a run gives is dropped before the next, so that memory, and with it a CUDA graph, is used again.
                graph.launch(inputs[(run * AT_ONCE + turn) % len(inputs)])
            wait()

        return work

    def once(self, name: str, inputs: Sequence[Any]) -> Callable[[], None]:
        """One run and a wait."""
        graph = self.graphs[name]
        wait = getattr(graph.device, "synchronize", lambda: None)

        def work() -> None:
            graph.launch(inputs[0])
            wait()

        return work


def host_inputs(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Sets of inputs as the host's arrays."""
    return [
        {name: value if isinstance(value, np.ndarray) else value.fetch()() for name, value in row.items()}
        for row in inputs
    ]
