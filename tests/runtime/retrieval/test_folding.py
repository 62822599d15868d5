"""Words folded and cut before either engine: what a passage has and a question asks for, in one table."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.retrieval.folding import fold, passage_words, question_words
from tests.text_search import indexed

PAIRS = [
    # Case, where it is not one letter to one.
    ("İstanbul'un nüfusu", "istanbul"), ("Istanbul Boğazı", "İSTANBUL"), ("ISPARTA ili", "ısparta"),
    ("ısı", "ISI"),
    ("Straße", "STRASSE"), ("Strasse", "straße"), ("GROẞE", "große"), ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("Σίσυφος", "ΣΙΣΥΦΟΣ"),
    ("ОДЕССА", "одесса"), ("ԵՐԵՎԱՆ", "երեվան"),
    # Forms of the same characters.
    ("ﬁeld of eﬃgies", "field"), ("affine", "aﬃne"), ("ＡＢＣ", "abc"), ("xyz", "ＸＹＺ"), ("ｶﾞﾗｽ", "ガラス"),
    ("Cafe\u0301", "café"),
    ("naïve", "nai\u0308ve"), ("ⅩⅣ", "xiv"), ("m²", "m2"), ("H₂O", "h2o"), ("2½", "2"), ("𝐁𝐨𝐥𝐝", "bold"),
    ("㍿", "株式会社"),
    ("co\u00adoperate", "cooperate"), ("\ufeffmark", "mark"), ("zero\u200bwidth", "zero"),
    ("no\u00a0break", "break"),
    # Diacritics.
    ("naïve", "naive"), ("Nguyễn Đình", "nguyen dinh"), ("Łódź", "lodz"), ("Ørsted", "orsted"),
    ("Æsir", "aesir"),
    ("Þórr", "thorr"), ("Ёлка", "елка"), ("Москвы\u0301", "москвы"), ("Hawaiʻi", "hawaii"),
    # Arabic and Hebrew are written with their vowels or without.
    ("مُحَمَّد", "محمد"), ("أحمد", "احمد"), ("إيران", "ايران"), ("آسيا", "اسيا"), ("مدرسة", "مدرسه"),
    ("مصطفى", "مصطفي"), ("کتاب", "كتاب"),
    ("كـــتاب", "كتاب"), ("שָׁלוֹם", "שלום"), ("می\u200cخواهم", "میخواهم"), ("١٩٤٥", "1945"),
    ("२०२४", "2024"),
    # Scripts that part no words.
    ("東京は日本の首都です。人口は1400万人。", "首都"), ("東京は日本の首都です。", "東京"), ("大阪", "阪"),
    ("人口は1400万人", "1400"), ("カタカナ語", "カタカナ"),
    ("中华人民共和国", "共和国"), ("서울은 대한민국의 수도", "서울"),
    ("\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"),
    ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "กรุงเทพ"), ("กรุงเทพมหานครเป็นเมืองหลวง", "เมืองหลวง"),
    ("ນະຄອນຫຼວງວຽງຈັນ", "ວຽງຈັນ"),
    ("ភ្នំពេញជារាជធានី", "ភ្នំពេញ"), ("ရန်ကုန်မြို့", "ရန်ကုန်"), ("हिन्दी भाषा", "हिन्दी"),
    # Signs in and around words.
    ("O'Brien", "O’Brien"), ("O'Brien", "brien"), ("rock'n'roll", "rock n roll"), ("don't", "don’t"),
    ("Jean-Luc", "jean luc"),
    ("U.S.A.", "USA"), ("the USA", "u.s.a."), ("U.S. Steel", "US"), ("the US", "U.S."), ("the U.S.", "u.s"),
    ("D.C.", "dc"),
    ("J. R. R. Tolkien", "J.R.R."), ("W.H.O.", "WHO"), ("C++", "C++"), ("C++", "c plus plus"),
    ("C#", "c sharp"), (".NET", ".net"), ("3.14", "3.14"),
    ("1,000,000", "1000000"), ("1000", "1,000"), ("x2", "x²"), ("snake_case", "snake"), ("I 🙂 it", "🙂"),
    ("lone", "\ud800 lone"),
]
APART = [
    ("the last of us", "U.S."), ("ガ", "カ"), ("мой", "мои"), ("大阪", "大坂"), ("京東", "東京"), ("3.14", "314"),
    ("1,00", "100"), ("Hepatitis A. A cure", "aa"), ("stanbul", "istanbul"),
]


@pytest.fixture(scope="module", params=["fts5", "tantivy"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def pairs(engine, tmp_path_factory):
    passages = [Passage(number, "", text) for number, (text, _) in enumerate([*PAIRS, *APART])]
    with indexed(tmp_path_factory.mktemp("pairs"), passages, engine) as (_, index):
        yield index


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_a_passage_is_found_by_another_form_of_its_word(pairs, number):
    assert number in [hit.number for hit in pairs.search(PAIRS[number][1], len(PAIRS) + len(APART))]


@pytest.mark.parametrize("number", range(len(APART)))
def test_other_words_stay_apart(pairs, number):
    found = [hit.number for hit in pairs.search(APART[number][1], len(PAIRS) + len(APART))]
    assert len(PAIRS) + number not in found


def test_a_title_is_found_as_its_text_is(engine, tmp_path):
    passages = [Passage(1, "東京", "x"), Passage(2, "Cafe\u0301", "y"), Passage(3, "", "東京 café")]
    with indexed(tmp_path, passages, engine) as (_, index):
        assert [hit.number for hit in index.search("東京", 3)] == [0, 2]
        assert [hit.number for hit in index.search("CAFÉ", 3)] == [1, 2]


def test_rows_in_three_scripts_are_found_by_a_word_of_each(shared_data, engine, tmp_path):
    rows = [
        json.loads(line) for name in ("cjk", "uni")
        for line in (shared_data.parent / "cases" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    passages = [Passage(number, row["title"], row["text"]) for number, row in enumerate(rows)]
    asked = {
        0: "東京 日本 首都 人口 1400",
        1: "Bangkok กรุงเทพ เมืองหลวง ประเทศไทย",
        2: "istanbul nufusu naive cafe STRASSE field usa c++ x2 2½ don't",
        3: "cafe Garvin",
    }
    with indexed(tmp_path, passages, engine) as (_, index):
        for number, words in asked.items():
            for word in words.split():
                assert number in [hit.number for hit in index.search(word, 9)], word


def test_a_question_asks_for_pairs_and_a_passage_has_letters_too():
    assert question_words("東京は") == ["東京", "京は"]
    assert question_words("東 x") == ["東", "x"]
    assert fold("東京x").split() == ["東", "京", "東京", "x"]
    assert passage_words("One", "two").split() == ["one", "one", "two"]


def test_letters_keep_their_marks_where_words_are_not_spaced():
    assert question_words("เมือง") == ["เมื", "มือ", "อง"]
    assert question_words("ភ្នំពេញ") == ["ភ្នំពេ", "ពេញ"]


@given(text=st.text(st.characters(exclude_categories=())))
def test_any_text_folds_to_words_that_fold_to_themselves(text):
    words = question_words(text)
    assert all(word and " " not in word for word in words)
    once = fold(text, pairs_alone=True)
    assert "\ud800" not in once
    once.encode()
    assert set(question_words(once.replace("·", ""))) >= {word for word in words if word.isascii()}
