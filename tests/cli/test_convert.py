"""`glimmer-export convert`: a checkpoint of another layout becomes one of ours, or nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.files.publish import swap_directory
from glimmer_export.runtime.contract import CheckpointError, OptionError, OutputError, TokenizerError
from tests.checkpoint.golden.known import DIRECTORY, KNOWN, known_weights
from tests.cli.conftest import snapshot
from tests.fid_factory import make_reader, save_fid, word_tokenizer
from tests.t5_factory import make_t5, save_t5


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Config, map and tokenizer of the known GLIMMER."""
    (tmp_path / "config.json").write_text(KNOWN["glimmer"].model_dump_json())
    (tmp_path / "map.yaml").write_text("memory_encoder: passage_encoder\n")
    words = {f"w{number}": number for number in range(40)}
    Tokenizer(models.WordLevel(words, unk_token="w2")).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def arguments(files: Path) -> list[object]:
    return [
        "convert", "--from", "t5x", DIRECTORY / "t5x_zarr", "--map", files / "map.yaml", "--config",
        files / "config.json", "--tokenizer", files / "tokenizer.json", "-o", files / "ckpt",
    ]


def test_from_t5x(cli, files):
    report = cli(*arguments(files), "--json").json
    assert report["architecture"] == "glimmer"
    assert report["layers"] == {"memory": 2, "stage_a": 1, "stage_b": 1, "decoder": 2}
    assert (report["unused"], report["has_tokenizer"], report["layout"]) == ([], True, "t5x")
    checkpoint = read_checkpoint(files / "ckpt")
    assert checkpoint.config == KNOWN["glimmer"]
    expected = known_weights("glimmer")
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in expected.items())


def test_a_conversion_that_was_killed_after_publishing_is_complete(cli, refused, files, monkeypatch):
    def killed(*arguments):
        swap_directory(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("glimmer_export.exporter.files.publish.swap_directory", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(
                "t5x", DIRECTORY / "t5x_zarr", files / "ckpt", config=files / "config.json", names=files / "map.yaml",
                tokenizer=files / "tokenizer.json",
            )
    before = snapshot(files)
    again = cli(*arguments(files))
    assert (again.code, again.err) == (0, "")
    assert "was already complete" in again.out
    assert cli(*arguments(files), "--json").json["already_complete"]
    assert snapshot(files) == before
    assert not cli(*arguments(files), "--overwrite", "--json").json["already_complete"]
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        content = bytearray((files / "ckpt" / name).read_bytes())
        (files / "ckpt" / name).write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        assert "a path that does not exist yet" in refused(OutputError, *arguments(files))
        (files / "ckpt" / name).write_bytes(content)
    without = [part for part in arguments(files) if part not in ("--tokenizer", files / "tokenizer.json")]
    refused(OutputError, *without)


def test_what_is_left_out_is_said(cli, files):
    (files / "map.yaml").write_text("memory_encoder: passage_encoder\nscore.bias: null\n")
    done = cli(*arguments(files), "--allow-unused", "score/*")
    assert done.code == 0
    assert "left out: score/bias" in done.out


def test_nothing_is_written_where_names_do_not_match(refused, files):
    without_map = [part for part in arguments(files) if part not in ("--map", files / "map.yaml")]
    message = refused(CheckpointError, *without_map)
    assert "no memory_encoder.block.*.layer.0.SelfAttention.q.weight (as memory_encoder/layers_*/att" in message
    assert "unused passage_encoder/encoder_norm/scale" in message


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"config.json": "{"}, OptionError, "config.json"),
        ({"config.json": "[]"}, OptionError, "found list"),
        ({"config.json": "{}"}, CheckpointError, "architecture: Field required"),
        ({"map.yaml": "memory: x"}, OptionError, "found 'memory'"),
        ({"tokenizer.json": "{}"}, TokenizerError, "tokenizer"),
    ],
)
def test_bad_files(refused, files, changes, error, match):
    for name, content in changes.items():
        (files / name).write_text(content)
    assert match in refused(error, *arguments(files))


def test_t5x_needs_a_config(refused, files):
    command = ("convert", "--from", "t5x", DIRECTORY / "t5x_zarr", "-o", files / "ckpt")
    assert "option --config" in refused(OptionError, *command)


def test_a_step_of_one_damaged_array(refused, files):
    step = Path(shutil.copytree(DIRECTORY / "t5x_zarr", files / "step"))
    (step / "target.score.kernel" / "0.0").unlink()
    changed = [step if part == DIRECTORY / "t5x_zarr" else part for part in arguments(files)]
    assert "array target.score.kernel: expected every chunk" in refused(CheckpointError, *changed)


def test_the_source_is_not_overwritten(refused, files):
    step = Path(shutil.copytree(DIRECTORY / "t5x_zarr", files / "step"))
    refused(OutputError, "convert", "--from", "t5x", step, "--config", files / "config.json", "-o", step, "--overwrite")


def test_from_fid(cli, tmp_path):
    source = save_fid(make_reader(), tmp_path / "fid")
    word_tokenizer().save(str(source / "tokenizer.json"))
    done = cli("convert", "--from", "fid", source, "-o", tmp_path / "ckpt")
    assert done.code == 0, done.err
    assert "fid from" in done.out
    assert read_checkpoint(tmp_path / "ckpt").config.question_layout == "joined"


def test_from_huggingface(cli, tmp_path):
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    (tmp_path / "fields.json").write_text(json.dumps({"num_retrieved": 4}))
    report = cli(
        "convert", "--from", "huggingface", source, "--config", tmp_path / "fields.json", "-o", tmp_path / "ckpt",
        "--json",
    ).json
    assert (report["architecture"], report["num_retrieved"], report["has_tokenizer"]) == ("fid", 4, False)
