"""A plain Hugging Face T5, with its own generation config and tokenizer, answers here as it does there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import GenerationConfig

from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.checkpoint.convert import convert_checkpoint
from glimmer_export.exporter.checkpoint.generation import SETTINGS, TOKENS
from glimmer_export.exporter.checkpoint.tokenizer import TEXTS, check_agreement
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.contract import CheckpointError, TokenizerError
from glimmer_export.runtime.text import read_tokenizer
from tests.fid_factory import hugging_face_tokenizer, make_reader, word_tokenizer
from tests.t5_factory import save_t5


def save(directory: Path, **generation: object) -> Path:
    theirs = make_reader("v1.1", seed=6)
    theirs.generation_config = GenerationConfig(
        **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, **generation}
    )
    source = save_t5(theirs, directory)
    word_tokenizer().save(str(source / "tokenizer.json"))
    return source


def convert(source: Path, fields: dict[str, object] | None = None) -> Path:
    config = source.parent / "fields.json"
    config.write_text(json.dumps(fields or {}))
    convert_checkpoint("huggingface", source, source.parent / "ckpt", config=config)
    return source.parent / "ckpt"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A T5 whose settings stand nowhere."""
    source = save(tmp_path_factory.mktemp("saved") / "t5")
    (source / "generation_config.json").unlink()
    return source


@pytest.fixture
def sources(saved) -> Callable[[Path, str, dict[str, object]], Path]:
    """Makes a copy of that T5, with these settings in this file beside those of its config.json."""

    def get(folder: Path, file: str, settings: dict[str, object]) -> Path:
        path = Path(shutil.copytree(saved, folder / "t5")) / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | settings))
        return path.parent

    return get


def test_answers_are_those_of_generate(tmp_path):
    source = save(tmp_path / "t5", decoder_start_token_id=5, max_new_tokens=7)
    checkpoint = convert(source)
    export_bundle(checkpoint, tmp_path / "bundle")
    theirs, tokenizer = make_reader("v1.1", seed=6), hugging_face_tokenizer(word_tokenizer())
    theirs.generation_config = GenerationConfig.from_pretrained(source)
    answers = set()
    with Session.open(tmp_path / "bundle", threads=1) as session:
        for place in range(12):
            question, text = f"w{place} w{place * 2}", " ".join(f"w{place * 3 + step}" for step in range(1 + place))
            prompt = tokenizer(f"question: {question} context: {text}", return_tensors="pt")
            generated = theirs.generate(prompt["input_ids"])[0, 1:].tolist()
            expected = generated[: generated.index(1)] if 1 in generated else generated
            found = session.answer(question, passages=[Passage(None, "w50", text)])
            assert list(found.token_ids) == expected
            answers.add(tuple(expected))
    assert len(answers) > 3


def test_without_a_generation_config(tmp_path):
    source = save(tmp_path / "t5")
    (source / "generation_config.json").unlink()
    config = read_checkpoint(convert(source)).config
    assert (config.passage_length, config.num_retrieved, config.max_new_tokens) == (512, 1, 32)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)


@pytest.mark.parametrize(
    ("generation", "longest"),
    [({"max_length": 21}, 20), ({"max_new_tokens": 9}, 9), ({"max_new_tokens": 9, "max_length": 30}, 9)],
)
def test_the_longest_answer_is_the_generation_configs(tmp_path, generation, longest):
    assert read_checkpoint(convert(save(tmp_path / "t5", **generation))).config.max_new_tokens == longest


def test_special_tokens_are_the_generation_configs(tmp_path):
    source = save(tmp_path / "t5", decoder_start_token_id=4, eos_token_id=2, pad_token_id=3)
    config = read_checkpoint(convert(source)).config
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (3, 2, 4)


def test_fields_given_win(tmp_path):
    fields = {"max_new_tokens": 3, "input_template": "{text} {question}", "num_retrieved": 4, "question_length": 20}
    config = read_checkpoint(convert(save(tmp_path / "t5", max_new_tokens=9), fields)).config
    assert {name: getattr(config, name) for name in fields} == fields


