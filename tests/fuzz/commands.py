"""The command line in this process, and command lines whose options are odd."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import get_args

from glimmer_export.runtime.contract import GlimmerError
from tests.fuzz.damage_values import ODD_TEXTS
from tests.fuzz.inputs import BUNDLE, STORE

__all__ = ["CommandRefusedError", "odd_words", "run_command"]

SUMMARIES = (
    ("inspect", str(BUNDLE)), ("ask", str(BUNDLE), "w1 w2", "--store", str(STORE)),
    ("lint", str(BUNDLE), "--target", "t4"),
    ("ask", str(BUNDLE), "w1", "--passage", "w2"), ("cost", "--model", "small"), ("cost", "--bundle", str(BUNDLE)),
    ("quantize", str(BUNDLE), "-o", "{out}", "--cpu", "x86-vnni"), ("memory", "verify", str(STORE)),
    ("memory", "convert", str(STORE), "-o", "{out}", "--codec", "int8"),
    ("convert", str(STORE), "--from", "huggingface", "-o", "{out}"), ("export", str(STORE), "-o", "{out}"),
    ("build", str(BUNDLE), "--target", "t4"), ("init", "--from-t5", str(STORE), "-o", "{out}"),
)  # fmt: skip
"""Commands that change nothing but `{out}`."""
NUMBERS = ("0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e999", str(2**31), str(2**70), "9" * 5000, "0x10", "\u0661",
           "1_0", "")


class CommandRefusedError(GlimmerError):
    """A command that ended with 2, as it ends where its input is at fault."""

    def __init__(self, code: int) -> None:
        super().__init__("command", expected="", found=str(code), fix="")


def run_command(words: Sequence[str]) -> None:
    """Run a command; raises CommandRefusedError for exit code 2, and whatever the command does not name."""
    from glimmer_export.exporter.cli.boundary import input_errors_reported
    from glimmer_export.exporter.cli.run import run

    sys.argv = ["glimmer-export", *words]
    directory = Path.cwd()
    try:
        with input_errors_reported():
            run()
    except SystemExit as stop:
        if stop.code == 2:
            raise CommandRefusedError(2) from None
        if stop.code not in (None, 0, 1):
            raise
    finally:
        os.chdir(directory)


def odd_words(random: Random, out: Path) -> list[str]:
    """A command that reads the golden files, with one or two options that are not what is expected."""
    from tests.cli.every_command import COMMANDS

    words = [word.format(out=out) for word in random.choice(SUMMARIES)]
    command = next(one for one in COMMANDS if one.path == tuple(words[: len(one.path)]))
    for _ in range(random.choice((1, 1, 2))):
        if random.random() < 0.3:
            place = random.randrange(1, len(words))
            words[place] = random.choice([*ODD_TEXTS, *NUMBERS])
            continue
        name = random.choice(list(command.infos))
        option = command.option(name) or random.choice(("--unknown", "-Z", "--", "-"))
        kinds = {command.kinds[name], *get_args(command.kinds[name])}
        odd = NUMBERS if kinds & {int, float} else ODD_TEXTS
        value = random.choice(ODD_TEXTS if random.random() < 0.2 else odd)
        words += [option] if kinds & {bool} else [option, value]
    # No process can be given a NUL, and what is longer than the system takes is not ours to see; bytes that are no text
    # come as Python has them of the command line.
    return [
        word.replace("\0", "")[:60_000].encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        for word in words
    ]
