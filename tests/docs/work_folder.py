"""The folder in which the commands of all pages run, one after the other, as a reader of all of them would run them.

What a page made is there for those after it, and a command that stands on several pages runs once. The README's run in
processes of their own, by the entry point that is installed; those of the other pages in this one, which loads torch
once, by the same entry point's function.

A command with `&` at its end is a server: it gets a process of its own, and the page goes on as soon as it has printed
what is shown of it. `kill %1` stops it, and the page may not leave it running. It listens at a free port, to which the
page's own, 8080, is changed in what follows.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from glimmer_export.exporter.cli import main
from tests.bundle_factory import write_rows
from tests.checkpoint.golden.known import DIRECTORY as GOLDEN
from tests.checkpoint.golden.known import KNOWN
from tests.docs.pages import ANY, PAGES, ROOT, Step, is_shown, steps
from tests.fid_factory import save_fid
from tests.t5_factory import make_t5, save_t5

__all__ = ["COMMANDS", "IN_A_SHELL", "MAKE_DEMO", "TOKENIZER", "WorkFolder", "demo_commands"]

TOKENIZER = ROOT / "exporter" / "demo" / "checkpoint" / "tokenizer.json"
COMMANDS = Path(sys.executable).parent
README, DEMO, MAKE_DEMO = "README.md", "demo-output", "make demo"
IN_A_SHELL = (". .venv/bin/activate", f"cd {DEMO}")
"""What a reader's shell does, and this one has done already."""
BACKGROUND, STOP = " &", "kill %1"
PORT, PORT_VARIABLE = "8080", "GLIMMER_SERVE_PORT"
STOPPED = (0, 128 + signal.SIGTERM)
"""How a server ends that a signal has stopped."""
START_SECONDS = 120
"""Within which a server says that it has begun, on a busy machine."""
WIDTH = "120"
"""Columns of the terminal that the pages show."""


