"""No command waits for a FIFO, or reads a device, that stands in place of a file: it is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundle_factory import write_rows
from tests.checkpoint.golden.known import KNOWN

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
T5 = {
    "model_type": "t5", "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4,
    "decoder_start_token_id": 0,
}
LIMIT_S = 120
"""A command that hangs is stopped, and fails its test."""
OPEN_BUNDLES = [
    "inspect {bundle}",
    "lint {bundle} --target cpu",
    "cost --bundle {bundle}",
    "ask {bundle} w20 --store {store}",
    "answer {bundle} --store {store} --questions {questions}",
    "calibrate {bundle} --store {store} --questions {questions}",
    "quantize {bundle} -o {out}",
    "parity {bundle} --reference {other} --store {store} --questions {questions}",
    "memory build {bundle} --corpus {corpus} -o {out}",
    "memory append {store} --bundle {bundle} --corpus {corpus}",
]
OPEN_STORES = [
    "ask {bundle} w20 --store {store}",
    "memory delete {store} --id 1",
    "memory append {store} --bundle {bundle} --corpus {corpus}",
    "memory compact {store}",
    "memory convert {store} -o {out} --codec int8",
    "memory index {store} --embeddings {vectors}",
    "memory repair {store}",
]
VERIFY = "memory verify {store} --json"
BUNDLE_FILES = ("graphs/decoder_step.onnx", "graphs/weights.data", "tokenizer.json", "calibration/ranges.json")
STORE_FILES = ("passages.00002.sqlite", "shards/00001.safetensors", "tombstones/00002.safetensors",
               "index-00002/meta.json", "manifests/00001.json")  # fmt: skip


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"the command was not done after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {
        "bundle": Path(shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")), "other": GOLDEN / "bundle",
        "store": Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store")),
        "checkpoint": Path(shutil.copytree(GOLDEN / "checkpoint", tmp_path / "checkpoint")), "out": tmp_path / "out",
        "corpus": write_rows(tmp_path / "corpus.jsonl", [{"id": 900, "title": "w1", "text": "w2 w3"}]),
        "questions": write_rows(tmp_path / "questions.jsonl", [{"question": "w20", "answers": ["w1"]}]),
        "vectors": tmp_path / "absent.npy",
    }


def put(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def refuses(done, path: Path, kind: str) -> None:
    assert done.code == 2, done.out
    assert f"expected a regular file, found {kind}" in done.err
    assert path.name in done.err


@pytest.mark.parametrize("command", OPEN_BUNDLES)
def test_a_bundles_manifest(cli, places, command):
    put(places["bundle"] / "manifest.json", "a FIFO")
    refuses(cli(*command.format(**places).split()), places["bundle"] / "manifest.json", "a FIFO")


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.parametrize("kind", ["a FIFO", "a device"])
def test_a_bundles_files(cli, places, name, kind):
    put(places["bundle"] / name, kind)
    refuses(cli("inspect", places["bundle"]), places["bundle"] / name, kind)


@pytest.mark.parametrize("command", OPEN_STORES)
def test_a_stores_manifest(cli, places, command):
    put(places["store"] / "manifest.json", "a FIFO")
    refuses(cli(*command.format(**places).split()), places["store"] / "manifest.json", "a FIFO")


@pytest.mark.parametrize("name", STORE_FILES)
@pytest.mark.parametrize("kind", ["a FIFO", "a device"])
def test_a_stores_files(cli, places, name, kind):
    """`verify` reads them all, an older generation's too; the other commands leave what they do not read."""
    put(places["store"] / name, kind)
    done = cli(*VERIFY.format(**places).split())
    assert done.code == 1, done.err
    damaged = {item["path"]: item["found"] for item in json.loads(done.out)["damaged"]}
    assert damaged[name] == kind
    for command in OPEN_STORES if kind == "a FIFO" else ():
        done = cli(*command.format(**places).split())
        assert done.code in (0, 2)
        assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["a FIFO", "a device"])
def test_a_checkpoints_files(cli, places, name, kind):
    put(places["checkpoint"] / name, kind)
    command = "parity {bundle} --checkpoint {checkpoint} --store {store} --questions {questions}"
    refuses(cli(*command.format(**places).split()), places["checkpoint"] / name, kind)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("config.json", "huggingface"), ("generation_config.json", "huggingface"),
        ("model.safetensors.index.json", "huggingface"), ("config.json", "fid"),
        ("pytorch_model.bin.index.json", "fid"),
    ],
)
def test_a_foreign_checkpoints_files(cli, tmp_path, name, layout):
    source = tmp_path / "t5"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(T5), encoding="utf-8")
    (source / name).unlink(missing_ok=True)
    os.mkfifo(source / name)
    refuses(cli("convert", source, "--from", layout, "-o", tmp_path / "out"), source / name, "a FIFO")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "spiece.model"])
def test_a_foreign_checkpoints_content(cli, tmp_path, name):
    source = tmp_path / "t5"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(T5), encoding="utf-8")
    os.mkfifo(source / name)
    refuses(cli("convert", source, "--from", "huggingface", "-o", tmp_path / "out"), source / name, "a FIFO")


@pytest.mark.parametrize("name", ["checkpoint", "manifest.ocdbt", "target.token_embedder.embedding/.zarray"])
def test_a_t5x_checkpoints_files(cli, tmp_path, name):
    (tmp_path / "step" / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / "step" / name)
    config = tmp_path / "config.json"
    config.write_text(KNOWN["fid"].model_dump_json(), encoding="utf-8")
    done = cli("convert", tmp_path / "step", "--from", "t5x", "--config", config, "-o", tmp_path / "out")
    refuses(done, tmp_path / "step" / name, "a FIFO")
