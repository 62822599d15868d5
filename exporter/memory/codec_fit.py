"""A codec's arrays, from a sample of a corpus's own memory, and what the codec then loses of memory.

The same sample gives the same arrays, byte for byte. The error is measured on the passages that the codec was fitted
to, and on others, which alone tell how it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.memory import codecs
from glimmer_export.exporter.tolerances import CODEC_SNR_DROP_DB
from glimmer_export.runtime.codecs import CODECS, Array, Codec, codec_layout
from glimmer_export.runtime.codecs.contract import CodecFit
from glimmer_export.runtime.contract import CodecSnr, OptionError

__all__ = [
    "MEASURED_PASSAGES", "SAMPLE_PASSAGES", "SAMPLE_TOKENS", "CodecError", "CodecSample", "ErrorMeter", "SampleErrors",
    "after_another", "append_warnings", "choose_sample", "fit_codec", "fit_warnings",
]  # fmt: skip

SAMPLE_TOKENS = 32_768
"""Tokens that a codec is fitted to, at most: 128 for each of a codebook's centroids."""
SAMPLE_PASSAGES = 1024
"""Passages that a codec is fitted to."""
MEASURED_PASSAGES = 1024
"""Passages beside these on which its error is measured: decoding them is all that it costs."""
LEAST_SNR_DB, MOST_SNR_DB = -300.0, 150.0
"""What stands for no signal at all, and for no error that float32 could show."""


def fit_codec(name: str, d_model: int, sample: Iterable[Array]) -> dict[str, Array]:
    """The arrays of a codec, fitted to memories (tokens, d_model) float32, by name; empty for a codec without any.

    Memory that is not finite is left out. Raises MissingExtraError if fitting needs a package that is not installed,
    OptionError for a codec that was registered without a fit, ValueError for one that is not registered or does not fit
    the width.
    """
    layout = codec_layout(name, d_model)
    return dict(_fit_of(name)(layout, sample_rows(d_model, sample))) if layout.arrays else {}


def _fit_of(name: str) -> CodecFit:
    codec = CODECS[name]
    if codec.module is not None:
        own: CodecFit = import_module(f"{codecs.__name__}.{codec.module}").fit
        return own
    if codec.fit is None:
        raise OptionError(
            f"codec {name}", expected="one whose arrays can be fitted", found="one registered without `fit`",
            fix="register it with that",
        )
    return codec.fit


def sample_rows(d_model: int, sample: Iterable[Array]) -> Array:
    """At most SAMPLE_TOKENS of the finite rows of all memories, each as likely as any other, in the order they came.

    Even steps, as passages are chosen by, would meet the same places in passages of equal length.
    """
    random = np.random.default_rng(0)
    rows, keys, count = [np.empty((0, d_model), np.float32)], [np.empty(0)], 0
    for memory in sample:
        finite = memory[np.isfinite(memory).all(-1)]
        rows.append(finite)
        # Those whose keys are least are the sample: no row needs to be looked at again.
        keys.append(random.random(len(finite)))
        count += len(finite)
        if count > 2 * SAMPLE_TOKENS:
            rows, keys = _least(rows, keys)
            count = SAMPLE_TOKENS
    return _least(rows, keys)[0][0]


def _least(rows: list[Array], keys: list[Array]) -> tuple[list[Array], list[Array]]:
    all_rows, all_keys = np.concatenate(rows), np.concatenate(keys)
    chosen = np.sort(np.argsort(all_keys, kind="stable")[:SAMPLE_TOKENS])
    return [all_rows[chosen]], [all_keys[chosen]]


@dataclass(frozen=True)
class CodecSample:
    """Numbers of the passages that a codec is `fitted` to, and of those `outside` on which its error is measured."""

    fitted: frozenset[int]
    outside: frozenset[int]


def choose_sample(numbers: Sequence[int] | NDArray[np.int64], fitted: int) -> CodecSample:
    """`fitted` of the numbers in even steps, and MEASURED_PASSAGES of the others. Takes as long for any corpus."""
    places = np.array(spread(range(len(numbers)), fitted), np.int64)
    others = np.array(spread(range(len(numbers) - len(places)), MEASURED_PASSAGES), np.int64)
    # How many others stand before each fitted one tells where among all the others are.
    outside = others + np.searchsorted(places - np.arange(len(places)), others, side="right")
    return CodecSample(*(frozenset(int(numbers[place]) for place in chosen) for chosen in (places, outside)))