def refuse(source: Path, match: str, error=CheckpointError) -> None:
    before = sorted(source.parent.iterdir())
    with pytest.raises(error, match=match):
        convert_checkpoint("huggingface", source, source.parent / "ckpt")
    assert sorted(source.parent.iterdir()) == before


REFUSED = [
    ("num_beams", 4), ("num_beams", True), ("do_sample", True), ("do_sample", 1), ("num_return_sequences", 2),
    ("penalty_alpha", 0.6), ("repetition_penalty", 1.2), ("encoder_repetition_penalty", 0.9),
    ("no_repeat_ngram_size", 3), ("min_length", 5), ("min_new_tokens", 1), ("bad_words_ids", [[3]]),
    ("forced_bos_token_id", 3), ("forced_eos_token_id", 1), ("eos_token_id", [1, 2]), ("max_length", 1),
    ("max_new_tokens", "long"), ("exponential_decay_length_penalty", [5, 1.1]), ("guidance_scale", 1.5),
    ("watermarking_config", {"greenlist_ratio": 0.25}), ("sequence_bias", [[[3], 2.0]]), ("suppress_tokens", [5]),
    ("begin_suppress_tokens", [5]), ("diversity_penalty", 0.5), ("constraints", ["a"]), ("dola_layers", "low"),
    ("stop_strings", ["."]), ("max_time", 2.0), ("remove_invalid_values", True), ("token_healing", True),
    ("force_words_ids", [[4]]), ("forced_decoder_ids", [[1, 5]]), ("repetition_penalty", float("nan")),
    ("decoder_start_token_id", -1), ("pad_token_id", 0.0), ("pad_token_id", True),
]  # fmt: skip


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_more_than_greedy_decoding_is_refused(sources, tmp_path, file, name, value):
    """Before transformers 4.26 the settings stood in config.json."""
    source = sources(tmp_path, file, {name: value})
    refuse(source, f"{name}: ")


@pytest.mark.parametrize("value", [1, 0.5, True, False, "on", [1], {"a": 0}])
def test_a_setting_that_is_not_known_is_refused(sources, tmp_path, value):
    """Of a release that is not written yet: what it would do to the answers is not known."""
    refuse(
        sources(tmp_path, "generation_config.json", {"entropy_bonus": value, "top_k": 5}),
        f"generation_config.json: expected greedy decoding, .* found entropy_bonus: {re.escape(json.dumps(value))};",
    )


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": [1], "pad_token_id": 0, "bos_token_id": None, "decoder_start_token_id": [0]},
        {"num_beams": 1, "num_beam_groups": 1, "do_sample": False, "penalty_alpha": 0.0, "num_return_sequences": 1},
        {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "guidance_scale": 1, "min_length": 0},
        {"min_length": 1, "min_new_tokens": 0},  # the start token counts as one
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "typical_p": 0.5},  # read where tokens are drawn
        {"early_stopping": True, "length_penalty": 2.0},  # read where there are beams
        {"use_cache": False, "output_scores": True, "renormalize_logits": True},
        {"suppress_tokens": [], "bad_words_ids": [], "sequence_bias": {}, "watermarking_config": None},
        dict.fromkeys((*sorted(SETTINGS - {*TOKENS}), "entropy_bonus")),
    ],
)
def test_what_changes_no_greedy_answer_is_taken(sources, tmp_path, file, settings):
    config = read_checkpoint(convert(sources(tmp_path, file, settings))).config
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)
    assert config.max_new_tokens == 32


def test_every_setting_of_transformers_is_known():
    """Those of the release that is installed; without one, a file that it writes in full would be refused."""
    assert set(vars(GenerationConfig())) <= SETTINGS


def test_a_file_of_every_setting_is_taken(sources, tmp_path):
    settings = GenerationConfig(pad_token_id=0, eos_token_id=[1], decoder_start_token_id=0, max_length=21).to_dict()
    assert read_checkpoint(convert(sources(tmp_path, "generation_config.json", settings))).config.max_new_tokens == 20


