"""Every kind of file and folder in the place of every other: it is called what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glimmer_export.calibration.ranges_file import RANGES_FILE, TableRecord
from glimmer_export.exporter.checkpoint import read_config
from glimmer_export.exporter.checkpoint.t5_shape import read_t5_shape
from glimmer_export.runtime.contract import BundleManifest, EngineRecord, GlimmerError, ParityRecords, StoreManifest
from glimmer_export.runtime.contract.dense_layout import DENSE_FILE, DenseManifest
from glimmer_export.runtime.contract.engine_record import ENGINE_FILE
from glimmer_export.runtime.contract.kinds import FORMATS
from glimmer_export.runtime.contract.manifest import BUNDLE_FILE, read_manifest
from glimmer_export.runtime.contract.parity_record import PARITY_FILE
from glimmer_export.runtime.contract.records import FileKind, read_record
from glimmer_export.runtime.contract.store_layout import STORE_FILE
from glimmer_export.runtime.contract.store_manifest import read_store_manifest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FILES: list[tuple[FileKind, type]] = [
    (BUNDLE_FILE, BundleManifest), (STORE_FILE, StoreManifest), (DENSE_FILE, DenseManifest),
    (ENGINE_FILE, EngineRecord), (RANGES_FILE, TableRecord), (PARITY_FILE, ParityRecords),
]
NEWER = 99


def test_every_format_is_one_of_a_reader_and_stands_first_in_its_files():
    assert {kind.format for kind, _ in FILES} == set(FORMATS)
    for kind, record in FILES:
        assert [*record.__dataclass_fields__][:2] == ["format", "schema_version"]
        assert record.__dataclass_fields__["format"].default == kind.format


@pytest.mark.parametrize("found", FORMATS)
@pytest.mark.parametrize(("kind", "record"), FILES, ids=lambda value: getattr(value, "format", ""))
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, kind, record, found):
    """Its version says nothing then; of the right kind, a newer version asks for a newer glimmer-export."""
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": found, "schema_version": NEWER}), encoding="utf-8")
    with pytest.raises(GlimmerError) as refused:
        read_record(path, kind, record, error=GlimmerError, subject="the file", fix="name another")
    if found == kind.format:
        assert refused.value.fix == "install a newer glimmer-export"
    else:
        assert refused.value.expected == f"{FORMATS[kind.format]} ({kind.format})"
        assert refused.value.found == f"{FORMATS[found]} ({found})"
        assert refused.value.fix == "name another"


@pytest.mark.parametrize("named", ["glimmer-other", "", None, 7, ["glimmer-bundle"]])
def test_a_format_that_nobody_knows(tmp_path, named):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": named, "schema_version": BUNDLE_FILE.version}), encoding="utf-8")
    with pytest.raises(GlimmerError, match="found format "):
        read_record(path, BUNDLE_FILE, BundleManifest, error=GlimmerError, subject="the file", fix="")


WANTED: dict[str, Callable[[Path], object]] = {
    "a bundle": read_manifest, "a memory store": read_store_manifest, "a checkpoint": read_config,
    "a T5 checkpoint": read_t5_shape,
}


def named(folder: Path, name: str, content: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> dict[str, list[Path]]:
    """Paths by what they are: as it is written today, and as earlier versions or others wrote it."""
    root = tmp_path_factory.mktemp("kinds")

    def ours(kind: str, name: str) -> Path:
        return named(root / kind, name, {"format": kind, "schema_version": NEWER})

    files = {name: root / name for name in ("notes.txt", "table.json")}
    for path in files.values():
        path.write_text("{}")
    old_ranges = named(root / "calibration", "ranges.json", {"schema_version": 1})
    return {
        "a bundle": [ours("glimmer-bundle", "manifest.json"), GOLDEN / "schema7" / "bundle"],
        "a memory store": [ours("glimmer-store", "manifest.json"), GOLDEN / "store-int8"],
        "an index of vectors": [ours("glimmer-vectors", "manifest.json")],
        "a bundle's engines": [ours("glimmer-engines", "engines.json")],
        "a table of ranges": [ours("glimmer-ranges", "ranges.json"), old_ranges, old_ranges / "ranges.json"],
        "a parity record": [
            ours("glimmer-parity", "parity.json") / "parity.json",
            Path(shutil.copy(GOLDEN / "bundle" / "parity.json", root)),
        ],
        "a checkpoint": [GOLDEN / "checkpoint"],
        "a T5 checkpoint": [named(root / "t5", "config.json", {"model_type": "t5"})],
        "a Hugging Face model of the type 'bert'": [named(root / "bert", "config.json", {"model_type": "bert"})],
        "a sentence encoder": [named(root / "encoder", "encoder.json", {})],
        "a file": [*files.values()],
        "another folder": [Path(shutil.copytree(root / "bert", root / "empty", ignore=lambda *_: ["config.json"]))],
        "nothing of that name": [root / "absent"],
    }


@pytest.mark.parametrize("wanted", WANTED)
def test_a_folder_of_another_kind_is_called_what_it_is(things, wanted):
    for kind, paths in things.items():
        for path in paths:
            if kind == wanted:
                continue
            with pytest.raises(GlimmerError) as refused:
                WANTED[wanted](path)
            assert (refused.value.expected, refused.value.found) == (wanted, kind), path
            assert "newer" not in refused.value.fix
