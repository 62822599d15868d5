"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from glimmer_export.runtime.serving.batching import Batch, Line
from glimmer_export.runtime.session import Session
from glimmer_export.runtime.writes import Written

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = tuple(4**power for power in range(4, 12))


class _PassageCache(Collector):
    """What the backend counts by itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def collect(self) -> Iterator[Metric]:
        """Two counters."""
        for name, count in zip(("hits", "misses"), self._session.passage_cache_counts, strict=True):
            yield CounterMetricFamily(
                f"glimmer_passage_cache_{name}", f"Passages read: {name} of the GPU's cache", value=count
            )


class Metrics:
    """Counts of one server, in a registry of its own: a process may hold several."""

    def __init__(self, session: Session, line: Line) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "glimmer_requests", "Requests by path and status; 499: the client left", ["path", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "glimmer_request_seconds", "From a request's headers to the end of its response", ["path"],
            buckets=SECONDS, registry=registry,
        )
        self._stages = Histogram(
            "glimmer_stage_seconds", "Of a batch, by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._batch_questions = Histogram(
            "glimmer_batch_questions", "Questions of a batch", buckets=QUESTIONS, registry=registry
        )
        self._batch_tokens = Histogram(
            "glimmer_batch_tokens", "Padded tokens of a batch", buckets=TOKENS, registry=registry
        )
        self._waited = Histogram(
            "glimmer_queue_seconds", "What a question waited for its batch", buckets=SECONDS, registry=registry
        )
        Gauge("glimmer_queue_questions", "Questions that wait", registry=registry).set_function(lambda: len(line))
        if session.store is not None:
            Gauge("glimmer_store_generation", "Of the store that is served", registry=registry).set_function(
                lambda: 0 if session.store is None else session.store.manifest.generation
            )
            Gauge("glimmer_store_passages", "Of the store that is served", registry=registry).set_function(
                lambda: 0 if session.store is None else session.store.num_passages
            )
        self._changed = Counter(
            "glimmer_passages_written", "Passages added, replaced and deleted over HTTP", ["change"], registry=registry
        )
        self._write_seconds = Histogram(
            "glimmer_write_seconds", "Of a write, until it is answered from", buckets=SECONDS, registry=registry
        )
        registry.register(_PassageCache(session))

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request has ended; `path` is one of the server's, or "" for any other."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, batch: Batch, milliseconds: Mapping[str, float]) -> None:
        """A batch is done; no `milliseconds` if it failed."""
        self._batch_questions.observe(len(batch.jobs))
        self._batch_tokens.observe(batch.padded_tokens)
        for job in batch.jobs:
            self._waited.observe(max(0.0, batch.taken - job.since))
        for stage, value in milliseconds.items():
            self._stages.labels(stage).observe(value / 1e3)

    def written(self, written: Written, seconds: float) -> None:
        """A write was made, and is answered from."""
        for change in ("added", "replaced", "deleted"):
            self._changed.labels(change).inc(getattr(written, change))
        self._write_seconds.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's format, CONTENT_TYPE_LATEST."""
        return generate_latest(self.registry)
