"""Codes in blocks: how near they are to the weights, that ONNX Runtime reads them so, and what each algorithm gains."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glimmer_export.calibration.block_weights import quantizer
from glimmer_export.runtime.contract import BLOCK_SIZE, WEIGHT_ALGORITHMS, CalibrationError

BITS = pytest.mark.parametrize("bits", [4, 8])
SHAPES = [(64, 48), (33, 5), (96, 7), (7, 2)]
"""Whole blocks; a last block of one row; an odd number of blocks; less than one."""


def blocks(weight):
    """(K, N) -> (N, blocks, 32), zeros behind the end."""
    rows = -(-len(weight) // BLOCK_SIZE) * BLOCK_SIZE
    return np.pad(weight, ((0, rows - len(weight)), (0, 0))).T.reshape(weight.shape[1], -1, BLOCK_SIZE)


def random_weight(shape, seed=0):
    return np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)


def correlated(channels, rows=2000, seed=1):
    """What a product reads: channels that go together, of very different sizes."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, channels)) @ random.normal(size=(channels, channels))
    return (mixed * np.exp(random.normal(size=channels))).astype(np.float32)


def moments_of(x):
    return x.T.astype(np.float64) @ x / len(x)


FINITE = st.floats(-1e4, 1e4, width=32)
WEIGHTS = st.tuples(st.integers(1, 70), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=FINITE)
)


@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS, bits=st.sampled_from([4, 8]))
def test_each_weight_is_within_half_a_step_of_its_block(weight, bits):
    codes = quantizer("rtn")(weight, bits, None)
    values = blocks(weight)
    step = (np.maximum(values.max(-1), 0) - np.minimum(values.min(-1), 0)) / (2**bits - 1)
    error = np.abs(blocks(codes.unpacked(len(weight))) - values)
    assert (error <= step[..., None] * 0.5 + np.abs(values).max(-1, keepdims=True) * 1e-5 + 1e-37).all()


@settings(max_examples=60, deadline=None)
@given(weight=WEIGHTS, bits=st.sampled_from([4, 8]))
def test_k_quant_is_no_farther_from_any_block_than_rounding(weight, bits):
    """Blocks of one value, of one sign and of zeros among them, which the library's search loses."""
    found, rounded = (
        np.square(blocks(quantizer(name)(weight, bits, None).unpacked(len(weight)).astype(float) - weight)).sum(-1)
        for name in ("k-quant", "rtn")
    )
    rounding = BLOCK_SIZE * np.square(1e-6 * np.abs(blocks(weight)).max(-1)) + 1e-30  # of float32, where both are exact
    assert (found <= rounded * (1 + 1e-4) + rounding).all()


@BITS
def test_k_quant_gains_on_blocks_of_real_shape(bits):
    weight = random_weight((256, 64))
    found, rounded = (
        np.square(quantizer(name)(weight, bits, None).unpacked(256) - weight).mean() for name in ("k-quant", "rtn")
    )
    assert found < 0.99 * rounded


@BITS
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", WEIGHT_ALGORITHMS)
def test_onnxruntime_reads_the_codes_as_they_unpack(algorithm, shape, bits):
    weight, x = random_weight(shape), correlated(shape[0], rows=50)
    codes = quantizer(algorithm)(weight, bits, moments_of(x))
    packed, zero_points = codes.packed()
    names = dict(zip(("codes", "scales", "zero_points"), (packed, codes.scales, zero_points), strict=True))
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", *names], ["y"], domain="com.microsoft", K=shape[0], N=shape[1], bits=bits,
        block_size=BLOCK_SIZE, accuracy_level=1,
    )
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in names.items()]
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "product", sides[:1], sides[1:], constants), opset_imports=opsets, ir_version=10
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    expected = x @ codes.unpacked(shape[0])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@BITS
def test_gptq_makes_up_for_what_it_rounds(bits):
    """The product's error on inputs of the same kind, which it has not seen, is far below rounding's."""
    weight, seen, unseen = random_weight((160, 24)), correlated(160)[:1000], correlated(160)[1000:]
    error = {
        name: np.square(unseen @ (quantizer(name)(weight, bits, moments_of(seen)).unpacked(160) - weight)).mean()
        for name in WEIGHT_ALGORITHMS
    }
    assert error["gptq"] < 0.5 * error["rtn"]


def test_gptq_keeps_the_weights_of_channels_that_were_never_seen():
    weight, x = random_weight((64, 8)), correlated(64)
    x[:, ::3] = 0
    found = quantizer("gptq")(weight, 4, moments_of(x)).unpacked(64)
    step = quantizer("k-quant")(weight, 4, None).scales.repeat(BLOCK_SIZE, 1).T
    assert (np.abs(found - weight)[::3] <= 1.5 * step[::3]).all()


@pytest.mark.parametrize("moments", [None, np.zeros((8, 8))])
def test_gptq_without_inputs_is_refused(moments):
    with pytest.raises(CalibrationError, match="never ran"):
        quantizer("gptq")(random_weight((8, 3)), 4, moments)
