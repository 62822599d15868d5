"""docs/format.md has every field of every record that is written to disk and read again."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from glimmer_export.calibration import ranges_file
from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.evaluation import work
from glimmer_export.runtime import contract
from glimmer_export.runtime.contract import dense_layout, vector_layout
from tests.docs.pages import DOCS

TEXT = (DOCS / "format.md").read_text(encoding="utf-8")
RECORDS = {
    "Checkpoint": [CheckpointConfig],
    "Evaluation": [work.Plan, work.Span, work.Reply],
    "manifest.json of a bundle": [
        contract.BundleManifest, contract.ModelShape, contract.GraphEntry, contract.TensorEntry,
        contract.QuantizationEntry, contract.WeightOnlyEntry, contract.FormChoice,
    ],
    "Calibration table": [ranges_file.TableRecord, ranges_file.TensorRecord],
    "engines.json": [contract.EngineRecord, contract.EngineKey, contract.EngineEntry, contract.ShapeRange],
    "parity.json": [contract.ParityRecords, contract.ParityRecord, contract.GateResult, contract.GateCheck],
    "manifest.json of a store": [
        contract.StoreManifest, contract.ShardEntry, contract.IndexEntry, contract.CodecSnr,
    ],
    "Vectors": [vector_layout.VectorsEntry, vector_layout.VectorSegmentEntry, vector_layout.EncoderEntry],
    "Vectors of earlier versions": [dense_layout.DenseManifest],
    "Sentence encoder": [vector_layout.EncoderSettings],
    "File formats": [contract.FileEntry],
}
"""The heading of each record's section."""
VERSIONS = {
    "manifest.json of a bundle": contract.BUNDLE_SCHEMA_VERSION,
    "manifest.json of a store": contract.STORE_SCHEMA_VERSION,
    "Calibration table": ranges_file.RANGES_SCHEMA_VERSION,
    "engines.json": contract.ENGINE_SCHEMA_VERSION,
    "parity.json": contract.PARITY_SCHEMA_VERSION,
    "Vectors of earlier versions": dense_layout.DENSE_SCHEMA_VERSION,
}


def section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"no section {heading}"
    return found[1]


def field_names(record: type) -> list[str]:
    return [*record.model_fields] if hasattr(record, "model_fields") else [field.name for field in fields(record)]


@pytest.mark.parametrize(
    ("heading", "record"), [(heading, record) for heading, records in RECORDS.items() for record in records],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_field_is_named(heading, record):
    named = re.findall(r"`(\w+)`", section(heading))
    assert [name for name in field_names(record) if name not in named] == []


@pytest.mark.parametrize("heading", VERSIONS)
def test_the_version_is_todays(heading):
    assert f"| `schema_version` | {VERSIONS[heading]} |" in section(heading)


@pytest.mark.parametrize("name", contract.CODECS)
def test_every_tensor_of_a_codec_is_named(name):
    layout = contract.codec_layout(name, 128)
    (row,) = (line for line in section("Shards").splitlines() if line.startswith("| `") and f"`{name}`" in line)
    tensors = (*layout.per_token, *layout.per_passage, *layout.arrays)
    assert [tensor.name for tensor in tensors if f"`{tensor.name}`" not in row] == []
