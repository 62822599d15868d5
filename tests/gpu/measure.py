"""Measure on a GPU, part by part: `python -m tests.gpu.measure -o OUT [--part NAME]`; report.py makes a page of it.

Run it again with the same OUT and it goes on where it was. A part ends within --seconds, so that it fits a command of
ten minutes; --work keeps what was exported and built for the parts that follow on the same machine. --rehearse goes
through all of it at tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from exporter.publish import replace_file
from tests.gpu.bars import summary_of
from tests.gpu.parts import decoder_steps, engines, parity, peers, speed, switches
from tests.gpu.runner import DONE, Part, Step, finite, run_part
from tests.gpu.setting import Setting, describe

__all__ = ["PARTS", "main", "measure"]

PARTS: dict[str, Callable[[Setting], list[Step]]] = {
    "engines": engines.steps,
    "parity": parity.steps,
    "peers-large": partial(peers.steps, size="large"),
    "decoder-steps": decoder_steps.steps,
    "speed-large": partial(speed.steps, size="large"),
    "switches-base": partial(switches.steps, size="base"),
    "speed-base": partial(speed.steps, size="base"),
    "peers-base": partial(peers.steps, size="base"),
}
"""In the order of what would be missed most."""
SECONDS = 510.0


def measure(setting: Setting, names: Sequence[str], *, seconds: float, command: str) -> bool:
    """Run parts and write the summary; whether every step of them is done."""
    complete = True
    for name in names:
        steps = PARTS[name](setting)
        part = run_part(setting.out, name, steps, describe(setting, command), seconds=seconds)
        complete &= all(part.steps.get(step.name, {}).get("status") == DONE for step in steps)
        parts = {other: Part.open(setting.out, other) for other in PARTS if (setting.out / f"{other}.json").is_file()}
        content = json.dumps(finite(summary_of(parts)), indent=1) + "\n"
        replace_file(setting.out / "summary.json", content.encode())
    return complete


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every step is done; 1 where some failed or were left for another run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the parts' JSON")
    parser.add_argument("--part", choices=PARTS, help="one part; without it all, in order")
    parser.add_argument("--work", type=Path, help="folder of exports and engines (default: below the temporary one)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each part (default: %(default)s)")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU: to find mistakes, not times")
    options = parser.parse_args(arguments)
    work = options.work or Path(tempfile.gettempdir()) / ("glimmer-rehearsal" if options.rehearse else "glimmer-gpu")
    options.output.mkdir(parents=True, exist_ok=True)
    setting = Setting.of(work, options.output, rehearsal=options.rehearse)
    words = ["python", "-m", "tests.gpu.measure", *(sys.argv[1:] if arguments is None else arguments)]
    names = [options.part] if options.part else list(PARTS)
    return 0 if measure(setting, names, seconds=options.seconds, command=shlex.join(map(str, words))) else 1


if __name__ == "__main__":
    sys.exit(main())
