"""A tokenizer.json that could make a text longer than memory, or search it for hours, is refused unopened."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from glimmer_export.runtime.charsmap import OUTER_SPACES
from glimmer_export.runtime.contract import QuestionError, TokenizerError
from glimmer_export.runtime.text import PlainTokenizer, TextEncoder, read_tokenizer
from glimmer_export.runtime.tokenizer_limits import MAX_TEXT, MAX_TOKENIZER_BYTES, tokenizer_limits
from glimmer_export.runtime.tokenizer_regex import LINEAR, SQUARE, search_order
from tests.bundle_factory import VOCABULARY, make_bundle

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def changed(**parts: object) -> bytes:
    return json.dumps(json.loads(word_tokenizer().to_str()) | parts).encode()


def sequence(*steps: dict, name: str = "normalizers") -> dict:
    return {"type": "Sequence", name: list(steps)}


def replace(pattern: str, content: str, kind: str = "Regex") -> dict:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def charsmap(replacement: str) -> dict:
    """A table of no sequences, whose replacements are this one."""
    table = (4).to_bytes(4, "little") + bytes(4) + replacement.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def unigram(*pieces: str) -> dict:
    return {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *([piece, -1.0] for piece in pieces)]}


DOUBLED = replace("a", "aa", "String")
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEMPLATE = {"single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000, "pair": [], "special_tokens": {}}
BOMBS = {
    "a step that doubles, 40 times": ({"normalizer": sequence(*[DOUBLED] * 40)}, "a normalizer by which one"),
    "a text for a letter": ({"normalizer": replace("a", "b" * 10_000, "String")}, "a normalizer by which one"),
    "a text for nothing": ({"normalizer": replace("", "b" * 10_000)}, "a normalizer by which one"),
    "a text in front of each": (
        {"normalizer": sequence(*[{"type": "Prepend", "prepend": "b" * 200}] * 2)}, "a normalizer by which one",
    ),
    "a charsmap's text for a letter": ({"normalizer": charsmap("b" * 10_000)}, "a normalizer by which one"),
    "a charsmap of megabytes": ({"normalizer": charsmap("b" * (5 << 20))}, "a charsmap of more than"),
    "bytes of bytes": (
        {"pre_tokenizer": sequence(*[BYTES] * 40, name="pretokenizers")}, "a pre_tokenizer by which one",
    ),
    "both together": (
        {"normalizer": sequence(*[DOUBLED] * 8), "pre_tokenizer": sequence(*[BYTES] * 8, name="pretokenizers")},
        "steps by which one character may become 65536",
    ),
    "steps that do nothing": ({"normalizer": sequence(*[{"type": "NFC"}] * 1000)}, "more than 64 steps"),
    "an unknown step": ({"normalizer": {"type": "Repeat"}}, "unknown kind 'Repeat'"),
    "a decoder that doubles": ({"decoder": sequence(*[DOUBLED] * 9, name="decoders")}, "a decoder by which"),
    "an expression that doubles": ({"normalizer": replace("(a+)+b", "")}, "repeats what has repetitions"),
    "an expression of the cube": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a*b*c"}, "behavior": "Removed", "invert": False}},
        "the cube of a text's length",
    ),
    "a template of a thousand": ({"post_processor": {"type": "TemplateProcessing", **TEMPLATE}}, "1000 pieces"),
    "a piece of megabytes": ({"model": {"type": "WordLevel", "vocab": {"a" * (1 << 20): 0}}}, "a piece of 1048576"),
    "a long piece to look ahead for": ({"model": unigram("a" * 600)}, "a piece of 600 bytes"),
    "pieces of gigabytes": (
        {"model": unigram(*(f"{number:0500d}" for number in range(8000)))}, "bytes together, where 3145728",
    ),
    "words of any length": (
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "max_input_chars_per_word": 1 << 40}},
        "max_input_chars_per_word 1099511627776",
    ),
    "added tokens without end": (
        {"added_tokens": [{"id": number, "content": str(number)} for number in range(20_000)]}, "20000 added tokens",
    ),
    "lists in lists": ({"truncation": json.loads("[" * 100 + "]" * 100)}, "nest deeper"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_tokenizer_that_has_no_end_is_refused(name):
    parts, found = BOMBS[name]
    with pytest.raises(TokenizerError, match=r"file: expected a tokenizer\.json, found ") as error:
        read_tokenizer(changed(**parts), 1 << 20, subject="file", fix="copy it")
    assert found in str(error.value)


def test_a_file_of_any_size_is_refused():
    with pytest.raises(TokenizerError, match="bytes, where"):
        read_tokenizer(b" " * (MAX_TOKENIZER_BYTES + 1), 9, subject="file", fix="")


def test_published_tokenizers_are_taken(shared_data: Path):
    limits = tokenizer_limits((shared_data / "t5_tokenizer" / "tokenizer.json").read_bytes())
    assert (limits.growth, limits.max_characters) == (72, MAX_TEXT)
    albert = sequence(
        replace("``", '"', "String"), replace("''", '"', "String"), {"type": "NFKD"}, {"type": "StripAccents"},
        {"type": "Lowercase"}, charsmap("b" * 18), replace(" {2,}", " "),
    )  # fmt: skip
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    assert tokenizer_limits(changed(normalizer=albert, pre_tokenizer=spaces)).max_characters == MAX_TEXT


@pytest.mark.parametrize(
    ("pattern", "order"),
    [
        (" {2,}", LINEAR), (r"\s+", LINEAR), (r"[^(\s|[.,!?])]+", LINEAR), (r"\p{N}{1,3}", LINEAR), ("", LINEAR),
        (OUTER_SPACES, LINEAR), (r"(?<year>\d{4})(?#comment)", LINEAR), ("(?i)[]a]+", LINEAR), (r"a{,b", LINEAR),
        (r"\s+$", SQUARE), (GPT_2, SQUARE), (LLAMA_3, SQUARE), (r"(?=a+)b", SQUARE), (r"a{0,9}b", SQUARE),
    ],
)  # fmt: skip
def test_how_long_an_expression_searches(pattern, order):
    Regex(pattern)  # Oniguruma takes it
    assert search_order(pattern) == order


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(a|aa)+$", "(a*)*", "(a?){30}", "a+b+c+d", "(a|b)*c", r"(a)\1", "a?" * 20, "a**", "a+*", "(?=a+)+b",
        r"(?<a>a\g<a>?b)", "(?:a{2}){2}", ".*.*=.*", "(" * 40 + "a" + ")" * 40, "a{65}", "(?~a)", "(?(1)a)", "[a", "(a",
        "a)", "a" * 5000, r"\X",
    ],
    ids=lambda pattern: pattern[:16],
)  # fmt: skip
def test_an_expression_that_may_search_for_hours_is_refused(pattern):
    with pytest.raises(ValueError, match="regular expression"):
        search_order(pattern)


def test_a_text_is_no_longer_than_may_be(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "tokenizer.json"
    shape = TextEncoder.open(path, _shape(bundle))._shape
    text = TextEncoder.open(path, shape)
    assert text.passage("w1", "w2 " * 300_000)[1]
    for name in ("passage", "question"):
        with pytest.raises(QuestionError, match=f"at most {MAX_TEXT} characters, found"):
            text.passage("w1", "w2 " * 400_000) if name == "passage" else text.question("w2 " * 400_000)
    square = changed(normalizer=replace(r"x+$", ""))
    path.write_bytes(square)
    with pytest.raises(QuestionError, match="at most 20000 characters"):
        TextEncoder.open(path, shape).passage("w1", "w2 " * 9000)


def test_a_text_that_grows_beyond_memory_once_it_is_normalised_is_named(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    grown = changed(normalizer=replace("x", "y" * 1000, "String"))
    (bundle / "tokenizer.json").write_bytes(grown)
    text = TextEncoder.open(bundle / "tokenizer.json", _shape(bundle))
    assert text.passage("", "w1 " * 2000)[1]
    with pytest.raises(QuestionError, match="characters once it is normalised, found more"):
        text.passage("", "x" * 100_000)


def test_a_million_spaces_inside_a_text_are_read_at_once():
    tokenizer = Tokenizer.from_str(json.dumps(json.loads(word_tokenizer().to_str()) | {"added_tokens": []}))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace(Regex(OUTER_SPACES), ""), normalizers.Replace(Regex(" {2,}"), " "),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "always")
    plain = PlainTokenizer(tokenizer)
    few, many = (plain.encode("a" + " " * count + "b" + "\u2581" * count + "c") for count in (2, 200_000))
    assert len(few.ids) == len(plain.encode("a b\u2581\u2581c").ids)
    assert len(many.tokens) >= 2


def _shape(bundle: Path):
    from glimmer_export.runtime.contract import read_manifest

    return read_manifest(bundle).model
