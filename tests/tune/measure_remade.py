"""Every point of a search's front made again by its printed lines, beside what the search found.

    python -m tests.tune.measure_remade OUT FOLDER

OUT is `tune`'s folder; FOLDER is an empty one, in which the lines are run, but for what needs a GPU. Prints a line of
JSON for each point: whether the manifests of its bundle and its store, which name the digests of all their files, are
those of the search, to the digest; and exact match on the search's questions and on those held out. Exits with 1 if one
of them is not what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import MANIFEST, file_digest

PARTS = ("bundle", "store")
FIGURES = {"answer": "em", "parity": "em_candidate"}
"""Where a command's JSON has exact match."""


def remade(point: Mapping[str, Any], folder: Path, glimmer_export: Callable[..., str]) -> dict[str, Any]:
    """Run a point's lines, as report.json has them, but for what needs a GPU."""
    exact_match = []
    for line in point["commands"]:
        words = shlex.split(line)
        assert words[0] == "glimmer-export"
        if words[1] == "build":
            continue
        done = glimmer_export(*words[1:], "--json")
        if words[1] in FIGURES:
            exact_match.append(json.loads(done)[FIGURES[words[1]]])
    place = folder / f"point-{point['number']}"
    same = {name: file_digest(place / name / MANIFEST) == point["digests"][name] for name in PARTS}
    return {"point": point["number"], **same, "em": exact_match, "found": point["em"]["value"]}


def main() -> None:
    """Make all points again."""
    from glimmer_export.exporter.cli.app import command

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    report = json.loads((asked.out / "report.json").read_text(encoding="utf-8"))
    os.chdir(asked.folder)

    def run(*words: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            command([*words], standalone_mode=False)
        return said.getvalue()

    sound = True
    for point in report["front"]:
        found = remade(point, Path(), run)
        print(json.dumps(found), flush=True)  # noqa: T201 - what it is for
        sound = sound and all(found[name] for name in PARTS) and abs(found["em"][0] - found["found"]) < 1e-9
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
