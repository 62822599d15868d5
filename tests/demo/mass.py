"""docs/measurements/mass.md: exact match against the mean number of passages read, on both worlds of fidelity.md.

    OMP_NUM_THREADS=1 python -m tests.demo.mass runs

The folder is that of tests/demo/fidelity.py, whose world, bundle and store are taken if they are there. What is there
already is not run again; mass.json and the page's tables are brought up to date after each row.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.demo.fidelity import COMMON, GIVEN, MACHINE, WORLDS, keep, make

PAGE = Path("docs/measurements/mass.md")
FOUND = PAGE.with_suffix(".json")
MASSES = ("0.9", "0.5", "0.99", "0.7", "0.999", "0.95")
"""Most telling first."""
KEPT = (
    "coverage", "mass", "passages_read", "gold_in_top_m", "em_reference", "em_candidate", "em_delta",
    "em_delta_interval", "answers_equal", "answers_equal_of_correct", "top_m_overlap",
)  # fmt: skip
"""Of a parity report."""
HEADER = "| mass | passages read | exact match | difference (95%) | answers equal | equal of the correct | gold read |"


def measure(folder: Path, mass: str, options: str) -> None:
    """Make what a row needs and ask its questions, unless its result is there."""
    output = folder / "mass" / f"{mass}.json"
    if output.exists():
        return
    make(folder, COMMON, options)
    keep(folder, f"parity fp32 --reference fp32 --store store --mass {mass} {GIVEN} --json", KEPT, output)


def found_in(folder: Path) -> dict[str, Any]:
    """All rows of a folder, of each world by their mass, rising."""
    worlds = {
        world: {
            mass: json.loads(path.read_text(encoding="utf-8"))
            for mass in sorted(MASSES, key=float)
            if (path := folder / world / "mass" / f"{mass}.json").exists()
        }
        for world in WORLDS
    }
    return {"machine": MACHINE, **worlds}


def table(rows: dict[str, Any]) -> str:
    """A world's rows as the page has them, all m passages last."""
    lines = [HEADER, "| ---: | ---: | ---: | --- | ---: | ---: | ---: |"]
    for mass, row in rows.items():
        low, high = row["em_delta_interval"]
        lines.append(
            f"| {mass} | {row['passages_read']['candidate']:.2f} | {100 * row['em_candidate']:.2f} | "
            f"{100 * row['em_delta']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) | "
            f"{100 * row['answers_equal']:.2f}% | {100 * row['answers_equal_of_correct']:.2f}% | "
            f"{100 * row['gold_in_top_m']['candidate']:.2f}% |"
        )
    last = next(iter(rows.values()))
    lines.append(
        f"| all m | {last['passages_read']['reference']:.2f} | {100 * last['em_reference']:.2f} | | | | "
        f"{100 * last['gold_in_top_m']['reference']:.2f}% |"
    )
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Bring mass.json and the page's tables, each under its world's heading, up to date."""
    found = found_in(folder)
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with its tables as they were found; all else stays."""
    for world in WORLDS:
        if found[world]:
            begin, end = f"<!-- {world}: begin -->\n", f"<!-- {world}: end -->\n"
            before, _, rest = page.partition(begin)
            _, _, after = rest.partition(end)
            page = f"{before}{begin}{table(found[world])}{end}{after}"
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the rows of docs/measurements/mass.md.")
    parser.add_argument("folder", type=Path, help="where worlds, bundles, stores and results are kept")
    parser.add_argument("--masses", nargs="+", choices=MASSES, default=list(MASSES), metavar="MASS")
    arguments = parser.parse_args()
    for mass in arguments.masses:
        for name, options in WORLDS.items():
            (arguments.folder / name).mkdir(parents=True, exist_ok=True)
            measure(arguments.folder.resolve() / name, mass, options)
            write(arguments.folder.resolve())
