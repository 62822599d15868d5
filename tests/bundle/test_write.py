"""A checkpoint becomes a bundle that opens, or nothing at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from glimmer_export.exporter.bundle import export_bundle, write
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest, memory_digest
from glimmer_export.exporter.graphs.write import WEIGHTS
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST, ExportError, OutputError
from tests.bundle_factory import tree
from tests.exported import PAPER_FORM, VARIANTS, copy_bundle


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_exports_within_its_tolerance_and_opens(exported, variant):
    source = exported(variant)
    assert [graph.name for graph in source.graphs] == list(source.io)
    for graph in source.graphs:
        assert 0 <= graph.max_abs_err < 1e-3
        assert graph.num_parameters > 0
    bundle = Bundle.open(source.bundle)
    checkpoint = read_checkpoint(source.checkpoint)
    assert bundle.manifest.model == checkpoint.config.shape
    assert bundle.manifest.checkpoint_digest == checkpoint_digest(checkpoint)
    assert bundle.manifest.memory_digest == memory_digest(checkpoint)
    assert {graph.precision for graph in bundle.manifest.graphs.values()} == {"fp32"}
    assert bundle.text is not None
    assert set(tree(source.bundle)) == {
        MANIFEST, "tokenizer.json", f"graphs/{WEIGHTS}", *(f"graphs/{name}.onnx" for name in source.io),
    }


def test_the_manifest_is_readable_json(glimmer):
    text = (glimmer.bundle / MANIFEST).read_text(encoding="utf-8")
    assert json.loads(text)["model"]["architecture"] == "glimmer"
    assert str(glimmer.directory) not in text


@pytest.fixture
def strict(monkeypatch):
    """A tolerance that no graph can meet."""
    monkeypatch.setitem(TOLERANCES, "fp32", dataclasses.replace(TOLERANCES["fp32"], atol=-1.0, rtol=0.0))


def test_a_missed_tolerance_leaves_nothing(glimmer, tmp_path, strict):
    with pytest.raises(ExportError, match="graph memory_encoder"):
        export_bundle(glimmer.checkpoint, tmp_path / "bundle", PAPER_FORM)
    assert list(tmp_path.iterdir()) == []


def test_a_missed_tolerance_leaves_what_was_there(glimmer, tmp_path, strict):
    copy_bundle(glimmer, tmp_path / "bundle")
    with pytest.raises(ExportError):
        export_bundle(glimmer.checkpoint, tmp_path / "bundle", PAPER_FORM, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert tree(tmp_path / "bundle") == tree(glimmer.bundle)


def test_a_failure_in_a_late_graph_leaves_nothing(glimmer, tmp_path, monkeypatch):
    def export(self, name, io, on_check):
        self._weights.path.with_name(f"{name}.onnx").write_bytes(b"half")
        if name == "cross_kv":
            raise KeyboardInterrupt
        return next(graph for graph in glimmer.graphs if graph.name == name)

    monkeypatch.setattr(write.GraphExporter, "export", export)
    monkeypatch.setattr(write, "_graph_entry", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(glimmer.checkpoint, tmp_path / "bundle", PAPER_FORM)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(glimmer, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "kept.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="--overwrite"):
        export_bundle(glimmer.checkpoint, tmp_path / "bundle", PAPER_FORM, on_graph=lambda *_: pytest.fail("began"))
    assert tree(tmp_path).keys() == {"bundle/kept.txt"}


def test_on_graph_is_told_of_each(glimmer, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(write.GraphExporter, "export", lambda *_, **__: pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        export_bundle(glimmer.checkpoint, tmp_path / "bundle", PAPER_FORM, on_graph=lambda *call: told.append(call))
    assert told == [("Exporting memory_encoder", 0, 5)]
    assert not Path(tmp_path / "bundle").exists()
