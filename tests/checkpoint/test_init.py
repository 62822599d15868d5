"""New checkpoints, from the options to the summary."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from glimmer_export.exporter.checkpoint import ModelOptions, init, read_checkpoint
from glimmer_export.exporter.checkpoint.init import init_from_t5, init_random
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape
from glimmer_export.runtime.contract import CheckpointError, OptionError, OutputError, TokenizerError
from tests.t5_factory import make_t5, save_t5

OPTIONS = ModelOptions("glimmer", Fraction(2, 3), Fraction(1, 4))
TINY = T5Shape(
    vocab_size=32, d_model=8, d_kv=4, d_ff=12, num_layers=12, num_heads=2, feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
)


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "preset", lambda name: TINY)


def test_from_t5(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    summary = init_from_t5(source, tmp_path / "ckpt", OPTIONS, seed=5)
    checkpoint = read_checkpoint(tmp_path / "ckpt")
    assert summary == {
        "checkpoint": str(tmp_path / "ckpt"), "source": str(source), "architecture": "glimmer",
        "layers": {"memory": 1, "stage_a": 1, "stage_b": 1, "decoder": 2}, "num_retrieved": 25, "num_selected": 5,
        "separate_reranker": False,
        "parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        "weight_bytes": sum(tensor.nbytes for tensor in checkpoint.tensors.values()),
        "has_tokenizer": False, "notes": [], "seed": 5,
    }


def test_the_score_head_follows_the_seed_and_nothing_else_does(tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    weights = []
    for index, seed in enumerate((5, 5, 6)):
        init_from_t5(source, tmp_path / str(index), OPTIONS, seed=seed)
        weights.append(read_checkpoint(tmp_path / str(index)).tensors)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert {name for name in weights[0] if not torch.equal(weights[0][name], weights[2][name])} == {"score.weight"}
    assert weights[0]["score.weight"].abs().min() > 0


@pytest.mark.usefixtures("tiny_presets")
def test_random(tmp_path: Path) -> None:
    options = ModelOptions("glimmer", memory_layers=20)
    summary = init_random("tiny", tmp_path / "a", options, seed=1)
    assert summary["layers"] == {"memory": 20, "stage_a": 1, "stage_b": 3, "decoder": 12}
    assert (summary["source"], summary["has_tokenizer"]) == ("random tiny", False)
    init_random("tiny", tmp_path / "b", options, seed=1)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert read_checkpoint(tmp_path / "a").tokenizer is None


def test_a_t5_of_the_published_vocabulary_takes_its_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    source = save_t5(make_t5("v1.1", vocab_size=32128, d_model=4, d_ff=4), tmp_path / "t5")
    (source / "spiece.model").symlink_to(shared_data / "t5_tokenizer" / "spiece.model")
    assert init_from_t5(source, tmp_path / "ckpt", OPTIONS)["has_tokenizer"]
    assert read_checkpoint(tmp_path / "ckpt").tokenizer == tmp_path / "ckpt" / "tokenizer.json"


@pytest.mark.usefixtures("tiny_presets")
def test_a_tokenizer_of_another_model_is_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="ids below the embedding's 32 rows, found an id 32099"):
        init_random("tiny", tmp_path / "a", OPTIONS, tokenizer=shared_data / "t5_tokenizer" / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def test_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one of base, large, small, xl, xxl"):
        init_random("tiny", tmp_path / "a", OPTIONS)


@pytest.mark.usefixtures("tiny_presets")
def test_an_existing_output_is_kept_unless_told(tmp_path: Path) -> None:
    init_random("tiny", tmp_path / "a", OPTIONS)
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        init_random("tiny", tmp_path / "a", OPTIONS, seed=1)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before
    init_random("tiny", tmp_path / "a", OPTIONS, seed=1, overwrite=True)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.usefixtures("tiny_presets")
def test_a_random_model_has_a_random_reranker(tmp_path: Path) -> None:
    summary = init_random("tiny", tmp_path / "a", ModelOptions("glimmer", separate_reranker="random"), seed=1)
    assert (summary["layers"], summary["separate_reranker"]) == (
        {"memory": 8, "stage_a": 1, "stage_b": 4, "decoder": 12}, True,
    )
    names = [name for name in read_checkpoint(tmp_path / "a").tensors if name.startswith("reranker.")]
    assert {name.split(".")[2] for name in names} == {"0"}
    with pytest.raises(OptionError, match="--separate-reranker: expected random, as no T5 is there"):
        init_random("tiny", tmp_path / "b", ModelOptions("glimmer", separate_reranker="t5"))


@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (ModelOptions("lumen", separate_reranker="random"), CheckpointError, "separate_reranker is set, but lumen"),
        (ModelOptions("glimmer", separate_reranker="new"), OptionError, "one of t5, random, found 'new'"),
    ],
)
def test_a_reranker_that_cannot_be_is_named(
    options: ModelOptions, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        init_random("tiny", tmp_path / "a", options)


@pytest.mark.usefixtures("tiny_presets")
def test_the_forms_that_training_wants_are_there(tmp_path: Path) -> None:
    """Frozen and trained memory differ in training alone; these are the shapes that it may start from."""
    forms = {
        "lumen": ModelOptions("lumen", separate_question_encoder=True, memory_layers=20),
        "glimmer": ModelOptions("glimmer", score_pooling="mean", memory_final_norm=True),
        "memory_fid": ModelOptions("memory_fid"),
        "fid": ModelOptions("fid"),
    }
    counts = {}
    for name, options in forms.items():
        init_random("tiny", tmp_path / name, options)
        config = read_checkpoint(tmp_path / name).config
        counts[name] = (config.num_memory_layers, config.num_live_layers, config.score_pooling)
    assert counts == {
        "lumen": (20, 4, "first"), "glimmer": (8, 4, "mean"), "memory_fid": (12, 0, "first"), "fid": (0, 12, "first"),
    }
    assert read_checkpoint(tmp_path / "lumen").config.separate_question_encoder
