"""R-precision and recall@k by evidence sets, as KILT's script counts them (KILT paper, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

from glimmer_export.calibration.evidence import Evidence

__all__ = ["r_precision", "recall_at"]


def r_precision(pages: Sequence[str], evidence: Sequence[Evidence]) -> float:
    """How much of an evidence set stands among as many of the first pages as it has; of the set that does best.

    `pages` are those of the retrieved passages, best first, each once. 0.0 without evidence.
    """
    named = [{page for page in pages_of_set if page is not None} for pages_of_set in evidence]
    shares = (len(wanted.intersection(pages[: len(wanted)])) / len(wanted) for wanted in named if wanted)
    return max(shares, default=0.0)


def recall_at(k: int, pages: Sequence[str], evidence: Sequence[Evidence]) -> float:
    """The share of the evidence sets, equal ones counted once, that are complete among the first `k` of the ranking.

    The ranking is that of KILT: an evidence set stands in it once, where the last of its pages was found, in place of
    those pages; a page of no set stands for itself. A set with a page that has no name is never complete.
    """
    sets = list(dict.fromkeys(frozenset(page or "" for page in pages_of_set) for pages_of_set in evidence))
    if not sets or not pages:
        return 0.0
    places = {page: place for place, page in enumerate(pages)}
    found = [[places[page] for page in wanted if page in places] for wanted in sets]
    # One entry for each set of which something was found, and one for each page that belongs to none.
    ranking = [(max(at), len(at) == len(wanted)) for wanted, at in zip(sets, found, strict=True) if at]
    wanted_pages = frozenset().union(*sets)
    ranking += [(place, False) for page, place in places.items() if page not in wanted_pages]
    # The sets that end at the same page keep their order.
    ranking.sort(key=lambda entry: entry[0])
    return sum(complete for _, complete in ranking[:k]) / len(sets)
