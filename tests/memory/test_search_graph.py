"""Codes that a graph finds are numpy's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glimmer_export.exporter.memory.codec_fit import fit_codec
from glimmer_export.exporter.memory.search_graph import graph_search, searched_on
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import codec_layout

WIDTH = 128


def drawn(name):
    """Arrays as of a fit: each stage finer than the one before, no two centroids alike."""
    shapes = {array.name: array.shape for array in codec_layout(name, WIDTH).arrays}
    random = np.random.default_rng(4)
    codebook = random.normal(0, 1, shapes["memory_codebook"])
    finer = 0.7 ** np.arange(len(codebook))[:, None, None, None]
    return {"memory_scale": np.ones(1, np.float32), "memory_codebook": (codebook * finer).astype(np.float32)}


def memory(seed, tokens):
    """States of fewer dimensions than channels, of other lengths."""
    directions = np.random.default_rng(0).normal(0, 1, (24, WIDTH))
    random = np.random.default_rng(seed)
    rows = random.normal(0, 1, (tokens, 24)) @ directions + random.normal(0, 0.3, (tokens, WIDTH))
    return (rows * np.exp2(random.uniform(-2, 2, (tokens, 1)))).astype(np.float32)


@pytest.mark.parametrize("name", ["rq4x", "rq8x", "rq16x", "pq8x", "pq16x"])
def test_a_graph_finds_the_codes_that_numpy_finds(name):
    arrays = drawn(name)
    codec = open_codec(name, WIDTH, arrays, subject="store")
    search = graph_search(OnnxRuntimeBackend(threads=1), arrays["memory_codebook"], codec.kept)
    device = replace(codec, search=search)
    for tokens in (1, 70):
        states = memory(2, tokens)
        expected, found = codec.encode(states), device.encode(states)
        assert sorted(found) == sorted(expected)
        assert {key: (array.dtype, array.shape) for key, array in found.items()} == {
            key: (array.dtype, array.shape) for key, array in expected.items()
        }
        errors = [np.square(codec.decode(tensors) - states).sum(-1) for tensors in (expected, found)]
        np.testing.assert_allclose(errors[1], errors[0], rtol=1e-4)
        same = (found["memory"] == expected["memory"]).all(-1)
        assert same.mean() > 0.95  # the last bit may tell sums apart that lie equally far


def test_a_device_that_loads_graphs_searches_and_a_cpu_does_not():
    codec, cpu = open_codec("rq8x", WIDTH, drawn("rq8x"), subject="store"), OnnxRuntimeBackend(threads=1)
    assert searched_on(codec, cpu) is codec
    int8 = open_codec("int8", WIDTH, fit_codec("int8", WIDTH, [memory(1, 9)]), subject="store")
    device = OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=1)
    assert searched_on(int8, device) is int8
    there = searched_on(codec, device)
    assert there.search is not None
    assert np.array_equal(there.encode(memory(3, 20))["memory_gain"], codec.encode(memory(3, 20))["memory_gain"])
    assert (there.encode(memory(3, 20))["memory"] == codec.encode(memory(3, 20))["memory"]).mean() > 0.95
