"""A process that runs cases, one after another, and says what came of each: `python -m tests.fuzz.worker ROOT`.

Cases come as lines of JSON on standard input; what is said goes to the descriptor that standard output was. What cases
print, and where a case hung, goes to a file.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from pathlib import Path

from tests.fuzz.case import Case, Sound

ROOT = Path(__file__).parents[2]
MORE = 1 << 30
"""Bytes that a damaged input may take beyond the sound one."""
MAX_ADDRESSES = 6 << 30
"""Bytes that one case may ask the system for, whether it touches them or not: the machine is others' too."""
DUMP_SECONDS = 17.0
"""A little before the process is ended: where it was then."""
OURS = f"{ROOT}/glimmer_export/"


def main() -> None:
    """Run the cases that come, until there are no more."""
    root = Path(sys.argv[1]).resolve()
    said = os.fdopen(os.dup(1), "w", buffering=1)
    log = (root / f"worker-{os.getpid()}.log").open("w", encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    warnings.simplefilter("ignore")
    os.environ["COLUMNS"] = "200"
    sound, folder = Sound(root), root / f"case-{os.getpid()}"
    home = Path.cwd()
    for line in sys.stdin:
        case = Case(**json.loads(line))
        said.write(json.dumps({"made": _make(case, folder, sound), "log": log.name}) + "\n")
        prepared = case.prepare(folder, sound)
        os.chdir(home)
        said.write(json.dumps({"begun": case.seed is not None}) + "\n")
        grown, outcome = _measured(case, folder, sound, log.name)
        if grown > MORE and outcome["kind"] != "failed":  # more than the sound input, whatever that takes?
            sound_case = Case(case.target, None, prepared.number)
            os.chdir(home)
            least, _ = _measured(sound_case, folder, sound, log.name)
            if grown > least + MORE:
                text = f"peak of {grown >> 20} MiB; the sound input's is {least >> 20} MiB"
                outcome = {"kind": "failed", "text": text}
        said.write(json.dumps({**outcome, "use": prepared.number, "damage": prepared.damage, "grown": grown}) + "\n")
        os.chdir(home)


def _make(case: Case, folder: Path, sound: Sound) -> bool:
    """Have the sound inputs and what they are used by at hand, so that no case's time is theirs."""
    from tests.fuzz.targets import target_of

    _clear(folder)
    sound.target(target_of(case.target))
    return True


def _measured(case: Case, folder: Path, sound: Sound, log: str) -> tuple[int, dict[str, str]]:
    """By how many bytes memory grew at most, and what came of a case."""
    _clear(folder)
    folder.mkdir()
    prepared = case.prepare(folder, sound)
    before = _reset_peak()
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MAX_ADDRESSES, resource.RLIM_INFINITY))
    with Path(log).open("a", encoding="utf-8") as place:
        faulthandler.dump_traceback_later(DUMP_SECONDS, file=place)
        outcome = _outcome(prepared, sound)
        faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    grown = _status("VmHWM") - before
    if outcome["kind"] != "failed" and (fault := prepared.fault(refused=outcome["kind"] == "named")):
        outcome = {"kind": "failed", "text": fault}
    return grown, outcome


def _outcome(prepared: object, sound: Sound) -> dict[str, str]:
    from glimmer_export.runtime.contract import GlimmerError

    try:
        prepared.run(sound)  # type: ignore[attr-defined]
    except GlimmerError as error:
        return {"kind": "named", "text": type(error).__name__}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}"
        traceback.print_exc()
        kind = type(error)
        return {"kind": "failed", "text": f"{kind.__module__}.{kind.__qualname__}: {str(error)[:120]!r} at {place}"}
    return {"kind": "read", "text": ""}


def _reset_peak() -> int:
    """Have the kernel count the peak from now on; returns the resident bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
