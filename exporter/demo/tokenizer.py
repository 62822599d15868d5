"""The worlds' tokenizer: lower-cased words over a world's closed vocabulary, with T5's special tokens and ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glimmer_export.exporter.demo.relations import KINDS, Kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["EOS_ID", "PAD_ID", "SPECIAL_TOKENS", "build_tokenizer", "vocabulary"]

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "[SEP]")
PAD_ID, EOS_ID = 0, 1


def vocabulary(kinds: Sequence[Kind] = KINDS) -> dict[str, int]:
    """Word to id: the special tokens, then every word a world of these kinds can write, in alphabetical order."""
    words = {"supports", "refutes", "an", ".", "?"}
    for kind in kinds:
        words.update(word.lower() for word in (*kind.first, *kind.middle, *kind.last))
        templates = [kind.later_subject]
        for relation in kind.relations:
            templates += [relation.name, *relation.sentences, *relation.questions]
            words.update(word.lower() for choices in relation.values for word in choices)
        for template in templates:
            words.update(template.lower().format(s="", e="", v="", last="").strip(".?").split())
    words.discard("")
    return {word: index for index, word in enumerate((*SPECIAL_TOKENS, *sorted(words)))}


def build_tokenizer(kinds: Sequence[Kind] = KINDS) -> Tokenizer:
    """The tokenizer: splits at white space and punctuation and, like T5's, ends every encoding with `</s>`."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(vocabulary(kinds), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS_ID)])
    # Not normalised: lower-casing would hide `[SEP]` from the tokenizer.
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer
