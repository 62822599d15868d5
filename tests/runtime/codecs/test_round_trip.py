"""What a codec gives back is near what it was given, at any magnitude, and the same alone or in a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory.codec_fit import fit_codec
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs.contract import CODE_ZERO
from glimmer_export.runtime.codecs.int4 import GROUP_CHANNELS, INT4_LIMIT
from glimmer_export.runtime.codecs.residual import STEPS_PER_OCTAVE, nearest_sums
from glimmer_export.runtime.contract import CODECS

FLOAT_ERROR = 1e-5
"""Beside half a step: float32's rounding of a quotient and two products."""
WIDTH = 72
"""No multiple of 64: the int4 codec's last group is not full."""


def memories(seed, tokens, width, exponent=0):
    """States whose channels are a thousand to one apart, and whose tokens have other norms."""
    random = np.random.default_rng(seed)
    channels = np.exp2(np.random.default_rng(0).uniform(-5, 5, width))
    rows = random.normal(0, 1, (tokens, width)) * channels * np.exp2(random.uniform(-2, 2, (tokens, 1)))
    return (rows * 2.0**exponent).astype(np.float32)


def codec_of(name, width=WIDTH, exponent=0):
    arrays = fit_codec(name, width, [memories(1, 400, width, exponent)])
    return open_codec(name, width, arrays, subject="store")


@pytest.fixture(scope="module")
def codecs():
    return {name: codec_of(name) for name in CODECS}


CASES = given(
    st.integers(0, 2**32), st.integers(1, 9), st.integers(-20, 20), st.lists(st.integers(0, 8), max_size=3)
)


def drawn(seed, tokens, exponent, zeros):
    memory = memories(seed, tokens, WIDTH, exponent)
    memory[[row for row in zeros if row < tokens]] = 0
    return memory


def steps(codec, tensors):
    """The distance between two codes of a channel, (tokens, channels): of the int4 codec's groups a level's."""
    scale = codec.arrays["memory_channel_scale"] * tensors["memory_scale"][:, None]
    if codec.layout.name == "int8":
        return scale
    order, groups = codec.arrays["memory_channel_order"], tensors["memory_group_scale"].astype(np.float32)
    of_place = np.concatenate([groups.repeat(GROUP_CHANNELS, 1), np.ones(tensors["memory_outliers"].shape)], 1)
    return scale * of_place[:, order]


@settings(max_examples=25, deadline=None)
@CASES
def test_int8_is_within_half_a_step(codecs, seed, tokens, exponent, zeros):
    memory, codec = drawn(seed, tokens, exponent, zeros), codecs["int8"]
    tensors = codec.encode(memory)
    error = np.abs(codec.decode(tensors) - memory)
    assert (error <= steps(codec, tensors) * (0.5 + 127 * FLOAT_ERROR)).all()
    used = np.abs(tensors["memory"].astype(int) - CODE_ZERO).max(-1)
    assert (used == np.where(memory.any(-1), 127, 0)).all()


