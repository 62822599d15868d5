"""A tokenizer.json made of a sentencepiece model gives that model's tokens, whatever the characters."""

from __future__ import annotations

import base64
import io
import json
import random
import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import sentencepiece

from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer
from glimmer_export.runtime.contract import TokenizerError
from glimmer_export.runtime.text import PlainTokenizer, read_tokenizer

SENTENCES = [
    "The café's naïve façade cost 1,234 euros in Besançon; the Vietnamese write tiếng Việt, and người.",
    "Eight or nine people asked the same question of the same old encyclopaedia, twice.",
    "Ελληνικά, русский текст, 日本語 and עברית are other scripts, ①②③ and ½ are numbers.",
]
PER_CATEGORY = 250


@cache
def categories() -> dict[str, list[str]]:
    """The characters of each of Unicode's categories, but surrogates, private use and those not assigned."""
    found = defaultdict(list)
    for number in range(0x110000):
        if (category := unicodedata.category(chr(number))) not in ("Cs", "Co", "Cn"):
            found[category].append(chr(number))
    return found


def train(rule: str, model_type: str = "unigram") -> bytes:
    """A model of 200 pieces whose table for normalising is the whole of sentencepiece's own of that name."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, vocab_size=200, model_type=model_type,
        normalization_rule_name=rule, character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture(scope="module", params=["nmt_nfkc", "nmt_nfkc_cf", "identity", "T5"])
def pair(request, tmp_path_factory) -> tuple[sentencepiece.SentencePieceProcessor, list[PlainTokenizer]]:
    """A sentencepiece model and what is read of it: converted, and for T5's also as it was published."""
    files = []
    path = tmp_path_factory.mktemp("tokenizer") / "spiece.model"
    if request.param == "T5":
        folder = request.getfixturevalue("shared_data") / "t5_tokenizer"
        path, files = folder / "spiece.model", [folder / "tokenizer.json"]
    else:
        path.write_bytes(train(request.param))
    slow = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return slow, [read_tokenizer(file, 1 << 20, subject="", fix="") for file in (find_tokenizer(None, path), *files)]


def agree(pair, texts) -> None:
    slow, fast = pair
    for tokenizer in fast:
        differ = [text for text in texts if tokenizer.encode(text).ids != slow.encode(text)]
        assert not differ, [ascii(text) for text in differ[:5]]


@pytest.mark.parametrize("category", [
    "Cc", "Cf", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No", "Pc", "Pd", "Pe", "Pf", "Pi", "Po",
    "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs",
])  # fmt: skip
def test_characters_of_each_category(pair, category):
    found = categories()[category]
    for character in found[:: 1 + len(found) // PER_CATEGORY]:
        places = (character, f"{character}ab", f"a{character}b", f"ab{character}", f"a {character} b")
        agree(pair, [*places, f"a{character}\u0301"])


def test_every_category_is_tested():
    marks = test_characters_of_each_category.pytestmark
    assert set(categories()) == set(marks[0].args[1])


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_composed_and_decomposed_text(pair, form):
    whole = [character for found in categories().values() for character in found]
    parts = [unicodedata.normalize(form, character) for character in whole if unicodedata.decomposition(character)]
    agree(pair, [f"a{part}b" for part in parts])


def test_mixtures(pair):
    generator = random.Random(0)
    found = categories()
    marks = [*found["Mn"], *found["Mc"], *found["Me"], *found["Cf"], *" \u2581\u200b\u200d\ufeff\ufffd\x85" * 40]

    def text() -> str:
        letters = [
            generator.choice(["a", "E", "o", generator.choice(found[generator.choice(sorted(found))])])
            + "".join(generator.choices(marks, k=generator.randrange(3)))
            for _ in range(generator.randrange(1, 6))
        ]
        return "".join(letters)

    agree(pair, [text() for _ in range(3000)])


@pytest.mark.parametrize("character", ["\u200b", "\u200c", "\u200e", "\u200f", "\ufeff", "\ufffd", "\u2581"])
def test_zero_width_characters_around_a_text_are_no_tokens(character, tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(train("nmt_nfkc"))
    tokenizer = read_tokenizer(find_tokenizer(None, path), 1 << 20, subject="", fix="")
    expected = tokenizer.encode("a question").ids
    for text in (f"a question{character}", f"{character}a question", f" a question {character} {character}"):
        assert tokenizer.encode(text).ids == expected


def test_another_kind_of_model_is_refused(tmp_path: Path):
    (tmp_path / "spiece.model").write_bytes(train("nmt_nfkc", "bpe"))
    with pytest.raises(TokenizerError, match=r"spiece\.model: expected a unigram model with .*, found bpe"):
        find_tokenizer(tmp_path, None)


@pytest.mark.parametrize("table", ["", "AAAA", "BAAAAAAAAAA=", "/////wAAAAAAAA=="])
def test_a_damaged_table_is_named(tmp_path: Path, table):
    (tmp_path / "spiece.model").write_bytes(train("nmt_nfkc"))
    content = json.loads(find_tokenizer(tmp_path, None))
    content["normalizer"]["normalizers"][0]["precompiled_charsmap"] = table
    with pytest.raises(TokenizerError, match=r"the tokenizer: expected a tokenizer\.json"):
        read_tokenizer(json.dumps(content).encode(), 1 << 20, subject="the tokenizer", fix="copy it again")


def test_a_table_whose_trie_is_damaged_is_named_when_it_is_opened(tmp_path: Path):
    """Not when a text comes to it."""
    (tmp_path / "spiece.model").write_bytes(train("nmt_nfkc"))
    content = json.loads(find_tokenizer(tmp_path, None))
    table = bytearray(base64.b64decode(content["normalizer"]["normalizers"][0]["precompiled_charsmap"]))
    size = int.from_bytes(table[:4], "little")
    for place in random.Random(0).sample(range(4, 4 + size), 500):
        table[place] = 0xFF
    content["normalizer"]["normalizers"][0]["precompiled_charsmap"] = base64.b64encode(table).decode()
    with pytest.raises(TokenizerError, match=r"the tokenizer: expected a tokenizer\.json"):
        read_tokenizer(json.dumps(content).encode(), 1 << 20, subject="the tokenizer", fix="copy it again")