class WorkFolder:
    """A folder named `demo-output`, with what a reader brings: a Hugging Face T5, a FiD, a GLIMMER of T5X, passages."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / DEMO
        self.path.mkdir()
        self.printed: dict[str, str] = {}
        """What each command printed, by the command, less `--overwrite`."""
        self.faults: dict[str, list[str]] = {}
        """What went wrong on each page that was run."""
        self.server: subprocess.Popen[bytes] | None = None
        self.port = PORT
        _bring(self.path)

    def run_through(self, page: Path) -> list[str]:
        """The faults of a page, after it and the pages before it were run as far as they had not been."""
        for each in PAGES[: PAGES.index(page) + 1]:
            name = str(each)
            if name not in self.faults:
                self.faults[name] = [fault for step in steps(each) if step.note is None for fault in self._run(step)]
                if self.server is not None:
                    self.faults[name].append(f"{name} leaves a server running, or did not stop it\n{self._stop()[1]}")
        return self.faults[str(page)]

    def _run(self, step: Step) -> Iterator[str]:
        if self.server is not None:
            step = replace(step, source=self._at_port(step.source), shown=self._at_port(step.shown))
        shown = step.shown.replace(f"{DEMO}/", "") if step.source == MAKE_DEMO else step.shown
        code, printed = self._do(step)
        if code:
            yield f"{step}\nends with {code}\n{printed}"
        elif shown and not is_shown(shown, printed):
            yield f"{step}\nprints\n{printed}and not\n{shown}"
        elif not printed.strip() and step.source not in (*IN_A_SHELL, STOP):
            yield f"{step}\nprints nothing"

    def _do(self, step: Step) -> tuple[int, str]:
        if step.source in IN_A_SHELL:
            return 0, ""
        of_its_own = step.page == README
        if step.language == "python":
            command = [sys.executable, "-c", step.source]
            return self._process(command) if of_its_own else self._here(lambda: exec(_compiled(step), {}))
        if step.source == MAKE_DEMO:
            return self._demo()
        if step.source == STOP or step.source.endswith(BACKGROUND) or step.source.startswith("curl "):
            return self._with_server(step)
        return self._command(shlex.split(step.source), of_its_own=of_its_own)

    def _demo(self) -> tuple[int, str]:
        """The commands of `make demo`, with what make prints of them; this is the folder that they write into."""
        printed = ""
        for command in demo_commands():
            words = [word.removeprefix("./") for word in shlex.split(command.removeprefix(".venv/bin/"))]
            code, more = self._command(words, of_its_own=False)
            printed += f"{command.replace('./', '')}\n{more}"
            if code:
                return code, printed
        return 0, printed

    def _command(self, words: list[str], *, of_its_own: bool) -> tuple[int, str]:
        key = shlex.join(word for word in words if word != "--overwrite")
        if key in self.printed:
            return 0, self.printed[key]
        code, printed = self._process(words) if of_its_own else self._here(lambda: _main(words))
        if code == 0:
            self.printed[key] = printed
        return code, printed

    def _with_server(self, step: Step) -> tuple[int, str]:
        if step.source == STOP:
            return self._stop()
        return self._start(step) if step.source.endswith(BACKGROUND) else self._process(shlex.split(step.source))

    def _start(self, step: Step) -> tuple[int, str]:
        assert self.server is None, f"{step}\na second server"
        assert step.shown, f"{step}\nnothing is shown that says when it has begun"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        words, shown = shlex.split(step.source.removesuffix(BACKGROUND)), f"{self._at_port(step.shown)}\n{ANY}"
        with self._log.open("wb") as log:
            self.server = subprocess.Popen(
                [COMMANDS / words[0], *words[1:]], cwd=self.path, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, PORT_VARIABLE: self.port, "COLUMNS": WIDTH},
            )
        end = time.monotonic() + START_SECONDS
        while not is_shown(shown, self._log.read_text()):
            if self.server.poll() is not None or time.monotonic() > end:
                self._stop()
                return 1, self._log.read_text()
            time.sleep(0.05)
        return 0, step.shown

    def _stop(self) -> tuple[int, str]:
        """Stop the server; 0 if it ends as one that was stopped, and what it has printed if not."""
        assert self.server is not None, "no server to stop"
        server, self.server = self.server, None
        server.terminate()
        try:
            code = server.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            code = server.wait()
        return (0, "") if code in STOPPED else (1, f"it ends with {code}\n{self._log.read_text()}")

    @property
    def _log(self) -> Path:
        return self.path.with_name("server.log")

    def _at_port(self, text: str) -> str:
        return text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self.port}")

    def _process(self, command: list[str]) -> tuple[int, str]:
        # The README's reader has the environment on PATH; this process may have been started without.
        environment = {**os.environ, "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}", "COLUMNS": WIDTH}
        done = subprocess.run(
            command, cwd=self.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def _here(self, act: Callable[[], object]) -> tuple[int, str]:
        """Run something in this process and folder; returns what would be its exit code, and what it printed."""
        printed, code = io.StringIO(), 0
        with _in_folder(self.path), redirect_stdout(printed), redirect_stderr(printed), _as_by_itself():
            try:
                act()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except Exception:  # noqa: BLE001 - a fault of the page, to be shown with what came before it
                code = 1
                traceback.print_exc()
        return code, printed.getvalue()


def demo_commands() -> list[str]:
    """What `make demo` would run once everything is installed, writing into the folder itself."""
    words = ["make", "--dry-run", "--old-file", ".venv/installed", "demo", "DEMO=.", "BIN=.venv/bin"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith(".venv/bin/glimmer-export ")]


def _compiled(step: Step) -> CodeType:
    return compile(step.source, step.page, "exec")


def _main(words: list[str]) -> None:
    """The entry point of `glimmer-export`, which the installed command calls."""
    assert words[0] == "glimmer-export", f"not a command of ours: {words}"
    before, sys.argv = sys.argv, words
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    try:
        main()
    finally:
        sys.argv = before
        for number, handler in handlers.items():  # a command's own are for the rest of its process
            signal.signal(number, handler)


@contextmanager
def _in_folder(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _as_by_itself() -> Iterator[None]:
    """Warnings are printed, as in a process of its own, and the terminal is as wide as the pages show it."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.setattr(warnings, "showwarning", _print_warning)
        patch.setenv("COLUMNS", WIDTH)
        yield


def _print_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, *place[:2]))


def _bring(directory: Path) -> None:
    save_t5(make_t5("v1.1", vocab_size=2048, num_layers=6), directory / "t5")
    shutil.copy(TOKENIZER, directory / "t5")
    save_fid(make_t5("v1.0"), directory / "nq_reader_base")
    shutil.copytree(GOLDEN / "t5x_zarr", directory / "glimmer-t5x" / "checkpoint_1000000")
    (directory / "map.yaml").write_text("memory_encoder: passage_encoder\n", encoding="utf-8")
    (directory / "glimmer.json").write_text(KNOWN["glimmer"].model_dump_json(), encoding="utf-8")
    write_rows(directory / "new.jsonl", [{"id": 1, "title": "Changed", "text": "It was."}, {"id": "n", "text": "New."}])
    _bring_triviaqa(directory)
    words = {f"w{number}": number for number in range(40)}
    Tokenizer(models.WordLevel(words, unk_token="w2")).save(str(directory / "tokenizer.json"))


def _bring_triviaqa(directory: Path) -> None:
    """TriviaQA's own questions, and KILT's rows of it, which have ids alone."""
    (directory / "triviaqa-rc" / "qa").mkdir(parents=True)
    for split, names in (("train", ["tc_1", "tc_2"]), ("dev", ["tc_3"])):
        data = [{"QuestionId": name, "Question": f"Which is {name}?"} for name in names]
        (directory / "triviaqa-rc" / "qa" / f"wikipedia-{split}.json").write_text(json.dumps({"Data": data}))
        rows = [{"id": name, "output": [{"answer": name}]} for name in names]
        write_rows(directory / f"triviaqa-{split}_id-kilt.jsonl", rows)