@settings(max_examples=25, deadline=None)
@CASES
def test_int4_is_within_half_a_step_unless_clipping_is_better(codecs, seed, tokens, exponent, zeros):
    memory, codec = drawn(seed, tokens, exponent, zeros), codecs["int4"]
    tensors = codec.encode(memory)
    error, step = np.abs(codec.decode(tensors) - memory), steps(codec, tensors)
    grouped = codec.arrays["memory_channel_order"] < WIDTH
    assert (error[:, ~grouped] <= step[:, ~grouped] * (0.5 + 127 * FLOAT_ERROR)).all()
    clipped = grouped & (np.abs(memory) > step * INT4_LIMIT)
    assert (error[~clipped] <= step[~clipped] * (0.5 + 16 * FLOAT_ERROR)).all()
    # Over a group, no more than where the scale is the least that clips nothing: a whole number of the token's units.
    unit = codec.arrays["memory_channel_scale"] * tensors["memory_scale"][:, None]
    for group in range(tensors["memory_group_scale"].shape[1]):
        members = grouped & (codec.arrays["memory_channel_order"] // GROUP_CHANNELS == group)
        peaks = np.ceil((np.abs(memory) / unit)[:, members].max(-1) / INT4_LIMIT)
        bound = np.square(peaks[:, None] * unit[:, members] * (0.5 + 16 * FLOAT_ERROR)).sum(-1)
        assert (np.square(error[:, members]).sum(-1) <= bound).all()


@settings(max_examples=10, deadline=None)
@CASES
def test_every_code_of_a_product_is_the_nearest_to_what_is_left(codecs, seed, tokens, exponent, zeros):
    memory, codec = drawn(seed, tokens, exponent, zeros), codecs["pq16x"]
    codebook = codec.arrays["memory_codebook"].astype(np.float64)
    stages, groups, _, width = codebook.shape
    codes = codec.encode(memory)["memory"].reshape(tokens, stages, groups)
    left = (memory.astype(np.float64) / codec.arrays["memory_scale"]).reshape(tokens, groups, width)
    for stage in range(stages):
        for group in range(groups):
            distance = np.linalg.norm(left[:, group, None] - codebook[stage, group], axis=-1)
            chosen = codes[:, stage, group]
            near = distance.min(-1) + 1e-4 * np.abs(left).max((1, 2)) + 1e-6
            assert (distance[np.arange(tokens), chosen] <= near).all()
            left[:, group] -= codebook[stage, group, chosen]


@settings(max_examples=10, deadline=None)
@CASES
def test_a_token_divided_by_its_gain_is_within_a_step_of_length_1(codecs, seed, tokens, exponent, zeros):
    memory, codec = drawn(seed, tokens, exponent, zeros), codecs["rq16x"]
    gains, rows = codec.evened(memory)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1)
    inside = (gains > 1) & (gains < 255)
    assert (np.abs(np.log2(lengths[inside])) <= (0.5 + 1e-4) / STEPS_PER_OCTAVE).all()
    assert (lengths[gains == 1] <= 2 ** (0.5001 / STEPS_PER_OCTAVE)).all()
    assert (lengths[gains == 255] >= 2 ** (-0.5001 / STEPS_PER_OCTAVE)).all()
    assert np.array_equal(gains == 0, ~memory.any(-1))


@pytest.mark.parametrize("name", ["rq4x", "rq8x", "rq16x"])
def test_a_token_a_thousand_times_the_others_is_as_near_as_they_are(codecs, name):
    memory = memories(7, 40, WIDTH)
    alone = codecs[name].decode(codecs[name].encode(memory))
    memory[3] *= 1000
    decoded = codecs[name].decode(codecs[name].encode(memory))
    error = np.linalg.norm(decoded - memory, axis=-1) / np.linalg.norm(memory, axis=-1)
    assert error[3] <= 1.2 * error.max(where=np.arange(40) != 3, initial=0)
    assert abs(np.linalg.norm(decoded[3]) / np.linalg.norm(memory[3]) - 1) < 0.2
    others = np.arange(40) != 3
    assert np.array_equal(decoded[others], alone[others])


def test_a_search_that_keeps_all_sums_finds_the_nearest_and_one_that_keeps_one_is_greedy():
    random = np.random.default_rng(8)
    codebook = random.normal(0, 1, (2, 3, 256, 4)).astype(np.float32)
    rows = random.normal(0, 2, (9, 12)).astype(np.float32)
    left = rows.reshape(9, 3, 4).astype(np.float64)
    sums = (codebook[0][:, :, None] + codebook[1][:, None]).astype(np.float64)  # group, first, second, width
    distances = np.square(left[:, :, None, None] - sums).sum(-1).reshape(9, 3, -1)
    first, second = np.divmod(distances.argmin(-1), 256)
    assert np.array_equal(nearest_sums(rows, codebook, 256), np.concatenate([first, second], -1))
    greedy = nearest_sums(rows, codebook, 1).reshape(9, 2, 3)
    assert np.array_equal(greedy[:, 0], np.square(left[:, :, None] - codebook[0]).sum(-1).argmin(-1))
    places = (np.arange(9)[:, None], np.arange(3))

    def found(codes):
        return distances[(*places, codes[:, 0].astype(int) * 256 + codes[:, 1])].sum()

    kept = [found(nearest_sums(rows, codebook, count).reshape(9, 2, 3)) for count in (1, 4, 16, 256)]
    assert kept == sorted(kept, reverse=True)
    assert kept[1] < kept[0]


