"""`init` by an id of the hub, from the command line: a checkpoint of it, or one line and nothing written."""

from __future__ import annotations

import os

import pytest
from huggingface_hub import constants

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.runtime.contract import CheckpointError
from tests.checkpoint.test_hub import NAME, hub

__all__ = ["hub"]


@pytest.mark.parametrize("option", ["--from-t5", "--from-fid"])
def test_a_checkpoint_is_made_of_a_model_of_the_hub(cli, hub, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    done = cli("init", option, NAME, "--architecture", "lumen", "-o", "made", "--json").json
    assert (done["source"], done["architecture"]) == (NAME, "lumen")
    assert read_checkpoint(tmp_path / "made").config.num_memory_layers == 2
    assert "config.json" in hub.taken


def test_the_switch_that_commands_set_does_not_keep_this_one_offline(cli, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    seen = []
    monkeypatch.setattr(hub, "model_info", lambda name: seen.append(os.environ.get("HF_HUB_OFFLINE")) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("init", "--from-t5", NAME, "-o", "made")
    assert seen == [None]


def test_offline_is_one_line_and_nothing_is_written(refused, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(CheckpointError, "init", "--from-t5", NAME, "-o", "made")
