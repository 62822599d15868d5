"""A codec's arrays come from a file: whatever no codec is fitted to is named."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.exporter.memory.codec_fit import fit_codec
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.contract import StoreError

WIDTH = 64


@pytest.fixture(scope="module")
def fitted():
    memory = np.random.default_rng(0).normal(0, 1, (50, WIDTH)).astype(np.float32)
    return {name: fit_codec(name, WIDTH, [memory]) for name in ("fp16", "int8", "int4", "pq16x")}


def with_value(name, place, value):
    def change(arrays):
        array = arrays[name].copy()
        array.flat[place] = value
        return {**arrays, name: array}

    return change


@pytest.mark.parametrize(
    ("codec", "change", "message"),
    [
        ("fp16", lambda arrays: {"memory_channel_scale": np.ones(WIDTH, np.float32)}, "the arrays none, found memory_"),
        ("int8", lambda arrays: {}, "the arrays memory_channel_scale, found none"),
        ("int8", lambda arrays: {**arrays, "more": np.ones(1, np.float32)}, "found memory_channel_scale, more"),
        ("int8", lambda arrays: {name: array.astype(np.float64) for name, array in arrays.items()}, "found float64"),
        ("int8", lambda arrays: {name: array[:-1] for name, array in arrays.items()}, r"\[64\], found float32 \[63\]"),
        ("int8", with_value("memory_channel_scale", 5, np.nan), "finite values"),
        ("int8", with_value("memory_channel_scale", 5, np.inf), "finite values"),
        ("int8", with_value("memory_channel_scale", 5, 0), "scales above 0, found 0.0"),
        ("int8", with_value("memory_channel_scale", 5, -1), "scales above 0, found -1.0"),
        ("int4", with_value("memory_channel_scale", 63, 0), "scales above 0"),
        ("int4", with_value("memory_channel_order", 0, -1), "different places below 66"),
        ("int4", with_value("memory_channel_order", 0, 66), "different places below 66"),
        ("int4", with_value("memory_channel_order", 0, 1), "different places below 66"),
        ("pq16x", with_value("memory_scale", 0, 0), "scales above 0"),
        ("pq16x", with_value("memory_scale", 0, np.inf), "finite values"),
        ("pq16x", with_value("memory_codebook", 7, -np.inf), "finite values"),
        ("pq16x", lambda arrays: {**arrays, "memory_codebook": arrays["memory_codebook"][:, :, 1:]}, "1, 256, 64"),
        ("pq16x", lambda arrays: {"memory_codebook": arrays["memory_codebook"]}, "found memory_codebook"),
    ],
)
def test_arrays_that_no_codec_is_fitted_to_are_named(fitted, codec, change, message):
    open_codec(codec, WIDTH, fitted[codec], subject="store s")
    with pytest.raises(StoreError, match=message) as caught:
        open_codec(codec, WIDTH, change(fitted[codec]), subject="store s")
    assert str(caught.value).startswith("store s")


@pytest.mark.parametrize(("name", "width"), [("int3", 64), ("pq8x", 66), ("pq16x", 68), ("rq4x", 65)])
def test_a_codec_that_does_not_exist_or_fit_is_a_bug_of_the_caller(name, width):
    with pytest.raises(ValueError, match=name):
        open_codec(name, width, {}, subject="store")