@pytest.mark.parametrize("name", ["pq8x", "pq16x"])
def test_sums_of_centroids_that_lie_apart_are_exact(name):
    fitted = codec_of(name)
    random = np.random.default_rng(3)
    stages, groups, centroids, width = fitted.arrays["memory_codebook"].shape
    # Each stage is finer than the one before by far, so that the nearest is the one that was added.
    magnitudes = 256.0 ** -np.arange(stages)[:, None, None, None]
    codebook = (random.integers(-8, 9, (stages, groups, centroids, width)) * magnitudes).astype(np.float32)[:1]
    codebook = np.concatenate([codebook, np.zeros((stages - 1, groups, centroids, width), np.float32)])
    codec = open_codec(name, WIDTH, {**fitted.arrays, "memory_codebook": codebook}, subject="store")
    codes = np.zeros((50, stages, groups), np.uint8)
    codes[:, 0] = random.integers(0, centroids, (50, groups))
    memory = codec.decode({"memory": codes.reshape(50, -1)})
    assert np.array_equal(codec.encode(memory)["memory"], codes.reshape(50, -1))
    assert np.array_equal(codec.decode(codec.encode(memory)), memory)


@pytest.mark.parametrize("exponent", [-20, 0, 20])
@pytest.mark.parametrize("name", CODECS)
def test_a_codec_fitted_at_any_magnitude_serves_it(name, exponent):
    codec, memory = codec_of(name, exponent=exponent), memories(2, 50, WIDTH, exponent)
    error = np.square(codec.decode(codec.encode(memory)) - memory).sum() / np.square(memory).sum()
    assert error < {
        "fp16": 1e-6, "int8": 1e-3, "int4": 2e-2, "rq4x": 2e-2, "rq8x": 0.2, "rq16x": 0.4, "pq8x": 0.4, "pq16x": 0.6,
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", CODECS)
def test_tensors_are_those_of_the_layout(codecs, name):
    codec = codecs[name]
    tensors = codec.encode(memories(4, 7, WIDTH))
    per_token, per_passage = codec.layout.per_token, codec.layout.per_passage
    assert {name: (array.dtype.name, array.shape) for name, array in tensors.items()} == {
        tensor.name: (tensor.dtype, lead + tensor.shape)
        for lead, part in (((7,), per_token), ((), per_passage)) for tensor in part
    }


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_decodes_as_its_passages_do(codecs, name):
    codec = codecs[name]
    passages = [codec.encode(memories(seed, 5, WIDTH, seed)) for seed in range(6)]
    batch = {
        tensor: np.stack([passage[tensor] for passage in passages]).reshape(2, 3, *passages[0][tensor].shape)
        for tensor in passages[0]
    }
    expected = np.stack([codec.decode(passage) for passage in passages]).reshape(2, 3, 5, WIDTH)
    found = codec.decode(batch)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["fp16", "int8", "int4", "rq8x"])
def test_tokens_of_zeros_stay_zeros(codecs, name):
    memory = memories(5, 3, WIDTH)
    memory[1] = 0
    decoded = codecs[name].decode(codecs[name].encode(memory))
    assert not decoded[1].any()
    assert decoded[0].any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", CODECS)
def test_memory_that_is_not_finite_is_refused(codecs, name, value):
    memory = memories(6, 4, WIDTH)
    memory[2, 3] = value
    with pytest.raises(FloatingPointError):
        codecs[name].encode(memory)


def test_int4_packs_channel_j_low_and_channel_j_plus_half_high():
    width = 2 * GROUP_CHANNELS
    order = np.arange(width, dtype=np.int32)
    arrays = {"memory_channel_scale": np.ones(width, np.float32), "memory_channel_order": order}
    codec = open_codec("int4", width, arrays, subject="store")
    tensors = {
        "memory": np.full((1, GROUP_CHANNELS), 0x08 | 0xF0, np.uint8),
        "memory_outliers": np.full((1, 4), CODE_ZERO, np.uint8),
        "memory_group_scale": np.array([[2, 4]], np.uint8),
        "memory_scale": np.array([3], np.float32),
    }
    expected = [0.5 * 2 * 3] * GROUP_CHANNELS + [7.5 * 4 * 3] * GROUP_CHANNELS
    assert codec.decode(tensors).tolist() == [expected]
