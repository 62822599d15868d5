"""FiD's one template for question and passage, taken apart into one for each."""

from __future__ import annotations

import re
import string

from glimmer_export.runtime.contract import OptionError

__all__ = ["split_template"]

QUESTION = "{question}"
WORD = re.compile(r"\S+")
ENDS_A_LABEL = re.compile(r".*([:.?!;,]|<[^<>\s]*>)")
"""A word behind which something else begins: `answer:`, or a sentinel such as `<extra_id_0>`."""


def split_template(template: str, *, subject: str) -> tuple[str, str]:
    """The question's and the passage's part of a template with plain fields.

    The question has to come first. Of the words between it and the next field the label of that field goes with the
    passage: the last word, and those in front of it up to a word that ends a label of its own. So
    `question: {question} answer: <extra_id_0> title: {title} context: {text}` is cut in front of `title:`. Raises
    OptionError, which says what to pass, for any other order, and if no space is there to cut at.
    """
    fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    question, *passage = fields
    if question != "question" or not passage or "question" in passage:
        raise _not_split(template, "the question once, in front of what is the passage's", subject)
    start = template.index(QUESTION) + len(QUESTION)
    end = template.index("{", start)
    between = template[start:end]
    if not between:
        return template[:start], template[start:]
    if not re.search(r"\s", between):
        raise _not_split(template, "a space between the question and the passage", subject)
    # What touches the question stays with it.
    touching = re.match(r"\S*", between)
    words = list(WORD.finditer(between, touching.end() if touching else 0))
    cut = end
    for place in range(len(words) - 1, -1, -1):
        if place < len(words) - 1 and ENDS_A_LABEL.fullmatch(words[place].group()):
            break
        cut = start + words[place].start()
    return template[:cut].rstrip(), template[cut:].lstrip()


def _not_split(template: str, expected: str, subject: str) -> OptionError:
    return OptionError(
        f"{subject}, input_template", expected=expected, found=repr(template),
        fix="pass both parts: --question-template 'question: {question}' --passage-template 'context: {text}', in the "
        "words that the FiD was trained with",
    )
