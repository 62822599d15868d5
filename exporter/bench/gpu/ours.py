"""Our graphs in a session on an engine's backend: whole answers of a fixed length, and each graph alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.exporter.bench.gpu.backends import open_backend, working
from glimmer_export.exporter.bench.gpu.bundles import Model
from glimmer_export.exporter.bench.gpu.recording import Recorder
from glimmer_export.exporter.bench.gpu.setting import ORT_CUDA, Setting
from glimmer_export.runtime import PassageId, Session
from glimmer_export.runtime.backends import LoopingGraph
from glimmer_export.runtime.backends.registry import load_graphs
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import DECODER_STEP
from glimmer_export.runtime.decode import step_loop
from glimmer_export.runtime.store import MemoryStore

if TYPE_CHECKING:
    from glimmer_export.exporter.bench.inputs import BenchQuestion

__all__ = ["Ours", "error_line", "host_inputs", "open_each"]

NO_TOKEN = -1
AT_ONCE = 8
"""Runs of a graph that are queued before one wait, so that it is the GPU that is timed and not the queueing."""
STEP = DECODER_STEP
MOST_RUNS = 1024
"""Of a loop, before it begins anew."""


class Ours:
    """A session that never meets EOS: every answer has as many tokens as the model allows.

    What is timed runs on the graphs as they are; a second session on the same, watched, records what they are given.
    """

    def __init__(self, bundle: Bundle, store: MemoryStore, graphs: dict[str, Any], setting: Setting) -> None:
        assert bundle.text is not None
        self.recorder, self.graphs, self._setting = Recorder(), graphs, setting
        self._loops = ExitStack()
        shape = replace(bundle.manifest.model, eos_token_id=NO_TOKEN)
        self.bundle = replace(bundle, manifest=replace(bundle.manifest, model=shape))
        self._session = Session(self.bundle, store, graphs, bundle.text, store.codec)
        self._watched = Session(self.bundle, store, self.recorder.wrap(graphs), bundle.text, store.codec)

    @classmethod
    @contextmanager
    def open(cls, setting: Setting, engine: str, model: Model, precision: str, **switches: Any) -> Iterator[Ours]:
        """Open a random model's bundle on an engine; what that needs built was built before."""
        bundle = Bundle.open(model.bundle(precision))
        store = MemoryStore.open(model.store, bundle)
        try:
            with open_backend(setting, engine, model, precision, **switches) as backend:
                graphs = load_graphs(backend, bundle.directory, bundle.manifest, store.manifest.codec)
                ours = cls(bundle, store, graphs, setting)
                with ours._loops:
                    yield ours
        finally:
            store.close()

    def answer(self, batch: Sequence[BenchQuestion]) -> list[list[int]]:
        """Tokens of a batch of questions, from the text to the host's tokens; raises what a question raises."""
        return self._answer(self._session, batch)

    def _answer(self, session: Session, batch: Sequence[BenchQuestion]) -> list[list[int]]:
        scale = self._setting.scale
        passages = [[PassageId(number) for number in item.numbers[: scale.k]] for item in batch]
        answers = session.answer_many([item.text for item in batch], None, scale.m, passages=passages)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
            if len(answer.token_ids) != scale.answer_tokens:
                raise RuntimeError(f"an answer of {len(answer.token_ids)} tokens instead of {scale.answer_tokens}")
        return [list(answer.token_ids) for answer in answers]

    def record(self, questions: Sequence[BenchQuestion]) -> dict[str, list[Any]]:
        """Inputs of each graph, one set a question: of a decoder's steps the middle one."""
        self._answer(self._watched, questions[:1])
        self.recorder.on = True
        for question in questions:
            self._answer(self._watched, [question])
        self.recorder.on = False
        found = {}
        for name, inputs in self.recorder.inputs.items():
            runs = len(inputs) // len(questions)
            found[name] = inputs[runs // 2 :: runs]
        self.recorder.inputs.clear()
        return found

    def alone(self, name: str, inputs: Sequence[Any]) -> Callable[[int], None]:
        """AT_ONCE runs of a graph on one set of inputs after the other, then a wait.

        Of a decoder step that loops they are as answers run them: on what the last gave, those between two looks at a
        time.
        """
        graph = self.graphs[name]
        if name == STEP and isinstance(graph, LoopingGraph):
            return self._looped(graph, inputs[0])
        wait = getattr(graph.device, "synchronize", lambda: None)

        def work(run: int) -> None:
            for turn in range(AT_ONCE):
                # What a run gives is dropped before the next, so that memory, and with it a CUDA graph, is used again.
                graph.launch(inputs[(run * AT_ONCE + turn) % len(inputs)])
            wait()

        return work

    def _looped(self, graph: LoopingGraph, inputs: Any) -> Callable[[int], None]:
        """Steps on and on from those inputs; what lies behind max_new_tokens costs what a step before it costs."""
        io = step_loop(self.bundle.manifest.model)
        opened = graph.loop(io, {name: tuple(value.shape) for name, value in inputs.items()}, MOST_RUNS)
        assert opened is not None
        loop = self._loops.enter_context(opened)
        left = 0

        def work(run: int) -> None:
            nonlocal left
            if left < AT_ONCE:
                loop.start(np.asarray(inputs[io.counter]), {name: inputs[name] for name in loop.inputs}, ())
                left = MOST_RUNS
            for _ in range(AT_ONCE // loop.interval):
                loop.run(loop.interval, seen=False)()
            left -= AT_ONCE

        return work

    def once(self, name: str, inputs: Sequence[Any]) -> Callable[[], None]:
        """One run and a wait."""
        graph = self.graphs[name]
        wait = getattr(graph.device, "synchronize", lambda: None)

        def work() -> None:
            graph.launch(inputs[0])
            wait()

        return work


def open_each(
    setting: Setting, model: Model, precision: str, opened: ExitStack, engines: Sequence[str] | None = None
) -> tuple[dict[str, Ours], dict[str, str]]:
    """Sessions on the engines named, or on all that may work here, by engine; and why some could not be opened."""
    wanted = list(working(setting) if engines is None else engines)
    found: dict[str, Ours] = {}
    errors: dict[str, str] = {}
    # ONNX Runtime with the CUDA provider first: another one in the process would be in its way.
    for engine in sorted(wanted, key=lambda engine: engine != ORT_CUDA):
        try:
            found[engine] = opened.enter_context(Ours.open(setting, engine, model, precision))
        except Exception as error:  # noqa: BLE001  (the others are measured all the same)
            traceback.print_exc()
            errors[engine] = error_line(error)
    return {engine: found[engine] for engine in wanted if engine in found}, errors


def error_line(error: Exception) -> str:
    """An exception as one line of a file of results."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def host_inputs(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Sets of inputs as the host's arrays."""
    return [
        {name: value if isinstance(value, np.ndarray) else value.fetch()() for name, value in row.items()}
        for row in inputs
    ]
