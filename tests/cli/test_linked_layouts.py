"""Bundles, stores and checkpoints as other systems lay them out, files behind links, serve as they do plain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glimmer_export.calibration.collect import CollectingBackend
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import BundleError, StoreError, file_digest
from tests.bundle_factory import write_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
QUESTIONS = ["w20 w31 w42 w53", "w0 w7"]

Layout = Callable[[Path, Path], Path]


def files_of(source: Path) -> list[Path]:
    return sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())


def hugging_face(source: Path, root: Path) -> Path:
    """A snapshot of relative links into one folder of files that are named by their digests."""
    snapshot = root / "snapshots" / "0a1b2c"
    (root / "blobs").mkdir(parents=True)
    for name in files_of(source):
        blob = root / "blobs" / file_digest(source / name)
        shutil.copy(source / name, blob)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


def dvc(source: Path, root: Path) -> Path:
    """Absolute links into a cache, which has a folder for every two digits of a digest."""
    for name in files_of(source):
        digest = file_digest(source / name)
        cached = root / "cache" / "files" / "md5" / digest[:2] / digest[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, cached)
        cached.chmod(0o444)
        (root / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "work" / name).symlink_to(cached)
    return root / "work"


def config_map(source: Path, root: Path) -> Path:
    """A volume of Kubernetes: links to what `..data` has, itself a link to the folder of one revision."""
    shutil.copytree(source, root / "..2026_11_30_03_07_43.1")
    (root / "..data").symlink_to("..2026_11_30_03_07_43.1")
    for path in source.iterdir():
        (root / path.name).symlink_to(Path("..data") / path.name)
    return root


def config_maps(source: Path, root: Path) -> Path:
    """A volume for each folder."""
    root.mkdir(exist_ok=True)
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        place = root / folder.relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        (place / "..2026_11_30_03_07_43.1").mkdir()
        (place / "..data").symlink_to("..2026_11_30_03_07_43.1")
        for path in folder.iterdir():
            if path.is_file():
                shutil.copy(path, place / "..data" / path.name)
                (place / path.name).symlink_to(Path("..data") / path.name)
    return root


@pytest.fixture(params=[hugging_face, dvc, config_map, config_maps])
def layout(request) -> Layout:
    return request.param


@pytest.fixture
def bundle(layout: Layout, tmp_path: Path) -> Path:
    return layout(GOLDEN / "bundle", tmp_path / "bundle")


@pytest.fixture
def store(layout: Layout, tmp_path: Path) -> Path:
    return layout(GOLDEN / "store-tantivy", tmp_path / "store")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "questions.jsonl", [{"question": text, "answers": ["w1"]} for text in QUESTIONS])


def test_answers_are_those_of_the_plain_files(cli, bundle, store):
    assert cli("inspect", bundle).code == 0
    for text in QUESTIONS:
        asked, plain = (
            cli("ask", place, text, "--store", stored, "--json").json
            for place, stored in ((bundle, store), (GOLDEN / "bundle", GOLDEN / "store-tantivy"))
        )
        for part in ("answer", "token_ids", "passages"):
            assert asked[part] == plain[part]


def test_openvino_reads_weights_behind_links(bundle):
    """Which of its own accord refuses those that lie outside the graph's folder."""
    answers = []
    for place in (bundle, GOLDEN / "bundle"):
        with Session.open(place, GOLDEN / "store-fp16", backend="openvino", threads=1) as session:
            answers.append(session.answer(QUESTIONS[0]))
    linked, plain = answers
    assert (linked.token_ids, linked.log_probability) == (plain.token_ids, plain.log_probability)


def test_a_store_is_verified(cli, store):
    report = cli("memory", "verify", store, "--json").json
    assert report["damaged"] == []
    assert report["unnamed"] == []


@pytest.mark.parametrize("layout", [dvc], indirect=True)
def test_what_reads_the_weights_itself(cli, bundle, store, questions, tmp_path):
    """Neither ONNX Runtime, nor onnx, nor onnx_ir follows links out of a graph's folder of its own accord."""
    arguments = ("--store", store, "--questions", questions, "--json")
    assert cli("parity", bundle, "--reference", GOLDEN / "bundle", *arguments).code == 0
    assert cli("lint", bundle, "--target", "cpu").code == cli("lint", GOLDEN / "bundle", "--target", "cpu").code
    assert cli("cost", "--bundle", bundle).code == 0
    made = []
    for number, source in enumerate((bundle, GOLDEN / "bundle")):
        assert cli("quantize", source, "-o", tmp_path / str(number), "--graphs", "decoder_step").code == 0
        made.append(file_digest(tmp_path / str(number) / "graphs" / "weights.data"))
    assert made[0] == made[1]


@pytest.mark.parametrize("layout", [dvc], indirect=True)
def test_ranges_are_collected(bundle, store):
    """The graph is given as bytes, and its weights stay where they are."""
    backends = [CollectingBackend(OnnxRuntimeBackend(1), limit=2, threads=1) for _ in range(2)]
    for backend, place in zip(backends, (bundle, GOLDEN / "bundle"), strict=True):
        with Session.open(place, store, backend=backend) as session:
            session.answer(QUESTIONS[0])
    linked, plain = (backend.collectors["decoder_step"].result() for backend in backends)
    assert {name: found.maximum for name, found in linked.items()} == {
        name: found.maximum for name, found in plain.items()
    }


def test_a_checkpoint_is_read(layout, tmp_path):
    checkpoint = layout(GOLDEN / "checkpoint", tmp_path / "checkpoint")
    assert read_checkpoint(checkpoint).config == read_checkpoint(GOLDEN / "checkpoint").config


def test_what_lies_behind_the_links_is_verified(cli, bundle, store):
    for path in ((bundle / "graphs" / "weights.data").resolve(), (store / "shards" / "00000.safetensors").resolve()):
        path.chmod(0o644)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    done = cli("inspect", bundle)
    assert (done.code, done.err.partition(":")[0]) == (2, BundleError.__name__)
    done = cli("ask", GOLDEN / "bundle", QUESTIONS[0], "--store", store)
    assert (done.code, done.err.partition(":")[0]) == (2, StoreError.__name__)
