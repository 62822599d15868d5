"""Contenders opened from what was prepared, ours through the runtime's own session, and the peak memory of each.

Run as a module it is the process whose memory is measured: a JSON object on stdin, the number of bytes on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.measure import Answered, Contender, ContenderSpec
from glimmer_export.exporter.bench.roster import (
    CROSS_ENCODER,
    FASTER,
    HF_FID,
    LANGUAGE_MODEL,
    OPENVINO,
    OPTIMUM_FID,
    ORT,
    STORED_STATES,
)
from glimmer_export.runtime import PassageId, Session
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.backends.registry import AUTO, LoadedBackend, load_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    BF16,
    CPU_BACKEND,
    CROSS_KV,
    DECODER_STEP,
    FP32,
    MEMORY_ENCODER,
    OPENVINO_BACKEND,
    STAGES,
    BackendError,
)
from glimmer_export.runtime.passage_memory import encode_passages
from glimmer_export.runtime.store import MemoryStore

__all__ = ["BACKENDS", "SessionContender", "measure_peak_rss", "open_contenders"]

BACKENDS = {ORT: CPU_BACKEND, OPENVINO: OPENVINO_BACKEND, FASTER: AUTO}
NO_TOKEN = -1
ALONE_WARMUP = 3


class SessionContender:
    """A bundle and a store, answering as a device would.

    Its session never meets EOS, and stops after the bench's number of tokens: only that is changed of the model.
    """

    def __init__(self, spec: ContenderSpec) -> None:
        self._spec = spec
        opened = Bundle.open(spec.model)
        if opened.text is None or spec.store is None:
            raise ValueError(f"{spec.model} has no tokenizer or no store")
        store = MemoryStore.open(spec.store, opened)
        if (codec := store.manifest.codec) is None:
            raise ValueError(f"{spec.store} has no memory")
        loaded = _loaded(spec, opened, codec)
        self._close = loaded.close
        manifest = opened.manifest
        entries = [manifest.graphs[name] for name in manifest.stages(codec).values()]
        self._files = [file for entry in entries for file in entry.files]
        self._files += [manifest.weights] if manifest.weights else []
        self._graphs = {stage: _TimedGraph(graph) for stage, graph in loaded.graphs.items()}
        shape = replace(opened.manifest.model, eos_token_id=NO_TOKEN, max_new_tokens=spec.answer_tokens)
        endless = replace(opened, manifest=replace(opened.manifest, model=shape))
        self._session = Session(endless, store, dict(self._graphs), opened.text, store.codec)

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer a batch; raises what the session raises for a question that cannot be taken."""
        for graph in self._graphs.values():
            graph.milliseconds = 0.0
        passages = [[PassageId(number) for number in question.numbers[: self._spec.num_passages]] for question in batch]
        answers = self._session.answer_many(
            [question.text for question in batch], None, self._spec.num_selected, passages=passages
        )
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        run = {name: graph.milliseconds for name, graph in self._graphs.items() if graph.milliseconds}
        graphs = {STAGES[name].asked_as: milliseconds for name, milliseconds in run.items()}
        clock = answers[0].milliseconds
        decoding = sum(graphs.get(name, 0.0) for name in (CROSS_KV, DECODER_STEP))
        host = {name: clock.get(name, 0.0) for name in ("tokenize", "retrieve", "fetch", "select")}
        host["decode_loop"] = clock.get("decode", 0.0) - decoding
        return Answered([list(answer.token_ids) for answer in answers], graphs, host)

    def alone_ms(self, name: str, batch: Sequence[BenchQuestion], repeats: int) -> float:
        """Median milliseconds of one graph run again and again on the inputs that this batch gives it, warm."""
        graph = self._graphs[name]
        graph.keeps_inputs = True
        self.answer(batch)
        graph.keeps_inputs = False
        inputs, graph.inputs = graph.inputs, {}
        times = []
        for _ in range(ALONE_WARMUP + repeats):
            started = time.perf_counter()
            graph.run(inputs)
            times.append(1e3 * (time.perf_counter() - started))
        return median(times[ALONE_WARMUP:])

    def encode_passages(self, passages: Sequence[Sequence[int]]) -> None:
        """Run the memory encoder on a batch of tokenised passages, as building a store does."""
        encode_passages(self._graphs[MEMORY_ENCODER], passages)

    @property
    def graph_bytes(self) -> int:
        """Size of the graphs on disk, with the weights of the bundle."""
        return sum(file.bytes for file in self._files)

    def close(self) -> None:
        """Release the store's files, and the backend."""
        self._session.close()
        self._close()


