"""Trainings with frozen memory: what a store was made by stays, and what reads it is trained."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.digest import memory_digest
from glimmer_export.exporter.checkpoint.weights import MEMORY_PREFIXES
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.stages import GlimmerModel
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.exporter.training.recipe import Recipe
from glimmer_export.exporter.training.train import TrainingData, train_checkpoint
from glimmer_export.exporter.training.trainable import model_to_train
from glimmer_export.runtime.contract import OptionError, OutputError, StoreError
from tests.bundle_factory import write_rows
from tests.exported import Exported
from tests.training.short import train_tiny

CODEC = TOLERANCES["fp16"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    asked = [{"question": f"w{place} w3", "answers": [f"w{place}"]} for place in range(6)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", asked)


def recipe(**changes: object) -> Recipe:
    fields = {
        "steps": 2, "batch_size": 3, "num_retrieved": 3, "num_selected": 2, "learning_rate": 1e-2, "memory": "frozen",
        "precision": "float32", "keep": "last",
    }  # fmt: skip
    return Recipe.model_validate(fields | changes)


def train(source: Exported, rows: Path, output: Path, *, store: Path | None = None, **changes: object) -> list[float]:
    """Train with the passages of a store, or of the corpus if there is none; the losses."""
    corpus = CorpusSource.of([source.corpus], None) if store is None else None
    data = TrainingData(train=[str(rows)], corpus=corpus, store=store)
    console = Console(file=io.StringIO())
    train_checkpoint(source.checkpoint, data, recipe(**changes), output, device="cpu", console=console)
    lines = map(json.loads, (output / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines]


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, every option", "lumen", "memory_fid"])
def test_what_the_store_was_made_by_stays_and_the_rest_is_trained(exported, rows, tmp_path, variant):
    """A question encoder of its own is trained; one that is the memory encoder too stays with that."""
    source = exported(variant)
    train(source, rows, tmp_path / "out", store=source.store)
    before, after = (read_checkpoint(path) for path in (source.checkpoint, tmp_path / "out"))
    moved = {name for name in before.tensors if not torch.equal(before.tensors[name], after.tensors[name])}
    assert {name for name in moved if name.startswith(MEMORY_PREFIXES)} == set()
    assert memory_digest(after) == memory_digest(before)
    assert "decoder" in {name.split(".")[0] for name in moved}
    own = {name for name in before.tensors if name.startswith("question_encoder.")}
    assert bool(own) == before.config.separate_question_encoder
    assert own <= moved


def test_the_memory_is_read_and_not_encoded(glimmer, rows, tmp_path, monkeypatch):
    encoded, plain = 0, GlimmerModel.encode_memory

    def watched(self, *arguments):
        nonlocal encoded
        encoded += 1
        return plain(self, *arguments)

    monkeypatch.setattr(GlimmerModel, "encode_memory", watched)
    train(glimmer, rows, tmp_path / "stored", store=glimmer.store)
    assert encoded == 0
    train(glimmer, rows, tmp_path / "encoded")
    assert encoded > 0


def test_a_store_gives_the_loss_that_encoding_gives(glimmer, rows, tmp_path):
    """Without dropout, in steps of a small rate: what FP16 keeps of the memory is the difference, and there is one."""
    stored = train(glimmer, rows, tmp_path / "stored", store=glimmer.store, dropout=0.0, learning_rate=1e-4)
    encoded = train(glimmer, rows, tmp_path / "encoded", dropout=0.0, learning_rate=1e-4)
    assert stored == pytest.approx(encoded, rel=CODEC.rtol)
    assert stored != encoded


def test_nothing_is_dropped_in_a_frozen_encoder(glimmer):
    checkpoint = read_checkpoint(glimmer.checkpoint)
    device = torch.device("cpu")
    model = model_to_train(checkpoint.config, checkpoint.tensors, recipe(dropout=0.5), seed=0, device=device)
    ids = torch.arange(3, 15).reshape(2, 6)
    first, second = (model.encode_memory(ids, torch.ones_like(ids)) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    trained = model_to_train(
        checkpoint.config, checkpoint.tensors, recipe(dropout=0.5, memory="trained"), seed=0, device=device
    )
    first, second = (trained.encode_memory(ids, torch.ones_like(ids)) for _ in range(2))
    assert not torch.equal(first, second)


def test_a_training_goes_on_with_a_store_of_its_own_codec_alone(glimmer, rows, tmp_path, monkeypatch):
    from glimmer_export.exporter.memory import convert_store

    with monkeypatch.context() as patch:
        patch.setattr("glimmer_export.exporter.training.train.remove_state", lambda _: None)
        train(glimmer, rows, tmp_path / "out", store=glimmer.store)
    (tmp_path / "out").rename(tmp_path / "first")
    convert_store(glimmer.store, tmp_path / "int8", "int8")
    with pytest.raises(OutputError, match="expected memory int8, as asked for, found fp16"):
        train(glimmer, rows, tmp_path / "out", store=tmp_path / "int8")


def test_a_store_of_another_checkpoint_is_refused(glimmer, exported, rows, tmp_path):
    with pytest.raises(StoreError):
        train(glimmer, rows, tmp_path / "out", store=exported("lumen").store)


def test_fid_has_no_memory_to_freeze(joined_checkpoint, given_rows, tmp_path):
    with pytest.raises(OptionError, match="memory=trained"):
        train_tiny(joined_checkpoint, given_rows, tmp_path / "out", memory="frozen")
    assert list(tmp_path.iterdir()) == []