def test_settings_of_both_files(sources, tmp_path):
    """One that both have is generation_config.json's, as in transformers since 4.26."""
    source = sources(tmp_path, "config.json", {"num_beams": 4, "max_length": 9, "eos_token_id": 7})
    refuse(source, "config.json: expected greedy decoding, .* found num_beams: 4")
    (source / "generation_config.json").write_text('{"num_beams": 1, "eos_token_id": 1}')
    config = read_checkpoint(convert(source)).config
    assert (config.max_new_tokens, config.eos_token_id) == (8, 1)


def test_without_a_start_token_a_decoder_starts_with_bos(sources, tmp_path):
    source = sources(tmp_path, "config.json", {"decoder_start_token_id": None, "bos_token_id": 5})
    assert read_checkpoint(convert(source)).config.decoder_start_token_id == 5


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "\xff"])
def test_a_damaged_generation_config(tmp_path, content):
    source = save(tmp_path / "t5")
    (source / "generation_config.json").write_text(content, encoding="latin-1")
    refuse(source, "generation_config.json: expected")


# The two tokenizers of one directory.


@pytest.fixture
def both(shared_data, tmp_path):
    for name in ("spiece.model", "tokenizer.json"):
        shutil.copy(shared_data / "t5_tokenizer" / name, tmp_path)
    return tmp_path


def test_the_published_tokenizers_agree(both):
    check_agreement(both)


def test_one_alone_needs_no_agreement(both):
    (both / "tokenizer.json").write_text("damaged")
    (both / "spiece.model").unlink()
    check_agreement(both)


def test_they_agree_on_real_text(both, shared_data):
    """Cut to the lengths that models read; far beyond, sentencepiece's sums no longer tell equal cuts apart."""
    slow = sentencepiece.SentencePieceProcessor(model_file=str(both / "spiece.model"))
    fast = read_tokenizer(both / "tokenizer.json", 1 << 24, subject="", fix="")
    rows = [json.loads(line) for line in (shared_data / "qa" / "corpus.jsonl").read_text("utf-8").splitlines()[::7]]
    for row in rows:
        text = f"question: who? title: {row['title']} context: {row['text']}"
        assert fast.encode(text).ids[:512] == slow.encode(text)[:512], text


def test_persisted_truncation_and_padding_are_switched_off(both):
    """As the runtime does; transformers' own calls leave them behind in a file that is saved after."""
    tokenizer = Tokenizer.from_file(str(both / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(both / "tokenizer.json"))
    check_agreement(both)


def edit(folder: Path, change) -> None:
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def swap_pieces(content) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[500], vocabulary[501] = vocabulary[501], vocabulary[500]


def change_scores(content) -> None:
    for piece in content["model"]["vocab"][100:20000]:
        piece[1] = -9.0


def leave_out_normaliser(content) -> None:
    content["normalizer"] = None


@pytest.mark.parametrize(
    ("change", "found"),
    [(swap_pieces, "500 is '.*' in one, '.*' in the other"), (change_scores, "in one, .* in the other, of"),
     (leave_out_normaliser, "in one, .* in the other, of")],
)  # fmt: skip
def test_two_that_differ(both, change, found):
    edit(both, change)
    with pytest.raises(TokenizerError, match=f"spiece.model and tokenizer.json to be one tokenizer, found .*{found}"):
        check_agreement(both)


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_a_damaged_tokenizer(both, name):
    (both / name).write_bytes(b"\x00" * 64)
    with pytest.raises(TokenizerError, match=f"{name}: expected a"):
        check_agreement(both)


def test_a_checkpoint_whose_tokenizers_differ_is_refused(both):
    source = save(both / "t5")
    shutil.copy(both / "spiece.model", source)
    refuse(source, "to be one tokenizer", TokenizerError)
    convert_checkpoint("huggingface", source, both / "ckpt", tokenizer=source / "tokenizer.json")
    assert read_checkpoint(both / "ckpt").tokenizer


def test_the_compared_texts_are_of_many_kinds(both):
    """Enough of the vocabulary, and more than one script, or the comparison would see little."""
    slow = sentencepiece.SentencePieceProcessor(model_file=str(both / "spiece.model"))
    assert len({number for text in TEXTS for number in slow.encode(text)}) > 150
