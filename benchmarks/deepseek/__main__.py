"""DeepSeek-OCR on the card of this machine: one run, one table.

    python -m benchmarks.deepseek --model 1 --json deepseek-ocr.json

Without a folder of weights it makes a checkpoint of the published size with random ones, in the
official layout: speed can be judged by it, quality cannot. Outputs are drawn at random and their
lengths given. Only what one run printed can be compared.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.deepseek import checkpoint as full
from benchmarks.deepseek import exactness, pages, peer, serving
from worker.engine.deepseek import checkpoint, machine, tiny
from worker.engine.deepseek.config import NAMES, Version
from worker.engine.deepseek.engine import DeepSeekEngine
from worker.engine.deepseek.tokens import Tokenizer
from worker.engine.deepseek.views import MODES

CONCURRENCY = (1, 32, 128, 256)
PARTS = ("exact", "set", "modes", "peer", "profile")


class Benchmark:
    """What is found, kept on disk as it is found: a run may be cut short."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = arguments, folder
        self.version: Version = 1 if arguments.model == 1 else 2
        self.device = machine.device()
        self.found: dict[str, Any] = {
            "model": NAMES[self.version],
            "torch": torch.__version__,
            **machine.facts(self.device, torch.bfloat16),
        }

    def keep(self, name: str, value: Any) -> None:
        """Note a figure."""
        self.found[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        if self.given.json:
            self.given.json.write_text(json.dumps(self.found, indent=2) + "\n")

    def run(self) -> None:
        """Everything that was asked for."""
        if "exact" in self.given.parts:
            with timed("exactness"):
                modes = [mode for mode in ("tiny", "base", "gundam") if mode in self._modes]
                self.keep("exact", exactness.check(self.folder, self.device, modes, 32))
            free_memory()
        if {"set", "modes", "profile"} & set(self.given.parts):
            self._ours()
            free_memory()
        if "peer" in self.given.parts:
            self._peer()

    @property
    def _modes(self) -> list[str]:
        return list(MODES[self.version])

    @property
    def _set(self) -> list[pages.Page]:
        return pages.mixed(self.version, self.given.pages, self.given.shrink)

    # Our engine

    def _ours(self) -> None:
        with timed("the engine's start"):
            engine = machine.engine(checkpoint.inspect(self.folder))
        try:
            network = engine._network  # noqa: SLF001 - the engine has no other use for showing it
            self.keep("sizes", {"rows": engine._sizes.rows, "blocks": engine._sizes.blocks})  # noqa: SLF001
            with serving.random_outputs(network), timed("the first pages"):
                serving.read(engine, pages.alike("gundam", 8, 16), 8)
                hit: list[int] = []
                with serving.counting_experts(network, hit):
                    serving.read(engine, pages.alike("base", max(self.given.at_once), 64), 256)
                if hit:
                    self.keep("experts_hit", {"least": min(hit), "mean": statistics.mean(hit)})
            with serving.random_outputs(network):
                if "set" in self.given.parts:
                    self._the_set(engine)
                if "modes" in self.given.parts:
                    self._each_mode(engine)
                if "profile" in self.given.parts:
                    print(serving.profile(engine, pages.alike("gundam", engine.slots, 700)))
        finally:
            engine.close()

    def _the_set(self, engine: DeepSeekEngine) -> None:
        """Twice over, so that there are more pages than rows."""
        made = self._set * 2
        reset_peak()
        with timed("the mixed set"):
            run = serving.read(engine, made, engine.slots)
        self.keep("set", run.facts() | {"output_tokens": run.output_tokens, **memory()})

    def _each_mode(self, engine: DeepSeekEngine) -> None:
        tokens = max(2, self.given.tokens // self.given.shrink)
        for mode in self._modes:
            for at_once in self.given.at_once:
                made = pages.alike(mode, max(at_once, 3), tokens)
                run = serving.read(engine, made, at_once, stream=True)
                self.keep(f"{mode} {at_once}", run.facts())

    # transformers

    def _peer(self) -> None:
        with timed("the peer's start"):
            model = peer.load(self.folder, self.device, torch.bfloat16)
            tokenizer = Tokenizer(self.folder / checkpoint.TOKENIZER_FILE)
        reset_peak()
        made = self._set[: self.given.peer_pages]
        batch = self.given.peer_batch
        while batch:
            try:
                with timed(f"the peer, {batch} at once"):
                    found = peer.read(model, tokenizer, made, self.version, batch)
            except torch.OutOfMemoryError:
                print(f"the peer has no memory for {batch} at once", flush=True)
                batch //= 2
            else:
                self.keep("peer", found | memory())
                break
            free_memory()
        if "set" in self.found:
            ratio = self.found["set"]["tokens_per_s"] / self.found["peer"]["tokens_per_s"]
            self.keep("ratio", round(ratio, 2))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    begun = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)


def free_memory() -> None:
    """Give the device back what nobody holds."""
    gc.collect()
    torch.cuda.empty_cache()


def reset_peak() -> None:
    """Count the most memory from here on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def memory() -> dict[str, float]:
    """The most memory since then."""
    if not torch.cuda.is_available():
        return {}
    return {"peak_gib": round(torch.cuda.max_memory_allocated() / 1024**3, 1)}


def table(found: dict[str, Any]) -> str:
    """Concurrency by mode, in markdown."""
    rows = [
        f"| {name} | {one['pages_per_s']} | {one['tokens_per_s']} | {one['first_text_p50_s']} | "
        f"{one['page_p50_s']} | {one['page_p99_s']} |"
        for name, one in found.items()
        if name.split()[0] in MODES[1] and isinstance(one, dict)
    ]
    heading = "| mode, at once | pages/s | tokens/s | first text, s | page p50, s | page p99, s |"
    return "\n".join([heading, "|---|---|---|---|---|---|", *rows])


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="DeepSeek-OCR on the card of this machine.")
    parser.add_argument("--model", type=int, choices=[1, 2], default=1)
    parser.add_argument("--folder", type=Path, help="a checkpoint; a random one is made without")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--pages", type=int, default=200, help="of the mixed set")
    parser.add_argument("--tokens", type=int, default=200, help="of each page, mode by mode")
    parser.add_argument("--at-once", type=int, nargs="+", default=CONCURRENCY)
    parser.add_argument("--peer-pages", type=int, default=128)
    parser.add_argument("--peer-batch", type=int, default=64)
    parser.add_argument("--shrink", type=int, default=1, help="divides all lengths, for a trial")
    parser.add_argument("--tiny", action="store_true", help="tiny weights, for a trial on a CPU")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octavo-weights-") as made:
        folder = arguments.folder or Path(made)
        benchmark = Benchmark(arguments, folder)
        if arguments.folder is None:
            with timed("the checkpoint"):
                if arguments.tiny:
                    tiny.write(folder, benchmark.version)
                else:
                    full.write(folder, benchmark.version, benchmark.device)
        benchmark.run()
    print(table(benchmark.found))


if __name__ == "__main__":
    main()
