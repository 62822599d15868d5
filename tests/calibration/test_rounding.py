"""The demo's questions answered by FP16 graphs, every operator rounded."""

from __future__ import annotations

import shutil

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.rescale_codes import RescaleCodes
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.demo.world import generate_split, write_world
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import BundleError, read_manifest
from tests.exported import load_graph, update_manifest

NUM_QUESTIONS = 200
BATCH = 25


def answers(bundle, store, rows, backend="onnxruntime-cpu"):
    found = []
    with Session.open(bundle, store, threads=1, backend=backend) as session:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            found += session.answer_many([row["question"] for row in part], passages=[row["ctx_ids"] for row in part])
    return found


@pytest.mark.parametrize("form", ["exact algebra", "paper's form"])
def test_fp16_graphs_answer_as_fp32_ones_do(demo_bundles, form, tmp_path):
    world = generate_split("test", NUM_QUESTIONS, seed=4)
    write_world(tmp_path, world)
    build_store(demo_bundles[form], tmp_path / "corpus.jsonl", tmp_path / "store", threads=1)
    half = shutil.copytree(demo_bundles[form], tmp_path / "half")
    for path in (half / "graphs").glob("*.onnx"):
        model = load_graph(path)
        RescaleCodes()(model)
        ConvertFp16()(model)
        ir.save(model, path)
        update_manifest(half, path.stem)
    expected = answers(demo_bundles[form], tmp_path / "store", world.questions)
    found = answers(half, tmp_path / "store", world.questions, RoundingBackend(threads=1))
    pairs = list(zip(expected, found, strict=True))
    assert np.mean([one.answer == other.answer for one, other in pairs]) >= 0.99
    assert np.mean([len({*one.selected} & {*other.selected}) / len(one.selected) for one, other in pairs]) >= 0.99


def test_a_damaged_graph_is_refused_by_its_own_name(glimmer, tmp_path):
    io = read_manifest(glimmer.bundle).io()["memory_encoder"]
    (tmp_path / "memory_encoder.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"memory_encoder.onnx: expected a graph that ONNX Runtime can load"):
        RoundingBackend().load(tmp_path / "memory_encoder.onnx", io)
