"""What writes cost those who ask: answers' times with a writer that adds passages back to back, and without, in turn.

    python -m tests.serving.measure_writes BUNDLE FOLDER --passages 204800 --clients 4 --seconds 15 --blocks 4

The store is generated in FOLDER (generated_store.py), for the bundle and with tantivy. Prints JSON: milliseconds by the
clients' clocks, and what the server's log has that it must not.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from glimmer_export.exporter.bench.machine import describe_machine
from glimmer_export.runtime.bundle import Bundle
from tests.memory.generated_corpus import passages, questions
from tests.memory.generated_store import generated_store
from tests.serving.load.served import Served

AT_ONCE = 10
TOKEN = "a-token-that-is-of-writes-alone"
QUESTIONS = 200


def asking(url, asked, until, times, faults):
    with httpx.Client(base_url=url, timeout=120) as client:
        for question in asked:
            if time.monotonic() > until:
                return
            began = time.perf_counter()
            response = client.post("/v1/answer", json={"question": question})
            times.append(1e3 * (time.perf_counter() - began))
            if response.status_code != 200:
                faults.append(response.text[:200])


def writing(url, rows, until, times, faults):
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, timeout=120) as client:
        while time.monotonic() < until:
            body = [next(rows) for _ in range(AT_ONCE)]
            began = time.perf_counter()
            response = client.post("/v1/passages", json=body, headers=headers)
            times.append(1e3 * (time.perf_counter() - began))
            if response.status_code != 200:
                faults.append(response.text[:200])


def summary(times):
    return {
        "count": len(times), "p50_ms": median(times), "p99_ms": float(np.percentile(times, 99)), "most_ms": max(times),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=204_800)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--blocks", type=int, default=4, help="of each kind, in turn")
    options = parser.parse_args()
    folder, count = options.folder, options.passages
    folder.mkdir(parents=True)
    generated_store(folder / "store", Bundle.open(options.bundle), lambda: passages(count), count, engine="tantivy")
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    (folder / "token").chmod(0o600)
    asked = questions([row for row, _ in zip(passages(count), range(QUESTIONS), strict=False)])
    rows = (
        {"id": f"new {number}", "title": row.title, "text": row.text}
        for number, row in enumerate(passages(1_000_000, seed=1))
    )
    times: dict[str, list[float]] = {"alone": [], "with writes": [], "writes": []}
    faults: list[str] = []
    with Served(options.bundle, folder / "store", write_token_file=folder / "token") as served:
        for block in range(2 * options.blocks + 1):
            kind = "with writes" if block % 2 else "alone"
            own: list[float] = []
            until = time.monotonic() + options.seconds
            shuffled = np.random.default_rng(block)
            threads = [
                threading.Thread(
                    target=asking, args=(served.url, shuffled.permutation(asked * 500).tolist(), until, own, faults)
                )
                for _ in range(options.clients)
            ]
            if kind == "with writes":
                threads.append(
                    threading.Thread(target=writing, args=(served.url, rows, until, times["writes"], faults))
                )
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if block:  # the first warms up
                times[kind] += own
        faults += [str(record) for record in served.remarks()]
        code = served.stop()
    print(json.dumps({  # noqa: T201
        "machine": describe_machine(), "passages": count, "clients": options.clients, "exit_code": code,
        "faults": faults, **{kind: summary(found) for kind, found in times.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
