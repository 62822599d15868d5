"""No weight of a graph, in any form, has to be copied for the rows of a batch."""

from __future__ import annotations

import onnx
import pytest

from tests.exported import VARIANTS
from tests.repeated_constants import repeated_constants


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_weight_is_repeated_for_rows(exported, variant):
    source = exported(variant)
    found = {name: repeated_constants(onnx.load(source.graph(name), load_external_data=False)) for name in source.io}
    assert {name: products for name, products in found.items() if products} == {}
