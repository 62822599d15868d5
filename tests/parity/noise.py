"""A bundle of which one graph has other weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.exported import Exported, copy_bundle, update_manifest


def noisy_bundle(source: Exported, directory: Path, graph: str, amount: float, ends: tuple[str, ...] = (".weight",)):
    """Multiply every matrix of a graph whose name ends so by 1 + `amount` times normal noise."""
    bundle = copy_bundle(source, directory)
    path = bundle / "graphs" / f"{graph}.onnx"
    model = onnx.load(path)
    random = np.random.default_rng(0)
    changed = 0
    for weight in model.graph.initializer:
        if weight.name.endswith(ends) and len(weight.dims) == 2:
            values = numpy_helper.to_array(weight)
            noise = random.normal(1, amount, values.shape)
            weight.CopyFrom(numpy_helper.from_array((values * noise).astype(values.dtype), weight.name))
            changed += 1
    assert changed
    onnx.save(model, path)
    update_manifest(bundle, graph)
    return bundle
