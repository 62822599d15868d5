"""What the hard world knows about each kind of entity: the demo's words in longer names, values and paraphrases.

Names have three words. Relations come in twos and threes that share all but one word of their names and the form of
their values, which are 3 to 8 words. Each is stated in two ways and asked for in two ways, one of which has no word of
those that tell it.
"""

from __future__ import annotations

from glimmer_export.exporter.demo import words
from glimmer_export.exporter.demo.relations import Kind, Relation

__all__ = ["HARD_KINDS"]

ADDRESS = (words.MATERIALS, ("alley", "lane", "row", "square", "street"))
PLACE = (words.PLACES, ("abbey", "bridge", "market", "mills", "port"))
DATE = (("early", "late", "mid"), words.MONTHS, words.YEARS)
PART_OF_MONTH = (("beginning", "end", "middle"), ("of",), words.MONTHS, words.YEARS)
ANIMAL = (words.COLOURS, words.ANIMALS)
WARES = (words.COLOURS, words.MATERIALS, words.GOODS)

PERSON = Kind(
    name="person",
    first=words.GIVEN_NAMES,
    middle=words.GIVEN_NAMES,
    last=words.FAMILY_NAMES,
    later_subject="{last}",
    relations=(
        Relation(
            "place of birth",
            (*ADDRESS, ("in",), *PLACE),
            ("{s} was born in {v}.", "{s} came into the world at {v}."),
            ("In which place was {e} born?", "Where did {e} see first light?"),
        ),
        Relation(
            "place of burial",
            (*ADDRESS, ("in",), *PLACE),
            ("{s} was buried in {v}.", "{s} was laid to rest at {v}."),
            ("In which place was {e} buried?", "Where is the tomb of {e}?"),
        ),
        Relation(
            "date of birth",
            DATE,
            ("{s} was born in {v}.", "{s} came into the world in {v}."),
            ("When was {e} born?", "On which date did {e} see first light?"),
        ),
        Relation(
            "date of burial",
            DATE,
            ("{s} was buried in {v}.", "{s} was laid to rest in {v}."),
            ("When was {e} buried?", "On which date did the mourners of {e} meet?"),
        ),
        Relation(
            "date of marriage",
            DATE,
            ("{s} got married in {v}.", "{s} took a spouse in {v}."),
            ("When did {e} get married?", "On which date were the vows of {e}?"),
        ),
        Relation(
            "profession",
            (words.PROFESSIONS, ("and",), ("player",), ("of",), ("the",), words.INSTRUMENTS, ("in",), words.PLACES),
            ("{s} worked for many years as a {v}.", "{s} earned a living as a {v}."),
            ("What did {e} work as?", "How did {e} make money?"),
        ),
        Relation(
            "field of study",
            (words.STUDIES, ("with",), words.STUDIES, ("and",), words.STUDIES),
            ("{s} went to university to study {v}.", "{s} was taught {v}."),
            ("What did {e} study at university?", "Which subjects did {e} learn?"),
        ),
        Relation(
            "award received",
            (words.MATERIALS, words.PRIZES, ("for",), words.STUDIES),
            ("{s} received the award of the {v}.", "{s} was honoured by the {v}."),
            ("Which award did {e} receive?", "What did {e} win?"),
        ),
    ),
)

