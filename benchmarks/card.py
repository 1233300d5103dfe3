"""The whole platform on the cards of this machine, its engine and its worker killed in the middle.

    make card                            # or: make card JSON=card.json ARGS="--documents 100"
    make card ARGS="--tiny --documents 8"        # a trial without a card: a tiny model on the CPU

Real servers, gateway, dispatcher, sweeper and CPU worker, and `octavo worker gpu`, all with the
settings' defaults. Documents are sent over HTTP; while pages are being read the engine is killed,
and later the worker around it. Then the rows must say that every page ended once, in order.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from sqlalchemy import create_engine, text

from benchmarks.chaos import invariants
from benchmarks.chaos.invariants import Breach, Harm
from benchmarks.deepseek.pages import A4, drawn
from benchmarks.documents import repeated
from client.sdk import Octavo
from deploy.child import Child, Program
from deploy.local import CPU_SLOTS, PYTHON, Platform
from shared.failure import DEATH_FAILURES

MOST_PAGES = 8
IMAGES = 0.2
"""The share of documents that are images, of one page."""

WORDS = 200
"""Of each page, where the weights are ours."""

ENGINE_DIES, WORKER_DIES = 0.1, 0.5
"""When so much of all pages has ended."""

LOOK_SECONDS, WEIGH_SECONDS = 0.1, 2.0
START_SECONDS, STOP_SECONDS = 300.0, 30.0
SETTLE_SECONDS = 0.5
"""After a worker's death, for what it had sent to Postgres to be committed."""

_PAGES = text(
    """
    SELECT count(*) FILTER (WHERE w.status = 'running') AS held,
      array_agg(w.id) FILTER (WHERE w.status NOT IN ('queued', 'running')) AS ended,
      array_agg(extract(epoch FROM now() - j.created_at)::float8)
        FILTER (WHERE w.status NOT IN ('queued', 'running')) AS seconds,
      (SELECT count(*) FROM jobs WHERE finished_at IS NULL) AS unfinished
    FROM work w JOIN jobs j ON j.id = w.job_id WHERE w.kind = 'recognise'
    """
)
_HELD = text("SELECT count(*) FROM work WHERE status = 'running' AND worker LIKE :worker")
_ENDS = text(
    """
    SELECT status, count(*) AS pages, count(*) FILTER (WHERE attempt > 1) AS again,
      sum(failures) AS failures FROM work WHERE kind = 'recognise' GROUP BY status
    """
)
_FINISHES = text(
    "SELECT body::jsonb ->> 'finish_reason' AS reason, count(*) AS pages FROM recognitions GROUP BY 1"
)
_DEVICES = text(
    "SELECT device FROM workers WHERE kind = 'engine' AND last_seen_at > now() - interval '15 s'"
)


@dataclass(frozen=True)
class Struck:
    """A kill -9 and what it cost."""

    what: str
    pages_ended: int  # by then
    pages_held: int
    restart_seconds: float  # until an engine had read the golden page again


@dataclass
class Found:
    """The figures of one run. Rates are per second, latencies in seconds from the submission."""

    device: list[dict[str, str]] = field(default_factory=list)
    documents: int = 0
    pages: int = 0
    start_seconds: float = 0.0  # of `octavo worker gpu`, until it can be used
    seconds: float = 0.0  # from the first submission until all was over
    pages_per_s: float = 0.0
    page_p50_s: float = 0.0
    page_p99_s: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    read_again: int = 0
    failures: int = 0
    results: int = 0  # that were fetched, and hold every page
    suspects: list[int] = field(default_factory=list)
    """Of each death of an engine that its worker saw: how many pages it was touching."""
    peak_card_mib: int = 0
    harmed: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


# What is read


@dataclass(frozen=True)
class Document:
    """A file and how many pages it has."""

    name: str
    content: bytes
    pages: int


