"""What bundles hand over in FP16 or FP32 is cast on the host, and refused by name on a device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from glimmer_export.runtime.backends.tensor_checks import in_types
from glimmer_export.runtime.contract import BundleError

STATES, CACHE = "encoder_hidden_states", "past_key_values.0.decoder.key"
HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


class OnDevice:
    """A tensor that the host cannot cast."""

    shape, dtype, address = (2,), SINGLE, 256


@pytest.mark.parametrize(("given", "wanted"), [(SINGLE, HALF), (HALF, SINGLE), (HALF, HALF)])
@pytest.mark.parametrize("name", [STATES, CACHE])
def test_an_array_is_cast(name, given, wanted):
    array = np.array([0.5, -3.0], given)
    found = in_types({name: array, "other": array}, {name: wanted}, "graph")
    assert list(found) == [name]
    assert (found[name].dtype, found[name].tolist()) == (wanted, [0.5, -3.0])
    assert (found[name] is array) == (given == wanted)


def test_what_fp16_does_not_hold_is_infinite_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = in_types({STATES: np.array([1e6], np.float32)}, {STATES: HALF}, "graph")[STATES]
    assert np.isinf(found).all()


def test_a_tensor_on_a_device_is_refused_by_name():
    with pytest.raises(BundleError, match=f"graph decoder_step, {CACHE}: expected a tensor of float16, found one of f"):
        in_types({CACHE: OnDevice()}, {CACHE: HALF}, "graph decoder_step")


@pytest.mark.parametrize(("name", "array"), [("logits", np.zeros(2, np.float32)), (STATES, np.zeros(2, np.int32))])
def test_no_other_type_is_cast(name, array):
    with pytest.raises(TypeError, match=f"graph, {name}: expected float16, found {array.dtype}"):
        in_types({name: array}, {name: HALF}, "graph")
