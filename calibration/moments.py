"""Real questions through a bundle's graphs -> the mean products of the channels that its products read (for GPTQ)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.calibrate import CalibrationOptions, in_other_form
from glimmer_export.calibration.collect import CollectingBackend, GraphCollector
from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.calibration.spread import spread
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Array, Backend
from glimmer_export.runtime.backends.registry import open_backend
from glimmer_export.runtime.contract import CalibrationError, GraphIO, read_manifest

__all__ = ["Moments", "collect_moments"]

Moments = dict[str, dict[str, NDArray[np.float64]]]
"""By graph and tensor: (channels, channels)."""
ROWS = 512
"""Tokens that are multiplied at once."""


def collect_moments(
    bundle: str | Path,
    store: str | Path | None,
    questions: Sequence[Question],
    tensors: Mapping[str, Collection[str]],
    options: CalibrationOptions,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Moments:
    """Of the `tensors` by graph of an FP32 bundle; nothing is written.

    Questions are run as `calibrate` runs them: one at a time, each stage fed by the stage before it and memory read
    through the store's codec, without padding, in both forms of cross-attention if there are two. `advance` is told how
    many questions came to be done.

    Raises CalibrationError (no question that could be run, a value that is not finite) and what opening a session does.
    """
    sample = spread(range(len(questions)), options.samples)
    manifest = read_manifest(Path(bundle))
    backend = _MomentsBackend(
        open_backend(options.backend, Path(bundle), threads=options.threads, lean=True), tensors,
        limit=options.passages_per_question, threads=options.threads, fixed_keys=manifest.model.cross_attention_bias,
    )
    answered = 0
    with (
        closing(backend),
        Session.open(bundle, store, threads=options.threads, backend=backend, draft_tokens=0) as session,
    ):
        sessions = [session, *([] if (other := in_other_form(session, backend)) is None else [other])]
        for index in sample:
            passages = [given_passages(questions[index])] if options.given else None
            for asked in sessions:
                (answer,) = asked.answer_many([questions[index].question], passages=passages)
            answered += answer.answer is not None
            advance(1)
    if not answered:
        raise CalibrationError(
            f"{len(sample)} questions", expected="at least one that retrieves a passage and can be answered",
            found="none", fix="take questions that go with the store",
        )
    return {
        name: collector.means() for name, collector in backend.collectors.items()
        if isinstance(collector, _MomentCollector)
    }


class _MomentsBackend(CollectingBackend):
    def __init__(
        self, backend: Backend, tensors: Mapping[str, Collection[str]], *, limit: int, threads: int | None,
        fixed_keys: bool,
    ) -> None:
        super().__init__(backend, limit=limit, threads=threads, fixed_keys=fixed_keys)
        self._tensors = tensors

    def collector(self, path: Path, io: GraphIO) -> GraphCollector | None:
        only = self._tensors.get(path.stem)
        if not only:
            return None
        return _MomentCollector(
            path, io, limit=self._limit, threads=self._threads, fixed_keys=self._fixed_keys, only=only
        )


class _MomentCollector(GraphCollector):
    """Sums of products of a tensor's channels, taken some rows at a time."""

    def __init__(
        self, path: Path, io: GraphIO, *, limit: int, threads: int | None, fixed_keys: bool, only: Collection[str]
    ) -> None:
        super().__init__(path, io, limit=limit, threads=threads, fixed_keys=fixed_keys, only=only)
        self._waiting: dict[str, list[Array]] = {name: [] for name in self.ranges}
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts = dict.fromkeys(self.ranges, 0)

    def note(self, name: str, values: Array) -> None:
        if not np.isfinite(values).all():
            raise FloatingPointError("a value that is not finite")
        waiting = self._waiting[name]
        waiting.append(values.reshape(-1, values.shape[-1]))
        if sum(map(len, waiting)) >= ROWS:
            self._add(name)

    def means(self) -> dict[str, NDArray[np.float64]]:
        """By tensor, of those that had values."""
        for name in self._waiting:
            self._add(name)
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def _add(self, name: str) -> None:
        if not self._waiting[name]:
            return
        rows = np.concatenate(self._waiting[name])
        self._waiting[name] = []
        # In FP32: each sum is of a few hundred products, and adds to one in FP64.
        products = rows.T @ rows
        total = self._sums.get(name)
        self._sums[name] = products.astype(np.float64) if total is None else total + products
        self._counts[name] += len(rows)