def documents(count: int) -> list[Document]:
    """Images of a page, and PDFs of 1 to 8."""
    dice = random.Random(count)
    found = []
    for number in range(count):
        if dice.random() < IMAGES:
            found.append(Document(f"{number}.jpg", drawn(number, A4), 1))
        else:
            pages = dice.randint(1, MOST_PAGES)
            found.append(Document(f"{number}.pdf", repeated(pages), pages))
    return found


# Who reads


class Keeper:
    """`octavo worker gpu` on the cards of this machine."""

    def __init__(self, platform: Platform, engine: str, environment: dict[str, str]) -> None:
        argv = (*PYTHON, "deploy.processes", "worker", "gpu", "--engine", engine)
        self._child = Child(
            Program("gpu-worker", argv),
            environment=platform.environment_of("gpu-worker") | environment,
            logs=platform.logs,
        )

    def start(self) -> float:
        """Return once a worker can be used, with the seconds that took."""
        began = time.monotonic()
        self._child.start()
        while not self._child.is_ready:
            self._child.read()
            if self._child.exit_status is not None:
                sys.exit(f"octavo worker gpu: {self._child.how_it_ended()}")
            if time.monotonic() - began > START_SECONDS:
                sys.exit(f"octavo worker gpu does not start; its log ends:{self._child.log_tail()}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it in order, if it does."""
        self._child.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._child.pid is not None and time.monotonic() < deadline:
            self._child.read()
            time.sleep(LOOK_SECONDS)
        self._child.end()

    def process(self, marker: str) -> psutil.Process:
        """The first of its processes with that in its command line."""
        assert self._child.pid is not None
        family = psutil.Process(self._child.pid).children(recursive=True)
        return next(one for one in family if marker in " ".join(one.cmdline()))

    def engines_started(self) -> int:
        """How often an engine has read its golden page so far."""
        self._child.read()
        return self._log().count('"engine_started"')

    def suspects(self) -> list[int]:
        """Of each death of an engine, as its worker saw it: how many pages it was touching."""
        died = [line for line in self._log().splitlines() if '"engine_died"' in line]
        return [json.loads(line)["suspects"] for line in died]

    def _log(self) -> str:
        return self._child.log.read_text(errors="replace")


VICTIMS = {
    "engine": "worker.engine.child",
    "worker": "worker engine",
}
"""What stands in the command line of each."""


class Run:
    """Documents sent to a platform, and what is seen of their pages from outside."""

    def __init__(self, platform: Platform, keeper: Keeper, at_most_seconds: float) -> None:
        self.found = Found()
        self.acknowledged: dict[UUID, Document] = {}
        self._keeper = keeper
        self._deadline = time.monotonic() + at_most_seconds
        self._database = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")
        self._rows = self._database.connect()
        self._octavo = Octavo(platform.url, platform.api_key)
        self._seconds: dict[int, float] = {}  # of each page that has ended
        self._held, self._unfinished, self._weighed_at = 0, 0, 0.0

    def close(self) -> None:
        """Close all connections."""
        self._octavo.close()
        self._rows.close()
        self._database.dispose()

    def read(self, made: Sequence[Document]) -> None:
        """Have all documents read, and kill what reads them."""
        began = time.monotonic()
        self.found.documents, self.found.pages = len(made), sum(one.pages for one in made)
        with ThreadPoolExecutor(1) as sender:
            sending = sender.submit(self._send, made)
            self._strike_at(ENGINE_DIES, "engine", sending)
            self._strike_at(WORKER_DIES, "worker", sending)
            self._until(lambda: self._is_over(sending))
            sending.result()
        self._reckon(time.monotonic() - began)

    def _send(self, made: Sequence[Document]) -> None:
        for one in made:
            job = self._octavo.submit(io.BytesIO(one.content), name=one.name)
            self.acknowledged[UUID(hex=job.id.removeprefix("job_"))] = one

    def _is_over(self, sending: Future[None]) -> bool:
        return sending.done() and not self._unfinished

    def _strike_at(self, share: float, what: str, sending: Future[None]) -> None:
        """Kill once so much has ended and pages are held; not at all where it is over before."""
        least = share * self.found.pages
        self._until(
            lambda: self._is_over(sending) or (self._held > 0 and len(self._seconds) >= least)
        )
        if self._held:
            self.found.struck.append(self._strike(what))

    def _until(self, happened: Callable[[], bool]) -> None:
        """Look on until it has happened, or time is up: what is left then shows as stuck."""
        self._look()
        while not happened() and time.monotonic() < self._deadline:
            time.sleep(LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        now = self._rows.execute(_PAGES).one()
        self._held, self._unfinished = now.held, now.unfinished
        for work_id, seconds in zip(now.ended or (), now.seconds or (), strict=True):
            self._seconds.setdefault(work_id, seconds)
        if time.monotonic() - self._weighed_at >= WEIGH_SECONDS:
            self._weighed_at = time.monotonic()
            self.found.peak_card_mib = max(self.found.peak_card_mib, card_mib())

    def _strike(self, what: str) -> Struck:
        """Kill it, and return when an engine can be used again."""
        victim, before = self._keeper.process(VICTIMS[what]), self._keeper.engines_started()
        say(f"kill -9 of the {what} at {len(self._seconds)} of {self.found.pages} pages")
        held = self._held
        victim.kill()
        at = time.monotonic()
        if what == "worker":
            time.sleep(SETTLE_SECONDS)
            held = self._rows.execute(_HELD, {"worker": f"%:{victim.pid}:%"}).scalar_one()
        ended = len(self._seconds)
        self._until(lambda: self._keeper.engines_started() > before)
        return Struck(what, ended, held, round(time.monotonic() - at, 1))

    # What came of it

    def _reckon(self, seconds: float) -> None:
        found, ordered = self.found, sorted(self._seconds.values())
        found.seconds = round(seconds, 1)
        found.pages_per_s = round(len(ordered) / seconds, 2)
        if ordered:
            found.page_p50_s = round(ordered[int(0.5 * (len(ordered) - 1))], 1)
            found.page_p99_s = round(ordered[int(0.99 * (len(ordered) - 1))], 1)
        for row in self._rows.execute(_ENDS):
            found.ended[row.status] = row.pages
            found.read_again += row.again
            found.failures += row.failures
        found.finished = {row.reason: row.pages for row in self._rows.execute(_FINISHES)}
        found.device = list(self._rows.execute(_DEVICES).scalars())
        found.suspects = self._keeper.suspects()
        found.results = sum(map(self._is_whole, self.acknowledged.items()))
        breaches = invariants.breaches(self._rows, self.acknowledged)
        found.harmed = dict(harms(breaches))
        found.broken = [f"{breach.says}: {breach.count}" for breach in breaches]
        found.broken += complaints(found)

    def _is_whole(self, job: tuple[UUID, Document]) -> bool:
        """Whether its result can be fetched and holds all its pages, with what was read of them."""
        job_id, sent = job
        state = self._octavo.job(f"job_{job_id.hex}")
        if not state.has_result:
            return False
        pages = self._octavo.document(state.id).pages
        return [page.page for page in pages if page.text] == list(range(1, sent.pages + 1))


def harms(breaches: Sequence[Breach]) -> Iterator[tuple[str, int]]:
    """Each kind of harm and how often it was done."""
    counts: Counter[str] = Counter()
    for breach in breaches:
        counts[breach.harm] += breach.count
    return ((str(harm), counts[harm]) for harm in Harm)


def complaints(found: Found) -> list[str]:
    """What is not as it must be, beside the rows' own invariants."""
    struck = [one.what for one in found.struck]
    # A dead worker counts once for each page that it held, a dead engine for a sole suspect alone.
    failures = sum(one.pages_held for one in found.struck if one.what == "worker")
    failures += DEATH_FAILURES * found.suspects.count(1)
    wrong = {
        f"not all was killed while it held pages, only {struck}": struck != [*VICTIMS],
        f"{found.ended} of {found.pages} pages": found.ended != {"succeeded": found.pages},
        f"only {found.results} results are whole": found.results != found.documents,
        f"{found.failures} failures, not {failures}": found.failures != failures,
        f"{len(found.suspects)} deaths of an engine, not one": len(found.suspects) != 1,
    }
    return [words for words, is_so in wrong.items() if is_so]


def table(found: Found) -> str:
    """The figures as a table in markdown."""
    rows = [
        ("documents", found.documents),
        ("pages", found.pages),
        ("seconds until `octavo worker gpu` could be used", f"{found.start_seconds:.1f}"),
        ("seconds from the first submission until all was over", found.seconds),
        ("pages/s, faults included", found.pages_per_s),
        ("page, submission to end, p50", f"{found.page_p50_s} s"),
        ("page, submission to end, p99", f"{found.page_p99_s} s"),
        *((f"kill -9 of the {one.what}", _told(one)) for one in found.struck),
        ("pages by their end", _counted(found.ended)),
        ("pages by why the model stopped", _counted(found.finished)),
        ("pages read more than once", found.read_again),
        ("failures counted", found.failures),
        ("suspects when the engine died", ", ".join(map(str, found.suspects))),
        ("results fetched, with all their pages", found.results),
        *found.harmed.items(),
        ("peak memory of the cards, MiB", found.peak_card_mib or "no card"),
        ("device", "; ".join(_counted(device) for device in found.device)),
    ]
    return "\n".join(["| figure | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _told(struck: Struck) -> str:
    return (
        f"at page {struck.pages_ended}, {struck.pages_held} held; "
        f"an engine again after {struck.restart_seconds} s"
    )


def _counted(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


# The machine


def card_mib() -> int:
    """The memory that is used on all cards together; 0 where there is none."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(map(int, done.stdout.split()))


def pretended_card(folder: Path) -> dict[str, str]:
    """The variables under which `octavo worker gpu` finds a card, on which torch finds none."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0, GPU-trial\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def weights(folder: Path, engine: str, *, is_tiny: bool) -> None:
    """Make a checkpoint for that engine, in a process that leaves nothing on the card."""
    command = [*PYTHON, "benchmarks.deepseek.checkpoint", str(folder)]
    command += ["--model", "2" if engine.endswith("2") else "1"]
    command += ["--tiny"] if is_tiny else ["--words", str(WORDS)]
    subprocess.run(command, check=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)


def measure(arguments: argparse.Namespace, directory: Path) -> Found:
    """Run it all below the directory."""
    made = documents(arguments.documents)
    models: Path = arguments.models or directory / "models"
    if arguments.models is None:
        with timed("the checkpoint"):
            weights(models, arguments.engine, is_tiny=arguments.tiny)
    platform = Platform(
        directory / "platform",
        engine=arguments.engine,
        engine_workers=0,
        cpu_slots=max(CPU_SLOTS, (os.cpu_count() or 1) // 4),
        settings={"OCTAVO_MODEL_DIR": str(models)},
        tell=say,
    )
    variables = pretended_card(directory / "bin") if arguments.tiny else {}
    with platform:
        keeper = Keeper(platform, arguments.engine, variables)
        try:
            started = keeper.start()
            say(f"octavo worker gpu: {started:.1f} s")
            with closing(Run(platform, keeper, arguments.at_most)) as run, timed("the documents"):
                run.found.start_seconds = started
                run.read(made)
        finally:
            keeper.stop()
    return run.found


def main() -> None:
    """Measure, print, write what was asked for; ends with 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description="The platform on cards, engine and worker killed.")
    parser.add_argument("--engine", default="deepseek-ocr", help="deepseek-ocr or deepseek-ocr-2")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--models", type=Path, help="a checkpoint; a random one is made without")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, for a trial")
    parser.add_argument("--at-most", type=float, default=600, help="seconds for all documents")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--keep", type=Path, help="a new folder for the platform's rows and logs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octavo-card-") as made:
        Path(made).chmod(0o711)  # where root runs this, Postgres is another user's
        found = measure(arguments, arguments.keep or Path(made))
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    for words in found.broken:
        print(f"BROKEN: {words}")
    sys.exit(1 if found.broken else 0)


if __name__ == "__main__":
    main()
