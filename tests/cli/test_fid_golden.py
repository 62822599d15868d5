"""The tokens that FiD's own code answers on transformers 3.0.2, by the commands that a user gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import GlimmerModel, model_from_checkpoint
from glimmer_export.runtime.text import TextEncoder
from tests.once import Once

STEPS = 12


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    return shared_data / "fid_golden"


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, list[list[int]]]:
    content: dict[str, list[list[int]]] = json.loads((golden / "expected.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def checkpoint(golden: Path, once: Once) -> Path:
    def make(directory: Path) -> None:
        (directory / "fields.json").write_text(json.dumps({"max_new_tokens": STEPS}))
        convert_checkpoint(
            "fid", golden, directory / "ckpt", config=directory / "fields.json",
            tokenizer=golden.parent / "t5_tokenizer" / "spiece.model",
        )

    return once("fid_golden", make) / "ckpt"


@pytest.mark.parametrize("form", ["absorbed", pytest.param("cached", marks=pytest.mark.slow)])
def test_graphs_by_the_commands(
    golden: Path, expected: dict[str, list[list[int]]], cli: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    spiece = golden.parent / "t5_tokenizer" / "spiece.model"
    assert cli("convert", "--from", "fid", golden, "--tokenizer", spiece, "-o", tmp_path / "ckpt").code == 0
    export = cli("export", tmp_path / "ckpt", "-o", tmp_path / "bundle", "--cross-attention", form)
    assert export.code == 0, export.err
    questions = golden / "questions.json"
    report = cli("answer", tmp_path / "bundle", "--questions", questions, "--passages", "given", "--json").json
    # The paper's answers have up to 49 tokens; the file has the first twelve.
    assert [answer["token_ids"][:STEPS] for answer in report["answers"]] == expected["tokens"]


def answers(model: GlimmerModel, golden: Path) -> list[list[int]]:
    """Tokens of the torch reference, which runs the decoder anew for every step."""
    tokenizer = golden.parent / "t5_tokenizer" / "tokenizer.json"
    text = TextEncoder.open(tokenizer, model.config.shape)
    rows = json.loads((golden / "questions.json").read_text(encoding="utf-8"))
    joined = [
        [text.joined(row["question"], passage["title"], passage["text"])[0] for passage in row["ctxs"]] for row in rows
    ]
    return [TorchReference(model).answer((), ids, None, None).tokens for ids in joined]


CHANGES: dict[str, dict[str, object]] = {
    "tokens": {},
    "tokens_with_eos_on_passages": {"passage_eos": True},
    "tokens_without_cross_bias": {"cross_attention_bias": False},
    "tokens_with_eos_without_cross_bias": {"passage_eos": True, "cross_attention_bias": False},
}


@pytest.mark.parametrize("key", CHANGES)
def test_torch(golden: Path, expected: dict[str, list[list[int]]], checkpoint: Path, key: str) -> None:
    """Each half of what FiD does is seen by itself: without it the answers are those of the other keys."""
    converted = model_from_checkpoint(read_checkpoint(checkpoint))
    model = GlimmerModel(converted.config.model_copy(update=CHANGES[key])).eval()
    model.load_state_dict({name: converted.state_dict()[name] for name in model.state_dict()})
    found = answers(model, golden)
    assert found == expected[key]
    assert (found == expected["tokens"]) == (key == "tokens")
