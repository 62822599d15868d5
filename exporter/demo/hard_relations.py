"""What the hard world knows about each kind of entity: the demo's words in longer names, values and paraphrases.

Names have three words. Relations come in threes that share all but one word of their names and the form of their
values, which are 3 to 8 words. Each is stated in three ways and asked for in three ways, one or more of which share no
word with those that would tell the relation.
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
            ("{s} was born in {v}.", "The birthplace of {s} is {v}.", "{s} came into the world at {v}."),
            ("In which place was {e} born?", "Where did {e} see first light?", "What is the native town of {e}?"),
        ),
        Relation(
            "place of burial",
            (*ADDRESS, ("in",), *PLACE),
            ("{s} was buried in {v}.", "The grave of {s} lies in {v}.", "{s} was laid to rest at {v}."),
            ("In which place was {e} buried?", "Where is the tomb of {e}?", "What is the last home of {e}?"),
        ),
        Relation(
            "place of marriage",
            (*ADDRESS, ("in",), *PLACE),
            ("{s} got married in {v}.", "The wedding of {s} was held in {v}.", "{s} took a spouse at {v}."),
            ("In which place did {e} get married?", "Where were the vows of {e}?", "What saw the bridal of {e}?"),
        ),
        Relation(
            "date of birth",
            DATE,
            ("{s} was born in {v}.", "The birthday of {s} fell in {v}.", "{s} came into the world in {v}."),
            ("When was {e} born?", "On which date did {e} see first light?", "What is the first day of {e}?"),
        ),
        Relation(
            "date of burial",
            DATE,
            ("{s} was buried in {v}.", "The funeral of {s} fell in {v}.", "{s} was laid to rest in {v}."),
            ("When was {e} buried?", "On which date did the mourners of {e} meet?", "What is the last day of {e}?"),
        ),
        Relation(
            "date of marriage",
            DATE,
            ("{s} got married in {v}.", "The wedding of {s} fell in {v}.", "{s} took a spouse in {v}."),
            ("When did {e} get married?", "On which date were the vows of {e}?", "What is the bridal day of {e}?"),
        ),
        Relation(
            "profession",
            (words.PROFESSIONS, ("and",), ("player",), ("of",), ("the",), words.INSTRUMENTS, ("in",), words.PLACES),
            ("{s} worked for many years as a {v}.", "By trade {s} was a {v}.", "{s} earned a living as a {v}."),
            ("What did {e} work as?", "How did {e} make money?", "What was the occupation of {e}?"),
        ),
        Relation(
            "field of study",
            (words.STUDIES, ("with",), words.STUDIES, ("and",), words.STUDIES),
            ("{s} went to university to study {v}.", "The degree of {s} is in {v}.", "{s} was taught {v}."),
            ("What did {e} study at university?", "Which subjects did {e} learn?", "What is {e} a graduate of?"),
        ),
        Relation(
            "award received",
            (words.MATERIALS, words.PRIZES, ("for",), words.STUDIES),
            ("{s} received the award of the {v}.", "The {v} was given to {s}.", "{s} was honoured by the {v}."),
            ("Which award did {e} receive?", "What did {e} win?", "Which distinction does {e} hold?"),
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
            ("{s} is twinned with {v}.", "The partner of {s} is {v}.", "{s} has a treaty of friendship with {v}."),
            ("With which town is {e} twinned?", "Where is the sister of {e}?", "What is allied to {e}?"),
        ),
        Relation(
            "rival town",
            (("great", "little", "lower", "upper"), *PLACE),
            ("{s} is the rival of {v}.", "The old enemy of {s} is {v}.", "{s} competes with {v}."),
            ("Of which town is {e} the rival?", "Where is the foe of {e}?", "What is hated in {e}?"),
        ),
        Relation(
            "mother town",
            (("great", "little", "lower", "upper"), *PLACE),
            ("{s} was settled from {v}.", "The settlers of {s} came from {v}.", "{s} is a colony of {v}."),
            ("From which town was {e} settled?", "Where did the founders of {e} live?", "What is the origin of {e}?"),
        ),
        Relation(
            "date of charter",
            PART_OF_MONTH,
            ("{s} was given a charter at the {v}.", "The charter of {s} is of the {v}.", "{s} became free at the {v}."),
            ("When was {e} given a charter?", "On which date did {e} gain rights?", "What began the liberty of {e}?"),
        ),
        Relation(
            "date of flood",
            PART_OF_MONTH,
            ("{s} was flooded at the {v}.", "The flood of {s} came at the {v}.", "{s} stood under water at the {v}."),
            ("When was {e} flooded?", "On which date did the river drown {e}?", "What saw the deluge of {e}?"),
        ),
        Relation(
            "date of fire",
            PART_OF_MONTH,
            ("{s} was burnt down at the {v}.", "The fire of {s} came at the {v}.", "{s} went up in flames at the {v}."),
            ("When was {e} burnt down?", "On which date did {e} lie in ashes?", "What saw the blaze of {e}?"),
        ),
        Relation(
            "emblem",
            (*ANIMAL, ("with",), words.MATERIALS, words.GOODS),
            ("{s} bears a {v} on its flag.", "The arms of {s} are a {v}.", "{s} paints a {v} on its gate."),
            ("What does {e} bear on its flag?", "Which emblem does {e} have?", "What is the sign of {e}?"),
        ),
        Relation(
            "main export",
            (*WARES, ("for",), ("the",), words.PROFESSIONS, ("of",), words.PLACES),
            ("{s} is known for its export of {v}.", "{s} lives by {v}.", "{s} sends out {v}."),
            ("What is the main export of {e}?", "Which wares leave {e}?", "What does {e} ship abroad?"),
        ),
        Relation(
            "festival",
            (words.INSTRUMENTS, ("and",), words.INSTRUMENTS),
            ("{s} holds a yearly festival for {v}.", "Once a year {s} celebrates {v}.", "{s} honours the {v}."),
            ("For what does {e} hold a festival?", "Which music is dear to {e}?", "What is feasted in {e}?"),
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
            ("{s} has its headquarters in {v}.", "{s} is managed from {v}.", "The directors of {s} meet in {v}."),
            ("Where are the headquarters of {e}?", "Where is the head office of {e}?", "What is the seat of {e}?"),
        ),
        Relation(
            "seat of research",
            (*ADDRESS, ("in",), words.PLACES),
            ("{s} does its research in {v}.", "The scholars of {s} meet in {v}.", "{s} tries new ideas in {v}."),
            ("Where is the research of {e}?", "Where do the inventors of {e} sit?", "What houses the minds of {e}?"),
        ),
        Relation(
            "seat of production",
            (*ADDRESS, ("in",), words.PLACES),
            ("{s} has its works in {v}.", "The halls of {s} stand in {v}.", "The workers of {s} toil in {v}."),
            ("Where are the works of {e}?", "Where does {e} manufacture?", "What houses the machines of {e}?"),
        ),
        Relation(
            "date of foundation",
            DATE,
            ("{s} was founded in {v}.", "The founder of {s} began in {v}.", "{s} opened its doors in {v}."),
            ("When was {e} founded?", "On which date was {e} set up?", "What is the first day of {e}?"),
        ),
        Relation(
            "date of merger",
            DATE,
            ("{s} was merged in {v}.", "The merger of {s} came in {v}.", "{s} joined its rival in {v}."),
            ("When was {e} merged?", "On which date did {e} become one of two?", "What saw the union of {e}?"),
        ),
        Relation(
            "date of bankruptcy",
            DATE,
            ("{s} went bankrupt in {v}.", "The bankruptcy of {s} came in {v}.", "{s} closed its doors in {v}."),
            ("When did {e} go bankrupt?", "On which date did money fail {e}?", "What is the last day of {e}?"),
        ),
        Relation(
            "product",
            (*WARES, ("of",), ("the",), words.ANIMALS, ("brand",)),
            ("{s} makes and sells {v}.", "The products of {s} are {v}.", "{s} offers {v}."),
            ("What does {e} make and sell?", "Which wares does {e} bring to market?", "What can be bought from {e}?"),
        ),
        Relation(
            "logo",
            (*ANIMAL, ("above",), *ANIMAL),
            ("{s} uses a {v} as its logo.", "The trademark of {s} is a {v}.", "{s} prints a {v} on every box."),
            ("What does {e} use as its logo?", "Which sign does {e} have?", "What is {e} known by?"),
        ),
        Relation(
            "raw material",
            (*WARES[:2], ("from",), ("near",), *PLACE),
            ("{s} buys large amounts of {v}.", "The raw material of {s} is {v}.", "{s} consumes {v}."),
            ("What does {e} buy in large amounts?", "Which raw material does {e} need?", "What is brought to {e}?"),
        ),
    ),
)

HARD_KINDS = (PERSON, TOWN, COMPANY)