def _loaded(spec: ContenderSpec, bundle: Bundle, codec: str) -> LoadedBackend:
    """The graphs in the engine of `spec`, in its precision and no other."""
    precision = BF16 if spec.precision == BF16 else FP32
    loaded = load_backend(
        BACKENDS[spec.engine], bundle.directory, bundle.manifest, codec, threads=spec.threads,
        compute_precision=AUTO if spec.engine == FASTER and precision == BF16 else precision,
        witnessed=lambda _, asked: asked == BF16,
    )
    if spec.engine == FASTER and loaded.computes.get(OPENVINO_BACKEND) != precision:
        loaded.close()
        raise BackendError(
            f"--peers {spec.key.replace('_', '-')}", expected=f"OpenVINO in {precision} to choose from",
            found=loaded.choice.refused.get(OPENVINO_BACKEND, f"{loaded.choice.name} alone"), fix="leave it out",
        )
    return loaded


class _TimedGraph:
    """Adds up the time of a graph's runs."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.milliseconds = 0.0
        self.keeps_inputs = False
        self.inputs: Mapping[str, Array] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self.keeps_inputs:
            self.inputs = inputs
        started = time.perf_counter()
        outputs = self._graph.run(inputs)
        self.milliseconds += 1e3 * (time.perf_counter() - started)
        return outputs


def open_contenders(
    specs: Sequence[ContenderSpec], batches: Sequence[Sequence[BenchQuestion]] = ()
) -> dict[str, Contender]:
    """Open each by its key; those that differ only in their number of passages share one model.

    Whoever keeps the states of passages computes those of `batches` now, before anything is timed.
    """
    models: dict[tuple[Path, str, str], Any] = {}
    opened: dict[str, Contender] = {}
    for spec in specs:
        if spec.store is not None:
            opened[spec.key] = SessionContender(spec)
            continue
        shared = (spec.model, spec.engine, spec.precision)
        if shared not in models:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                models[shared] = _peer_model(spec)
        opened[spec.key] = _peer(spec, models[shared], batches)
    return opened


def _peer_model(spec: ContenderSpec) -> Any:
    if spec.form == HF_FID:
        from glimmer_export.exporter.bench.peers import fid_model

        return fid_model(spec.model, spec.precision)
    if spec.form == OPTIMUM_FID:
        from glimmer_export.exporter.bench.optimum_fid import OptimumGraphs

        return OptimumGraphs(spec.model, spec.engine, spec.precision, spec.threads)
    if spec.form == CROSS_ENCODER:
        from glimmer_export.exporter.bench.cross_encoder import CrossEncoder

        return CrossEncoder(spec.model, engine=spec.engine, precision=spec.precision, threads=spec.threads)
    from ctranslate2 import Generator

    return Generator(
        str(spec.model), device="cpu", compute_type=spec.precision, intra_threads=spec.threads, inter_threads=1
    )


def _peer(spec: ContenderSpec, model: Any, batches: Sequence[Sequence[BenchQuestion]]) -> Contender:
    if spec.form == HF_FID:
        from glimmer_export.exporter.bench.peers import FidContender

        return FidContender(spec, model)
    if spec.form == OPTIMUM_FID:
        from glimmer_export.exporter.bench.optimum_fid import OptimumFid

        return OptimumFid(spec, model)
    if spec.form == CROSS_ENCODER:
        from glimmer_export.exporter.bench.cross_encoder import Ranker

        return Ranker(spec, model)
    assert spec.form in (LANGUAGE_MODEL, STORED_STATES), spec.form
    from glimmer_export.exporter.bench.language_model import LanguageModel

    reader = LanguageModel(spec, model)
    reader.prefill(batches)
    return reader


BATCHES = 2
STATUS = Path("/proc/self/status")


def measure_peak_rss(spec: ContenderSpec, batches: Sequence[Sequence[BenchQuestion]]) -> int:
    """Bytes resident at most, Python and its libraries included; raises RuntimeError if the process fails."""
    job = {
        "spec": {**asdict(spec), "model": str(spec.model), "store": None if spec.store is None else str(spec.store)},
        "batches": [[asdict(question) for question in batch] for batch in batches[:BATCHES]],
    }
    done = subprocess.run(
        [sys.executable, "-m", "glimmer_export.exporter.bench.contenders"], input=json.dumps(job), capture_output=True,
        text=True, check=False, start_new_session=True,  # Ctrl-C is for us, who end it
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the process that measures the memory of {spec.key} failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def _main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    paths = {name: None if job["spec"][name] is None else Path(job["spec"][name]) for name in ("model", "store")}
    spec = ContenderSpec(**{**job["spec"], **paths})
    batches = [[BenchQuestion(**question) for question in batch] for batch in job["batches"]]
    contender = open_contenders([spec], batches)[spec.key]
    for batch in batches:
        contender.answer(batch)
    sys.stdout.write(f"{_peak_bytes()}\n")


def _peak_bytes() -> int:
    """From /proc, not getrusage: Linux hands the peak of the process that forked on to the program it starts."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    _main()
