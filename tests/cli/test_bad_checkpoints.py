"""Checkpoints that cannot be exported: a named error, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glimmer_export.runtime.contract import CheckpointError, OptionError, OutputError, TokenizerError
from tests.bundle_factory import VOCABULARY, rewrite
from tests.exported import Exported
from tests.t5_factory import make_t5, save_t5

OF_INIT = (CheckpointError, OptionError)
TENSOR = "live_encoder.block.1.layer.0.SelfAttention.q.weight"


@pytest.fixture
def checkpoint(glimmer: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(glimmer.checkpoint, tmp_path / "checkpoint"))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def drop_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()


def truncate_weights(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def truncate_header(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def drop_tensor(checkpoint: Path) -> None:
    kept = {name: tensor for name, tensor in weights(checkpoint).items() if name != TENSOR}
    save_file(kept, checkpoint / "model.safetensors")


def transpose_tensor(checkpoint: Path) -> None:
    found = weights(checkpoint)
    found[TENSOR] = found[TENSOR][:, :-1].contiguous()
    save_file(found, checkpoint / "model.safetensors")


def add_tensor(checkpoint: Path) -> None:
    save_file({**weights(checkpoint), "more.weight": torch.zeros(3)}, checkpoint / "model.safetensors")


def put_nan(checkpoint: Path) -> None:
    found = weights(checkpoint)
    found[TENSOR][3, 4] = torch.nan
    save_file(found, checkpoint / "model.safetensors")


def put_integers(checkpoint: Path) -> None:
    found = weights(checkpoint)
    found[TENSOR] = found[TENSOR].int()
    save_file(found, checkpoint / "model.safetensors")


def name_a_missing_shard(checkpoint: Path) -> None:
    drop_weights(checkpoint)
    index = {"weight_map": {TENSOR: "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def name_a_shard_outside(checkpoint: Path) -> None:
    shutil.move(checkpoint / "model.safetensors", checkpoint.parent / "outside.safetensors")
    index = {"weight_map": {TENSOR: "../outside.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def change_config(**changes: object):
    return lambda checkpoint: rewrite(checkpoint / "config.json", **changes)


def drop_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()


def garble_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"model_type": "glimmer",', encoding="utf-8")


def enlarge_tokenizer(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"]["one more"] = len(VOCABULARY)
    path.write_text(json.dumps(content), encoding="utf-8")


def garble_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{}", encoding="utf-8")


CASES = [
    (drop_weights, CheckpointError, "model.safetensors"),
    (truncate_weights, CheckpointError, "model.safetensors"),
    (truncate_header, CheckpointError, "model.safetensors"),
    (drop_tensor, CheckpointError, TENSOR),
    (transpose_tensor, CheckpointError, TENSOR),
    (add_tensor, CheckpointError, "more.weight"),
    (put_nan, CheckpointError, TENSOR),
    (put_integers, CheckpointError, TENSOR),
    (name_a_missing_shard, CheckpointError, "model-00001-of-00002.safetensors"),
    (name_a_shard_outside, CheckpointError, "../outside.safetensors"),
    (change_config(architecture="bert"), CheckpointError, "architecture"),
    (change_config(dropout_rate=0.1), CheckpointError, "dropout_rate"),
    (change_config(d_model="32"), CheckpointError, "d_model"),
    (change_config(num_stage_a_layers=0), CheckpointError, "num_stage_a_layers is 0"),
    (change_config(num_stage_b_layers=2), CheckpointError, "live_encoder.block.2"),
    (change_config(num_selected=None), CheckpointError, "num_selected"),
    (change_config(num_selected=9), CheckpointError, "num_selected 9"),
    (change_config(eos_token_id=5000), CheckpointError, "eos_token_id"),
    (change_config(passage_template="{body}"), CheckpointError, "passage_template"),
    (drop_config, CheckpointError, "config.json"),
    (garble_config, CheckpointError, "config.json"),
    (enlarge_tokenizer, TokenizerError, f"an id {len(VOCABULARY)}"),
    (garble_tokenizer, TokenizerError, "tokenizer.json"),
]


@pytest.mark.parametrize(("damage", "error", "message"), CASES)
def test_export_refuses_and_writes_nothing(refused, checkpoint, tmp_path, damage, error, message):
    damage(checkpoint)
    assert message in refused(error, "export", checkpoint, "-o", tmp_path / "bundle")


@pytest.mark.parametrize(("damage", "error", "message"), [CASES[0], CASES[6], CASES[10]])
def test_parity_refuses(refused, glimmer, checkpoint, tmp_path, damage, error, message):
    damage(checkpoint)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "w1"}\n', encoding="utf-8")
    arguments = ("--checkpoint", checkpoint, "--store", glimmer.store, "--questions", questions)
    assert message in refused(error, "parity", glimmer.bundle, *arguments)


def test_export_refuses_what_is_no_checkpoint(refused, tmp_path):
    refused(CheckpointError, "export", tmp_path / "nowhere", "-o", tmp_path / "bundle")
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    assert "init --from-t5" in refused(CheckpointError, "export", source, "-o", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--live-proportion", "1/1"], "memory encoder"),
        (["--live-proportion", "1/8"], "stage B"),
        (["--rerank-proportion", "1"], "stage B"),
        (["--live-proportion", "0"], "--live-proportion"),
        (["--live-proportion", "4/3"], "--live-proportion"),
        (["--rerank-proportion", "a third"], "--rerank-proportion"),
        (["--rerank-proportion", "1/0"], "--rerank-proportion"),
        (["--top-m", "30"], "num_selected"),
        (["--architecture", "lumen", "-m", "2"], "num_selected"),
        (["--architecture", "fid", "--memory-final-norm"], "memory_final_norm"),
        (["--architecture", "memory_fid", "--separate-question-encoder"], "separate_question_encoder"),
        (["--passage-template", "{body}"], "passage_template"),
        (["--question-length", "0"], "question_length"),
    ],
)  # fmt: skip
def test_init_refuses_options_that_do_not_go_together(refused, tmp_path, options, message):
    assert message in refused(OF_INIT, "init", "--random", "small", *options, "-o", tmp_path / "checkpoint")


def test_init_refuses_an_unknown_size_and_a_missing_source(refused, tmp_path):
    output = ("-o", tmp_path / "checkpoint")
    assert "base" in refused(OF_INIT, "init", "--random", "huge", *output)
    refused(CheckpointError, "init", "--from-t5", tmp_path / "nowhere", *output)


def test_init_refuses_a_tokenizer_that_does_not_fit(refused, glimmer, tmp_path):
    source = save_t5(make_t5("v1.1", vocab_size=40), tmp_path / "t5")
    arguments = ("init", "--from-t5", source, "--rerank-proportion", "1/2", "--live-proportion", "2/3")
    output = ("-o", tmp_path / "checkpoint")
    assert "40 rows" in refused(
        TokenizerError, *arguments, "--tokenizer", glimmer.checkpoint / "tokenizer.json", *output
    )
    refused(TokenizerError, *arguments, "--tokenizer", tmp_path / "nowhere.json", *output)


def test_an_output_below_a_file_cannot_be_written(refused, glimmer, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    refused(OutputError, "export", glimmer.checkpoint, "-o", tmp_path / "file" / "bundle")