@dataclass(frozen=True)
class CodecError:
    """Energy of memory, and of the error that a codec makes, summed over `passages` in float64."""

    passages: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: CodecError) -> CodecError:
        return CodecError(self.passages + other.passages, self.signal + other.signal, self.noise + other.noise)

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio in dB, to a hundredth; None without a passage, or where all memory is 0."""
        if self.signal == 0:
            return None
        if not math.isfinite(self.noise):
            return LEAST_SNR_DB
        if self.noise == 0:
            return MOST_SNR_DB
        return round(min(max(10 * math.log10(self.signal / self.noise), LEAST_SNR_DB), MOST_SNR_DB), 2)


@dataclass(frozen=True)
class SampleErrors:
    """The error of a shard's or a store's memory on passages of a sample, and on those measured outside it."""

    fitted: CodecError = field(default_factory=CodecError)
    outside: CodecError = field(default_factory=CodecError)

    @staticmethod
    def total(parts: Iterable[SampleErrors]) -> SampleErrors:
        """The sums, in the order of the parts: another order would round otherwise."""
        fitted, outside = CodecError(), CodecError()
        for part in parts:
            fitted, outside = fitted + part.fitted, outside + part.outside
        return SampleErrors(fitted, outside)

    def snr(self) -> CodecSnr | None:
        """As the manifest has it; None where no memory was measured."""
        fitted, outside = self.fitted.snr_db, self.outside.snr_db
        return None if fitted is None and outside is None else CodecSnr(fitted, outside)


class ErrorMeter:
    """Measures a codec while passages are encoded: of those in a sample, what comes back is held against the memory."""

    def __init__(self, codec: Codec, sample: CodecSample) -> None:
        self._codec, self._sample = codec, sample
        self._fitted = self._outside = CodecError()

    @property
    def errors(self) -> SampleErrors:
        """The sums so far."""
        return SampleErrors(self._fitted, self._outside)

    def add(self, number: int, memory: Array, tensors: Mapping[str, Array]) -> None:
        """Passage `number`: its memory (tokens, d_model) float32, and the tensors that the codec made of it."""
        if number in self._sample.fitted:
            self._fitted += self._error(memory, tensors)
        elif number in self._sample.outside:
            self._outside += self._error(memory, tensors)

    def _error(self, memory: Array, tensors: Mapping[str, Array]) -> CodecError:
        exact = memory.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            lost = self._codec.decode(tensors) - exact
        return CodecError(1, float(np.square(exact).sum()), float(np.square(lost).sum()))


def after_another(snr: CodecSnr | None, earlier_db: float | None) -> CodecSnr | None:
    """What both codecs lose together where memory was in another of `earlier_db` before: their errors add up."""
    if snr is None or earlier_db is None:
        return None
    noise = 10 ** (-earlier_db / 10)

    def both(own: float | None) -> float | None:
        return None if own is None else round(-10 * math.log10(noise + 10 ** (-own / 10)), 2)

    return CodecSnr(both(snr.fitted_db), both(snr.outside_db))


def fit_warnings(snr: CodecSnr | None) -> tuple[str, ...]:
    """A warning where the codec does much worse on other passages than on those that it was fitted to."""
    if snr is None or snr.fitted_db is None or snr.outside_db is None:
        return ()
    if snr.fitted_db - snr.outside_db < CODEC_SNR_DROP_DB:
        return ()
    said = (
        f"the codec keeps passages that it was not fitted to {snr.outside_db:.1f} dB above its error, and its sample "
        f"{snr.fitted_db:.1f} dB: the sample is unlike the rest, or too small; take a codec of more bytes"
    )
    return (said,)


def append_warnings(appended_db: float | None, store: CodecSnr | None) -> tuple[str, ...]:
    """A warning where a store's codec does much worse on appended passages than on the store's own."""
    own_db = None if store is None else store.usual_db
    if appended_db is None or own_db is None or own_db - appended_db < CODEC_SNR_DROP_DB:
        return ()
    said = (
        f"the codec keeps the appended passages {appended_db:.1f} dB above its error, and the store's own {own_db:.1f} "
        "dB: it was fitted to none like them; build the store again from all passages, or take a codec of more bytes"
    )
    return (said,)
