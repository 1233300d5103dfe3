"""Many documents at once: sent, watched and fetched, each told of as it goes.

An errand is one document, or one job, on its way through a command. What goes wrong with one does
not touch the others; it is said, and kept as the errand's exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client import exit_codes, results
from client.errors import OctavoError
from client.exit_codes import ExitCode
from client.lines import progress_of
from client.models import Job, Options, ResultFormat
from client.progress import Row, shown
from client.sdk import Octavo
from client.side_by_side import Stage, side_by_side
from client.terminal import say, say_error

UPLOADS_AT_ONCE = 4
WATCHES_AT_ONCE = 16
"""Of more jobs than that the oldest are watched first; the server limits the answers it holds."""


@dataclass
class Errand:
    """One document or job. `job_id` is None until the document was sent."""

    label: str
    row: Row = field(init=False)  # there is one once the errands are run
    path: Path | None = None
    target: Path | None = None
    job_id: str | None = None
    job: Job | None = None
    code: ExitCode = ExitCode.GOOD
    is_settled: bool = False  # its end was said

    @property
    def name(self) -> str:
        """What an error is said about: the document, and its job where there is one."""
        names = [self.label] if self.job_id in {None, self.label} else [self.label, self.job_id]
        return ": ".join(names)


def run(errands: Sequence[Errand], stages: Sequence[Stage[Errand]]) -> None:
    """Bring all errands to their end, and say what came of each; after Ctrl-C, how to go on."""
    try:
        with shown() as rows:
            for errand in errands:
                errand.row = rows.add(errand.label)
            for errand, error in side_by_side(errands, stages):
                errand.row.ends()
                _settle(errand, error)
    except KeyboardInterrupt:
        _say_how_to_go_on(errands)
        raise


def sending(octavo: Octavo, options: Options) -> Stage[Errand]:
    """The stage that makes a job of an errand's document."""

    def send(errand: Errand) -> None:
        assert errand.path is not None
        job = octavo.submit(errand.path, on_bytes=_counted(errand.row, errand.path), **options)
        errand.job, errand.job_id = job, job.id

    return Stage(send, UPLOADS_AT_ONCE)


def watching(
    octavo: Octavo,
    format: ResultFormat = "markdown",  # noqa: A002 -- the API's word
    write: Callable[[Path, str], None] = results.write_new,
) -> Stage[Errand]:
    """The stage that follows a job to its end, and writes its result where it has a target."""

    def watch(errand: Errand) -> None:
        assert errand.job_id is not None
        for job in octavo.watch(errand.job_id):
            errand.job = job
            errand.row.shows(job)
        if errand.target is not None and job.has_result:
            write(errand.target, octavo.result(job.id, format))

    return Stage(watch, WATCHES_AT_ONCE)


def _settle(errand: Errand, error: Exception | None) -> None:
    """Say and keep what came of an errand; an error that nobody foresaw is raised."""
    errand.is_settled = True
    if error is None:
        assert errand.job is not None
        errand.code = exit_codes.of_job(errand.job)
        written = f", written to {errand.target}" if _is_for_a_file(errand) else ""
        say(f"{errand.label}: {errand.job.id} {progress_of(errand.job)}{written}")
    elif isinstance(error, OctavoError | OSError):
        errand.code = exit_codes.of_error(error)
        say_error(error, about=errand.name)
    else:
        raise error


def _say_how_to_go_on(errands: Sequence[Errand]) -> None:
    """Say what becomes of errands that Ctrl-C has left."""
    going_on = [errand.job_id for errand in errands if errand.job_id and not _has_ended(errand)]
    if going_on:
        say("Interrupted. These jobs go on; watch them again, or end them with `octavo cancel`:")
        say(f"  octavo watch {' '.join(going_on)}")
    for errand in errands:
        if errand.job_id is None and errand.code is ExitCode.GOOD:
            say(f"{errand.label}: not sent, or not known to be; see `octavo list`")
        elif _is_for_a_file(errand) and not errand.is_settled:
            say(f"{errand.name} has ended, but its result may not be written yet")
            say(f"  octavo result {errand.job_id}")


def _counted(row: Row, path: Path) -> Callable[[int], None]:
    total_bytes = path.stat().st_size
    return lambda sent_bytes: row.sends(sent_bytes, total_bytes)


def _is_for_a_file(errand: Errand) -> bool:
    return errand.target is not None and errand.job is not None and errand.job.has_result


def _has_ended(errand: Errand) -> bool:
    return errand.job is not None and errand.job.is_final
