"""What the demo world knows about each kind of entity: relations, sentences that state them, questions that ask.

In the templates `{s}` is the subject of the sentence, `{e}` the entity's full name and `{v}` the value.
"""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.demo import words

__all__ = ["KINDS", "Kind", "Relation"]


@dataclass(frozen=True)
class Relation:
    """One relation: `values` holds one word list for each word of the value; the value is one word of each."""

    name: str
    values: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of entity; `later_subject` opens every sentence after a passage's first.

    Its names are `first last`, or `first middle last` if there are middle words.
    """

    name: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    later_subject: str
    relations: tuple[Relation, ...]
    middle: tuple[str, ...] = ()


PLACE = (words.PLACES,)
DATE = (words.MONTHS, words.YEARS)
EMBLEM = (words.COLOURS, words.ANIMALS)

PERSON = Kind(
    name="person",
    first=words.GIVEN_NAMES,
    last=words.FAMILY_NAMES,
    later_subject="{last}",
    relations=(
        Relation(
            "place of birth",
            PLACE,
            ("{s} was born in the city of {v}.", "The city where {s} was born is {v}."),
            ("In which city was {e} born?", "Where was {e} born?"),
        ),
        Relation(
            "place of burial",
            PLACE,
            ("{s} was buried in the city of {v}.", "The city where {s} was buried is {v}."),
            ("In which city was {e} buried?", "Where was {e} buried?"),
        ),
        Relation(
            "date of marriage",
            DATE,
            ("{s} got married in {v}.", "In {v} {s} got married."),
            ("When did {e} get married?", "On which date was {e} married?"),
        ),
        Relation(
            "profession",
            (words.PROFESSIONS,),
            ("{s} worked for many years as a {v}.", "For many years {s} worked as a {v}."),
            ("What did {e} work as?", "As what did {e} work for many years?"),
        ),
        Relation(
            "field of study",
            (words.STUDIES,),
            ("{s} went to university to study {v}.", "The field that {s} went to study at university was {v}."),
            ("What did {e} study at university?", "Which field did {e} study?"),
        ),
        Relation(
            "award received",
            (words.MATERIALS, words.PRIZES),
            ("{s} received the award of the {v}.", "The award that {s} received was the {v}."),
            ("Which award did {e} receive?", "What is the award that {e} received?"),
        ),
    ),
)

TOWN = Kind(
    name="town",
    first=words.TOWN_NAMES,
    last=words.TOWN_ENDINGS,
    later_subject="the town",
    relations=(
        Relation(
            "region",
            PLACE,
            ("{s} is located in the region of {v}.", "The region where {s} is located is {v}."),
            ("In which region is {e} located?", "Where is {e} located?"),
        ),
        Relation(
            "twin city",
            PLACE,
            ("{s} is twinned with the city of {v}.", "The city of {v} is twinned with {s}."),
            ("With which city is {e} twinned?", "Which city is twinned with {e}?"),
        ),
        Relation(
            "date of charter",
            DATE,
            ("{s} was granted a charter in {v}.", "In {v} {s} was granted a charter."),
            ("When was {e} granted a charter?", "On which date was {e} granted its charter?"),
        ),
        Relation(
            "emblem",
            EMBLEM,
            ("{s} bears a {v} on its flag.", "The flag of {s} bears a {v}."),
            ("What does {e} bear on its flag?", "What does the flag of {e} bear?"),
        ),
        Relation(
            "main export",
            (words.GOODS,),
            ("{s} is known for its export of {v}.", "The main export of {s} is {v}."),
            ("What is the main export of {e}?", "For which export is {e} known?"),
        ),
        Relation(
            "festival",
            (words.INSTRUMENTS,),
            ("{s} holds a yearly festival for the {v}.", "The yearly festival that {s} holds is for the {v}."),
            ("For which instrument does {e} hold a festival?", "What is the yearly festival of {e} for?"),
        ),
    ),
)

COMPANY = Kind(
    name="company",
    first=words.COMPANY_NAMES,
    last=words.COMPANY_ENDINGS,
    later_subject="the firm",
    relations=(
        Relation(
            "headquarters",
            PLACE,
            ("{s} has its headquarters in the city of {v}.", "The headquarters of {s} are in the city of {v}."),
            ("In which city does {e} have its headquarters?", "Where are the headquarters of {e}?"),
        ),
        Relation(
            "date of foundation",
            DATE,
            ("{s} was founded in {v}.", "In {v} {s} was founded."),
            ("When was {e} founded?", "On which date was {e} founded?"),
        ),
        Relation(
            "product",
            (words.GOODS,),
            ("{s} makes and sells {v}.", "The products that {s} makes and sells are {v}."),
            ("What does {e} make and sell?", "Which products does {e} sell?"),
        ),
        Relation(
            "logo",
            EMBLEM,
            ("{s} uses a {v} as its logo.", "The logo that {s} uses is a {v}."),
            ("What does {e} use as its logo?", "Which logo does {e} use?"),
        ),
        Relation(
            "occupation of founder",
            (words.PROFESSIONS,),
            ("The founder of {s} was a former {v}.", "A former {v} was the founder of {s}."),
            ("What was the founder of {e}?", "What was the former occupation of the founder of {e}?"),
        ),
        Relation(
            "raw material",
            (words.MATERIALS,),
            ("{s} buys large amounts of {v}.", "The raw material that {s} buys in large amounts is {v}."),
            ("What does {e} buy in large amounts?", "Which raw material does {e} buy?"),
        ),
    ),
)

KINDS = (PERSON, TOWN, COMPANY)
