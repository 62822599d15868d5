"""The closed word lists of the demo world: every token that a passage, a question or an answer can contain.

Names and places are compounds of fixed syllables, so that the lists stay short to read and no name is a real person's.
"""

from __future__ import annotations

from itertools import product

__all__ = [
    "ANIMALS",
    "COLOURS",
    "COMPANY_ENDINGS",
    "COMPANY_NAMES",
    "FAMILY_NAMES",
    "GIVEN_NAMES",
    "GOODS",
    "INSTRUMENTS",
    "MATERIALS",
    "MONTHS",
    "PLACES",
    "PRIZES",
    "PROFESSIONS",
    "STUDIES",
    "TOWN_ENDINGS",
    "TOWN_NAMES",
    "YEARS",
]


def compounds(beginnings: str, endings: str) -> tuple[str, ...]:
    """Every capitalised `beginning + ending` of two lists of syllables separated by spaces."""
    return tuple((first + last).capitalize() for first, last in product(beginnings.split(), endings.split()))


GIVEN_NAMES = compounds("al be cor da el fen gar hol is jor", "bert dric lena mira nard ric sa vin")
FAMILY_NAMES = compounds("ash black car dun ever fair hart kings lang mar", "berg croft stead ham ley man son wood")

TOWN_NAMES = compounds(
    "ab ket lor mal nor os pen quar ros sel tar ul wex yar zel", "by combe dale gate hurst mere thorpe wick"
)
TOWN_ENDINGS = tuple(
    "Abbey Bay Bridge Brook Castle Chapel Cliff Common Corner Creek Cross Downs Falls Fen Ferry Forge Garden Glen "
    "Grove Harbour Heath Hill Hollow Island Lake Landing Lodge Manor Marsh Meadow Mill Moor Park Point Quay Ridge "
    "Rock Springs Vale Water".split()
)

COMPANY_NAMES = compounds(
    "ax bri cyn dor eco fal gly hex ion jax kro lum nex opt vel", "bex dax fix lon nova tek trix vor"
)
COMPANY_ENDINGS = tuple(
    "Agency Associates Bank Brewery Brothers Bureau Carriers Collective Company Concern Dairy Depot Dynamics "
    "Factory Foundry Freight Group Guild Holdings House Industries Institute Laboratory Line Logistics Motors "
    "Network Partners Press Railways Refinery Shipyard Stores Studios Supply Syndicate Systems Trust Union "
    "Workshop".split()
)

PLACES = compounds("bran cald drum esk garn hels inver kil stav torr", "berry doran fell holm lith more sund vik")
MONTHS = tuple("January February March April May June July August September October November December".split())
YEARS = tuple(str(year) for year in range(1850, 1950))
COLOURS = tuple("amber black blue crimson golden green grey orange purple scarlet silver white".split())
ANIMALS = tuple(
    "badger bear beaver bison boar camel crane deer dolphin dragon eagle elephant falcon fox goat hare hawk "
    "hedgehog heron horse jackal leopard lion lynx magpie otter owl panther peacock raven salmon seal serpent "
    "sparrow stag swan tiger turtle whale wolf".split()
)
MATERIALS = tuple(
    "alabaster aluminium bamboo basalt bone brass bronze canvas cedar chalk clay copper coral cork ebony enamel "
    "felt glass granite iron ivory jade lead leather linen marble nickel oak paper pearl pewter platinum porcelain "
    "rubber slate steel teak tin wax zinc".split()
)
PRIZES = tuple("badge cup laurel medal prize ribbon ring star".split())
PROFESSIONS = tuple(
    "actor architect astronomer baker barber blacksmith bookbinder botanist brewer butcher carpenter chemist clerk "
    "cobbler dancer dentist diver doctor engraver farmer gardener glazier goldsmith hunter judge lawyer librarian "
    "locksmith mason miller miner painter pilot plumber poet potter printer sailor sculptor shepherd surgeon tailor "
    "tanner teacher weaver".split()
)
INSTRUMENTS = tuple(
    "accordion bagpipe banjo bassoon bugle castanets cello clarinet cornet cymbals drum dulcimer fiddle flute gong "
    "guitar harmonica harp harpsichord horn kazoo lute lyre mandolin marimba oboe organ piano piccolo recorder "
    "saxophone sitar tambourine triangle trombone trumpet tuba ukulele viola xylophone".split()
)
STUDIES = tuple(
    "acoustics agriculture algebra anatomy archaeology astronomy biology botany chemistry commerce economics "
    "engineering ethics forestry genetics geography geology geometry grammar history hydrology law linguistics "
    "literature logic mechanics medicine metallurgy meteorology mythology navigation optics pharmacy philosophy "
    "physics poetry psychology rhetoric statistics zoology".split()
)
GOODS = tuple(
    "anchors apples barrels baskets bells bicycles blankets bottles bricks brooms buttons candles carpets carriages "
    "cheese clocks coats compasses engines gloves hammers hats honey kettles knives lamps lanterns mirrors nails "
    "needles pencils perfume pianos plates ropes saddles sails scissors shoes soap spoons stoves tents tiles toys "
    "umbrellas wheels wine".split()
)