TOWN = Kind(
    name="town",
    first=words.TOWN_NAMES,
    middle=words.FAMILY_NAMES,
    last=words.TOWN_ENDINGS,
    later_subject="the town",
    relations=(
        Relation(
            "twin town",
            (("great", "little", "lower", "upper"), *PLACE),
            ("{s} is twinned with {v}.", "{s} has a treaty of friendship with {v}."),
            ("With which town is {e} twinned?", "Where is the sister of {e}?"),
        ),
        Relation(
            "mother town",
            (("great", "little", "lower", "upper"), *PLACE),
            ("{s} was settled from {v}.", "{s} is a colony of {v}."),
            ("From which town was {e} settled?", "Where did the founders of {e} live?"),
        ),
        Relation(
            "date of charter",
            PART_OF_MONTH,
            ("{s} was given a charter at the {v}.", "{s} became free at the {v}."),
            ("When was {e} given a charter?", "On which date did {e} gain rights?"),
        ),
        Relation(
            "date of flood",
            PART_OF_MONTH,
            ("{s} was flooded at the {v}.", "{s} stood under water at the {v}."),
            ("When was {e} flooded?", "On which date did the river drown {e}?"),
        ),
        Relation(
            "date of fire",
            PART_OF_MONTH,
            ("{s} was burnt down at the {v}.", "{s} went up in flames at the {v}."),
            ("When was {e} burnt down?", "On which date did {e} lie in ashes?"),
        ),
        Relation(
            "emblem",
            (*ANIMAL, ("with",), words.MATERIALS, words.GOODS),
            ("{s} bears a {v} on its flag.", "{s} paints a {v} on its gate."),
            ("What does {e} bear on its flag?", "Which emblem does {e} have?"),
        ),
        Relation(
            "main export",
            (*WARES, ("for",), ("the",), words.PROFESSIONS, ("of",), words.PLACES),
            ("{s} is known for its export of {v}.", "{s} sends out {v}."),
            ("What is the main export of {e}?", "Which wares leave {e}?"),
        ),
        Relation(
            "festival",
            (words.INSTRUMENTS, ("and",), words.INSTRUMENTS),
            ("{s} holds a yearly festival for {v}.", "{s} honours the {v}."),
            ("For what does {e} hold a festival?", "Which music is dear to {e}?"),
        ),
    ),
)

COMPANY = Kind(
    name="company",
    first=words.COMPANY_NAMES,
    middle=words.FAMILY_NAMES,
    last=words.COMPANY_ENDINGS,
    later_subject="the firm",
    relations=(
        Relation(
            "seat of management",
            (*ADDRESS, ("in",), words.PLACES),
            ("{s} has its headquarters in {v}.", "The directors of {s} meet in {v}."),
            ("Where are the headquarters of {e}?", "Where is the head office of {e}?"),
        ),
        Relation(
            "seat of production",
            (*ADDRESS, ("in",), words.PLACES),
            ("{s} has its works in {v}.", "The workers of {s} toil in {v}."),
            ("Where are the works of {e}?", "Where does {e} manufacture?"),
        ),
        Relation(
            "date of foundation",
            DATE,
            ("{s} was founded in {v}.", "{s} opened its doors in {v}."),
            ("When was {e} founded?", "On which date was {e} set up?"),
        ),
        Relation(
            "date of merger",
            DATE,
            ("{s} was merged in {v}.", "{s} joined its rival in {v}."),
            ("When was {e} merged?", "On which date did {e} become one of two?"),
        ),
        Relation(
            "date of bankruptcy",
            DATE,
            ("{s} went bankrupt in {v}.", "{s} closed its doors in {v}."),
            ("When did {e} go bankrupt?", "On which date did money fail {e}?"),
        ),
        Relation(
            "product",
            (*WARES, ("of",), ("the",), words.ANIMALS, ("brand",)),
            ("{s} makes and sells {v}.", "{s} offers {v}."),
            ("What does {e} make and sell?", "Which wares does {e} bring to market?"),
        ),
        Relation(
            "logo",
            (*ANIMAL, ("above",), *ANIMAL),
            ("{s} uses a {v} as its logo.", "{s} prints a {v} on every box."),
            ("What does {e} use as its logo?", "Which sign does {e} have?"),
        ),
        Relation(
            "raw material",
            (*WARES[:2], ("from",), ("near",), *PLACE),
            ("{s} buys large amounts of {v}.", "{s} consumes {v}."),
            ("What does {e} buy in large amounts?", "Which raw material does {e} need?"),
        ),
    ),
)

HARD_KINDS = (PERSON, TOWN, COMPANY)
