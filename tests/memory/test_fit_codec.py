"""Codecs are fitted to a sample of memory: always alike, and to any sample at all."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from glimmer_export.exporter.memory import codec_fit as module
from glimmer_export.exporter.memory.codec_fit import fit_codec, sample_rows
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.contract import CODECS, MissingExtraError, codec_layout

WIDTH = 64


def sample(seed=0, passages=12, tokens=40):
    random = np.random.default_rng(seed)
    return [random.normal(0, 1, (tokens, WIDTH)).astype(np.float32) for _ in range(passages)]


@pytest.mark.parametrize("name", CODECS)
def test_the_same_sample_gives_the_same_bytes(name):
    first, second = fit_codec(name, WIDTH, sample()), fit_codec(name, WIDTH, iter(sample()))
    assert {key: array.tobytes() for key, array in first.items()} == {
        key: array.tobytes() for key, array in second.items()
    }
    expected = {array.name: (array.dtype, array.shape) for array in codec_layout(name, WIDTH).arrays}
    assert {key: (array.dtype.name, array.shape) for key, array in first.items()} == expected


def test_a_codebook_is_better_than_its_first_rows():
    """Fitted to 480 rows and tried on others, each stage lowers the error."""
    codec = open_codec("pq8x", WIDTH, fit_codec("pq8x", WIDTH, sample()), subject="store")
    memory = sample(1)[0]
    errors = []
    for stages in range(codec.arrays["memory_codebook"].shape[0] + 1):
        codebook = codec.arrays["memory_codebook"].copy()
        codebook[stages:] = 0
        part = open_codec("pq8x", WIDTH, {**codec.arrays, "memory_codebook": codebook}, subject="store")
        errors.append(np.square(part.decode(part.encode(memory)) - memory).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.75 * errors[0]


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, WIDTH)), np.zeros((5, WIDTH)), np.ones((1, WIDTH)), np.full((300, WIDTH), 3.0),
        np.full((4, WIDTH), 1e30), np.full((4, WIDTH), 1e-30), np.eye(WIDTH), np.full((2, WIDTH), np.nan),
    ],
    ids=["none", "zeros", "one", "constant", "huge", "tiny", "unit vectors", "not a number"],
)
@pytest.mark.parametrize("name", CODECS)
def test_any_sample_gives_arrays_that_open(name, rows):
    rows = rows.astype(np.float32)
    codec = open_codec(name, WIDTH, fit_codec(name, WIDTH, [rows]), subject="store")
    finite = rows[np.isfinite(rows).all(-1)]
    if finite.any():
        error = np.abs(codec.decode(codec.encode(finite)) - finite).max()
        # No level of a nibble is 0: beside the 1 of a unit vector, that costs half of a seventh and a half.
        assert error <= (0.21 if name == "int4" else 0.04) * np.abs(finite).max()


@pytest.mark.parametrize("name", ["pq8x", "pq16x"])
def test_a_sample_smaller_than_a_codebook_is_kept_whole(name):
    memory = sample(2, passages=1)[0]
    codec = open_codec(name, WIDTH, fit_codec(name, WIDTH, [memory]), subject="store")
    assert np.array_equal(codec.decode(codec.encode(memory)), memory)


def test_channels_that_are_large_get_large_scales_and_the_worst_eight_bits():
    memory = sample(3, passages=1, tokens=400)[0]
    memory[:, 7] *= 50
    memory[:, 9] = 0
    scale = fit_codec("int8", WIDTH, [memory])["memory_channel_scale"]
    assert scale.argmax() == 7
    assert scale.argmin() == 9
    arrays = fit_codec("int4", WIDTH, [memory])
    assert arrays["memory_channel_order"][7] == WIDTH
    assert np.bincount(arrays["memory_channel_order"]).max() == 1


def test_a_sample_is_bounded_and_as_likely_from_every_part(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_TOKENS", 200)
    rows = [np.full((50, 2), number, np.float32) for number in range(40)]
    kept = sample_rows(2, rows)
    assert kept.shape == (200, 2)
    assert (np.diff(kept[:, 0]) >= 0).all()
    halves = [(kept[:, 0] < 20).sum(), (kept[:, 0] >= 20).sum()]
    assert min(halves) > 60


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[dense\]"):
        fit_codec("pq16x", WIDTH, sample())
    assert fit_codec("int4", WIDTH, sample())
