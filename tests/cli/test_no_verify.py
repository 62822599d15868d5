"""`--no-verify`: the store's digests are not compared, and nothing else is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.bundle_factory import write_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.mark.parametrize("command", ["ask", "answer"])
def test_only_digests_are_left_out(cli, tmp_path, command):
    store = shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store")
    shard = next(path for path in sorted((store / "shards").iterdir()) if path.is_file())
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    questions = write_rows(tmp_path / "q.jsonl", [{"question": "w1 w2"}])
    asked = ["w1 w2"] if command == "ask" else ["--questions", questions]
    words = [command, GOLDEN / "bundle", *asked, "--store", store, "--json"]
    done = cli(*words)
    assert (done.code, done.err.partition(":")[0]) == (2, "StoreError")
    assert json.dumps(cli(*words, "--no-verify").json)
    shard.write_bytes(content[:-1])
    assert cli(*words, "--no-verify").code == 2
