"""The golden directories can be written again, by the real writers, and are read to the same tensors.

`GLIMMER_T5X_PYTHON` names an interpreter that has flax, orbax-checkpoint and tensorstore; by default this one is asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint.t5x import convert_t5x
from tests.checkpoint.golden.known import DIRECTORY, GOLDEN, KNOWN, known_weights

PYTHON = os.environ.get("GLIMMER_T5X_PYTHON", sys.executable)
MAPS = {"t5x_zarr": {"memory_encoder": "passage_encoder"}}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writers = [PYTHON, "-c", "import flax, orbax.checkpoint, tensorstore"]
    if subprocess.run(writers, capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} has no flax, orbax-checkpoint and tensorstore: name one in GLIMMER_T5X_PYTHON")
    weights, output = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("golden")
    for golden, model in GOLDEN.items():
        arrays = {name: tensor.float().numpy() for name, tensor in known_weights(*model).items()}
        np.savez(weights / f"{golden}.npz", **arrays)
    script = [PYTHON, DIRECTORY / "write_t5x.py", weights, output]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.slow
@pytest.mark.parametrize("golden", GOLDEN)
def test_what_is_written_now_is_read_alike(written: Path, golden: str) -> None:
    model, dtype = GOLDEN[golden]
    found = convert_t5x(written / golden, KNOWN[model], MAPS.get(golden, {})).tensors
    expected = known_weights(model, dtype)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    outputs = DIRECTORY / golden / "outputs.npz"
    if outputs.exists():
        stored, again = np.load(outputs), np.load(written / golden / "outputs.npz")
        for name in ("states", "logits"):
            np.testing.assert_allclose(again[name], stored[name], rtol=1e-5, atol=1e-5)
