"""The words of any text, as both full-text engines hold them: folded to one form, and cut if a script has no spaces.

Passages and questions go through the same function, before the engine, whose own tokenizer then has only to split at
spaces and to stem. Folded are case, compatibility forms (full width, ligatures, fractions), diacritics of alphabets
that are read without them, and digits of every script; joined are initials (U.S.A. is USA) and groups of digits
(1,000). Where words are not spaced, each letter with its marks is a word, and so is each pair of neighbours.
"""

from __future__ import annotations

import re
import unicodedata
from operator import add

__all__ = ["fold", "passage_words", "question_words"]

STACKERS = frozenset("\u1039\u17d2\u1a60")
"""Signs of Burmese, Khmer and Tai Tham by which the next letter is written below the one before."""
UNSPACED = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b-\u303c\u3041-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48f\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, kana, bopomofo, Hangul (whose spaces part phrases rather than words), and Yi."""
UNSPACED_WITH_MARKS = (
    "\u0e01-\u0e4e\u0e80-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17d3\u17dc\u17dd"
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7f\ua980-\ua9cf\ua9e0-\ua9fe\uaa60-\uaa7f\uaa80-\uaadf"
)
"""Thai, Lao, Burmese, Khmer, Tai and Javanese: here marks follow their letter."""

ASCII_WORDS = bytes(
    code if code > 0x7F else ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(256)
)
"""UTF-8 to UTF-8: capitals to small letters, and what is neither letter nor digit to a space; not beyond ASCII."""

AFTER_DIGIT = re.compile(r"(?<=\d)(?=[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215f\u2189])")
RUNS = re.compile(f"([{UNSPACED}]+)|([{UNSPACED_WITH_MARKS}]+)")
DOTTED = re.compile(r"\.(?:[^\W\d_](?!\w)| [^\W\d_]\.)")
INITIALS = re.compile(r"(?<!\w)[^\W\d_](?:(?:\.[^\W\d_](?!\w))+|(?:\. [^\W\d_](?=\.))+)\.?")
SPELLS_A_WORD = frozenset({
    "an", "as", "at", "be", "by", "do", "go", "had", "has", "he", "her", "his", "how", "if", "in", "is", "it",
    "me", "my", "no", "of", "on", "or", "our", "she", "so", "the", "to", "up", "us", "was", "we", "who", "why",
})
"""Initials that are read as these are kept from them: U.S. and US are not the `us` of "the last of us"."""
CAPITALS = ("US", "WHO", "IT")
"""Of these, what is often written without dots; it is both words."""
AS_CAPITALS = re.compile(rf"(?<!\w)(?:{'|'.join(CAPITALS)})(?!\w)")
DIGIT_GROUPS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
PLUS, SHARP = re.compile(r"(?<=[^\W\d_])\++"), re.compile(r"(?<=[^\W\d_])#(?!\w)")

WITH = re.compile(r"LATIN SMALL LETTER ([A-Z]) WITH ")
"""Names of letters that Unicode does not decompose: Ł, Ø, Đ."""
MARKS_THAT_GO = re.compile(r"COMBINING (?!KATAKANA)|VARIATION SELECTOR|HEBREW|ARABIC|SYRIAC|MONGOLIAN FREE")
LETTERS = {
    "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ı": "i", "ĸ": "k", "ŋ": "n", "ə": "a", "ɛ": "e", "ɔ": "o",
    "ʻ": "", "ʼ": "", "ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه",
    "\N{ARABIC TATWEEL}": "", "\N{ZERO WIDTH SPACE}": " ",
}
"""What stands for a letter that neither Unicode's decomposition nor its name tells."""


class _Characters(dict[int, str]):
    """What becomes of each character beyond ASCII once decomposed and without case, found out when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = folded = character if code < 0x80 else LETTERS.get(character, _of_category(character))
        return folded


CHARACTERS = _Characters()


def fold(text: str, *, pairs_alone: bool = False) -> str:
    """The words of a text, parted by spaces, in their order; of any text at all.

    `pairs_alone` leaves out the single letters of a script without spaces, except if a run is but one: what a
    question asks for, if a passage is found by either.
    """
    if not text.isascii():
        words = text.split()
        text = " ".join([
            word if word.isascii() else _beyond_ascii(word, pairs_alone=pairs_alone) for word in words
        ])
    if any(capitals in text for capitals in CAPITALS) and not (text.isupper() and " " in text):
        text = AS_CAPITALS.sub(_with_initials, text)
    if "." in text and DOTTED.search(text):
        text = INITIALS.sub(_joined, text)
    if "," in text:
        text = DIGIT_GROUPS.sub("", text)
    if "+" in text:
        text = PLUS.sub(_plus, text)
    if "#" in text:
        text = SHARP.sub(" sharp ", text)
    return text.encode().translate(ASCII_WORDS).decode()


def passage_words(title: str, text: str) -> str:
    """What an index holds of a passage: the words of its title twice, so that they weigh two, and of its text."""
    return fold(f"{title}\n{title}\n{text}")


def question_words(text: str) -> list[str]:
    """The distinct words of a question, in their order."""
    return list(dict.fromkeys(fold(text, pairs_alone=True).split()))


def _beyond_ascii(word: str, *, pairs_alone: bool) -> str:
    """A word with what is not ASCII folded, and punctuation of ASCII as it was."""
    decomposed = unicodedata.normalize("NFKD", AFTER_DIGIT.sub(" ", word)).casefold().replace("и\u0306", "й")
    letters = unicodedata.normalize("NFC", decomposed.translate(CHARACTERS))
    if letters.isascii():
        return letters
    return RUNS.sub(lambda run: _segments(run, pairs_alone=pairs_alone), letters)


def _segments(run: re.Match[str], *, pairs_alone: bool) -> str:
    letters = run[1] or _letters_with_marks(run[2])
    if len(letters) == 1:
        return f" {letters[0]} "
    pairs = " ".join(map(add, letters, letters[1:]))
    return f" {pairs} " if pairs_alone else f" {' '.join(letters)} {pairs} "


def _letters_with_marks(run: str) -> list[str]:
    letters: list[str] = []
    for character in run:
        if letters and (unicodedata.category(character)[0] == "M" or letters[-1][-1] in STACKERS):
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _of_category(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf":  # soft hyphens, joiners and marks of direction stand within words
        return ""
    if category[0] == "M":
        return "" if MARKS_THAT_GO.match(unicodedata.name(character)) else character
    if category[0] in "LN":
        named = WITH.match(unicodedata.name(character, ""))
        return named[1].lower() if named else character
    if category == "So" and (character >= "\U0001f000" or "\u2600" <= character <= "\u27bf"):
        return f" {character} "  # a picture is a word
    return " "


def _joined(initials: re.Match[str]) -> str:
    letters = initials[0].replace(".", "").replace(" ", "")
    return f" {'·'.join(letters) if letters.lower() in SPELLS_A_WORD else letters} "


def _with_initials(capitals: re.Match[str]) -> str:
    return f"{capitals[0]} {'·'.join(capitals[0])}"


def _plus(signs: re.Match[str]) -> str:
    return " plus" * len(signs[0]) + " "
