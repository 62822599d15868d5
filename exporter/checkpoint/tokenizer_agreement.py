"""Whether the two tokenizers that stand beside a Hugging Face T5 are one: `spiece.model` and `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.exporter.checkpoint.tokenizer import FAST, SENTENCEPIECE, open_sentencepiece, sentencepiece_errors
from glimmer_export.runtime.contract import TokenizerError, is_there

__all__ = ["check_agreement"]

TEXTS = (
    "question: when did the two brothers build their first aeroplane? title: Aviation context: They tested a glider",
    "in 1902, and on 17 December 1903 flew 260 m in 59 seconds; the engine, of 12 hp, was made in their own workshop.",
    "It's “quoted” — with dashes, 'single quotes', a semicolon; an ellipsis… and (brackets) [of both] {kinds}.",
    "The café's naïve façade cost €1,234.56 (£1,000), 37 °C, 50% off, №7, ½ cup, x² + y² ≠ z³.",
    "Der Fluß fließt über große Steine. L'été où j'étais à Besançon. Cuáles años? Românește, își, ţară.",
    "https://example.org/wiki/T5_(model)?a=1&b=2#c, user.name+tag@example.com, C:\\temp\\file.txt, f(x)=x_1^{-2}",
    "two  spaces,\ta tab,\na line and\u00a0a hard space",
    "Tie\u0302\u0301ng Vie\u0323\u0302t, e\u0301te\u0301 o\u0328\u0304, a\u0308\u0304 \u1112\u1161\u11ab, \u2460\u0301",
    "\ufeffa byte order mark, zero\u200bwidth\u200cspaces, marks\u200e of direction, and\u200d\u200f\u200b\ufeff",
    "ﬁ and ﬀ ligatures, \uff26\uff35ll width \uff11\uff12, soft\u00adhyphen",
    "日本語のテキスト, русский текст, ελληνικά, עברית, हिन्दी, 🎉 and ☃",
    "pneumonoultramicroscopicsilicovolcanoconiosis ANTIDISESTABLISHMENTARIANISM iPhone O'Neill 3rd 1990s U.S.A.",
)
"""Text of many kinds, without special tokens: what separates tokenizers that were trained or converted differently."""


def check_agreement(directory: Path) -> None:
    """Compare the two, where a directory has both: every piece's id, and the tokens of texts.

    The tokenizer.json is read as the runtime reads it. They may differ where a special token is spelt out in a text;
    and some thousand tokens into a text, where sentencepiece's sums no longer tell two ways to cut a word apart. Raises
    TokenizerError where they differ elsewhere, or where one of them cannot be read.
    """
    from glimmer_export.runtime.text import read_tokenizer

    fast_path, slow_path = directory / FAST, directory / SENTENCEPIECE
    if not (is_there(fast_path) and is_there(slow_path)):
        return
    slow = open_sentencepiece(slow_path)
    fast = read_tokenizer(fast_path, 1 << 24, subject=f"tokenizer {fast_path}", fix="copy it again")
    for number in range(slow.get_piece_size()):
        with sentencepiece_errors(slow_path):
            piece = slow.id_to_piece(number)
        if fast.piece(number) != piece:
            raise _differ(directory, f"{number} is {piece!r} in one, {fast.piece(number)!r} in the other")
    for text in TEXTS:
        with sentencepiece_errors(slow_path):
            theirs = slow.encode(text)
        ours = fast.encode(text)
        if ours.ids != theirs:
            pairs = zip(ours.ids, theirs, strict=False)
            place = next((place for place, pair in enumerate(pairs) if len({*pair}) > 1), 0)
            cut = slice(max(0, place - 1), place + 3)
            pieces = [slow.id_to_piece(number) for number in theirs[cut]]
            raise _differ(directory, f"{pieces} in one, {ours.tokens[cut]} in the other, of {text[:60]!r}")


def _differ(directory: Path, found: str) -> TokenizerError:
    return TokenizerError(
        f"tokenizer {directory}", expected=f"{SENTENCEPIECE} and {FAST} to be one tokenizer", found=found,
        fix="name the one that the model was trained with by --tokenizer",
    )
