"""The command line, `octavo`: what each command takes, and what it ends with."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar, Unpack, get_args

import click

from client import batch, errands, exit_codes, page_text, results
from client.errands import Errand
from client.errors import OctavoError
from client.exit_codes import ExitCode
from client.lines import line_of_job, line_of_page, progress_of
from client.models import JOB_ID_PATTERN, Mode, Options, Task
from client.sdk import Octavo
from client.server_commands import WithServerCommands
from client.terminal import Notices, say, say_error, write_line, write_result

# The first line tells click to leave the others as they are.
EXIT_CODES = """\b
Exit codes; of several, the one that stands lowest:
    0  all is good
    3  some pages of a document could not be read
    1  a job failed or was cancelled, or a file could not be read or written
    4  the server refused, and says why
    5  the server could not be reached
    2  the command was not understood; nothing was done
  130  Ctrl-C; jobs that were sent go on
"""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Access:
    """Where the server is, and the key to it; None where the user has not said."""

    url: str | None
    api_key: str | None = field(repr=False)

    def connect(self) -> Octavo:
        """The server; a usage error where it is not known, or cannot be."""
        if not self.url:
            raise click.UsageError("where is the server? Give --url, or set OCTAVO_URL")
        if not self.api_key:
            raise click.UsageError(
                "the server asks for a key: set OCTAVO_API_KEY, or give --api-key"
            )
        try:
            return Octavo(self.url, self.api_key)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


class _Program(WithServerCommands):
    """The commands, with an exit code for each way in which they can end."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was chosen."""
        try:
            return super().invoke(ctx)
        except OctavoError as error:
            say_error(error)
            ctx.exit(exit_codes.of_error(error))
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(ExitCode.INTERRUPTED)


class _JobId(click.ParamType[str]):
    name = "job id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(JOB_ID_PATTERN, value):
            self.fail(f"{value!r} is not the id of a job", param, ctx)
        return value


@click.group(
    cls=_Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES
)
@click.option("--url", envvar="OCTAVO_URL", show_envvar=True, help="Where the server is.")
@click.option(
    "--api-key",
    envvar="OCTAVO_API_KEY",
    show_envvar=True,
    help="The key to it; other users of this machine may see what is written here.",
)
@click.version_option(package_name="octavo")
@click.pass_context
def main(ctx: click.Context, url: str | None, api_key: str | None) -> None:
    """Turn documents into text."""
    ctx.obj = Access(url, api_key)
    log, notices = logging.getLogger("octavo.client"), Notices()
    log.addHandler(notices)
    ctx.call_on_close(lambda: log.removeHandler(notices))


_job_id = click.argument("job_id", type=_JobId())
_job_ids = click.argument("job_ids", type=_JobId(), nargs=-1, required=True)
_ending = click.option(
    "--format",
    "ending",
    type=click.Choice(list(results.FORMATS)),
    default="md",
    show_default=True,
    help="What the result is to be.",
)


def _with_password(command: _Command) -> _Command:
    for option in (
        click.option(
            "--password-prompt", is_flag=True, help="Ask for the password of an encrypted PDF."
        ),
        click.option(
            "--password-file",
            type=click.File(encoding="utf-8"),
            help="The password stands in this file; `-` is standard input.",
        ),
    ):
        command = option(command)
    return command


def _metadata(
    ctx: click.Context, param: click.Parameter, pairs: Sequence[str]
) -> dict[str, str] | None:
    parts = [pair.partition("=") for pair in pairs]
    if not all(key and sign for key, sign, _ in parts):
        raise click.BadParameter("write it as key=value", ctx, param)
    return {key: value for key, _, value in parts} or None


@main.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
)
@click.option("--wait", is_flag=True, help="Wait for the results and write them.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --wait: the folder for the results, each named after its document. "
    "Where one exists already nothing is sent, unless one of the next two is given.",
)
@click.option(
    "--force",
    "existing",
    type=str,
    flag_value="replace",
    help="With -o: replace results that exist.",
)
@click.option(
    "--skip-existing",
    "existing",
    type=str,
    flag_value="skip",
    help="With -o: send only documents whose result does not exist, as after an interruption.",
)
@_ending
@click.option("--pages", metavar="RANGE", help="Which pages to read, such as 1-3,5,8-.")
@click.option("--engine", help="Which engine reads; the server chooses where it is not given.")
@click.option("--phrase", help="With --task locate: the words to look for.")
@click.option("--prompt", help="With --task custom: what to ask; only some tenants may.")
@click.option("--mode", type=click.Choice(get_args(Mode)), help="How closely to look at a page.")
@click.option("--task", type=click.Choice(get_args(Task)), help="What to make of a page.")
@click.option(
    "--priority",
    type=click.Choice(["interactive", "batch"]),
    help="`batch` leaves the front to jobs somebody waits for.",
)
@click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", callback=_metadata, help="Kept with the job."
)
@_with_password
@click.pass_obj
def submit(
    access: Access,
    files: tuple[Path, ...],
    *,
    wait: bool,
    folder: Path | None,
    existing: batch.Existing | None,
    ending: str,
    password_file: TextIO | None,
    password_prompt: bool,
    **options: Unpack[Options],
) -> None:
    """Send documents to be read.

    Prints the ids of their jobs, or with --wait and without -o what was read. Several documents
    are sent and watched together. Ctrl-C leaves their jobs running.
    """
    if folder is not None and not wait:
        raise click.UsageError("-o needs --wait")
    if existing is not None and folder is None:
        raise click.UsageError("--force and --skip-existing need -o")
    with access.connect() as octavo:
        started = batch.errands_of(files, folder, ending, existing)
        options["password"] = _password(password_file, prompt=password_prompt)
        stages = [errands.sending(octavo, options)]
        if wait:
            write = results.write if existing == "replace" else results.write_new
            stages.append(errands.watching(octavo, results.FORMATS[ending], write))
        try:
            errands.run(started, stages)
        finally:
            if not wait:
                _write_lines(errand.job_id for errand in started if errand.job_id)
        if wait and folder is None:
            _write_results(octavo, started, ending)
    _end(errand.code for errand in started)


@main.command()
@_job_ids
@click.option(
    "--page", type=click.IntRange(min=1), help="Print the text of this page of a job as it is read."
)
@click.pass_obj
def watch(access: Access, job_ids: tuple[str, ...], page: int | None) -> None:
    """Watch jobs until they end, then print how they stand."""
    if page is not None:
        if len(job_ids) > 1:
            raise click.UsageError("--page is of one job")
        with access.connect() as octavo:
            read = page_text.write(octavo.page_events(job_ids[0], page))
        _end([exit_codes.of_page(read)])
    started = [Errand(job_id, job_id=job_id) for job_id in job_ids]
    with access.connect() as octavo:
        errands.run(started, [errands.watching(octavo)])
    _write_lines(line_of_job(errand.job) for errand in started if errand.job)
    _end(errand.code for errand in started)


@main.command()
@_job_ids
@click.pass_obj
def status(access: Access, job_ids: tuple[str, ...]) -> None:
    """Print how jobs stand."""

    def show(octavo: Octavo, job_id: str) -> ExitCode:
        job = octavo.job(job_id)
        write_line(line_of_job(job))
        return exit_codes.of_job(job)

    _each(access, job_ids, show)


@main.command()
@_job_id
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    help="The file for the result, replaced where it exists; `-` is standard output.",
)
@_ending
@click.pass_obj
def result(access: Access, job_id: str, *, output: Path, ending: str) -> None:
    """Print what was read; say so where pages are missing."""
    with access.connect() as octavo:
        text = octavo.result(job_id, results.FORMATS[ending])
        job = octavo.job(job_id)
    codes = [exit_codes.of_job(job)]
    if output == Path("-"):
        write_result(text)
    else:
        codes.append(_written(output, text))
    if ExitCode.PARTIAL in codes:
        say(f"{job_id} {progress_of(job)}; `octavo pages {job_id}` says which")
    _end(codes)


@main.command()
@_job_id
@click.pass_obj
def pages(access: Access, job_id: str) -> None:
    """Print how each page of a job stands."""
    with access.connect() as octavo:
        _write_lines(line_of_page(page) for page in octavo.pages(job_id))


@main.command("list")
@click.option("--status", help="Only jobs of this status, such as running.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Not more jobs than that.",
)
@click.pass_obj
def list_(access: Access, *, status: str | None, limit: int) -> None:
    """Print jobs, newest first."""
    with access.connect() as octavo:
        _write_lines(line_of_job(job) for job in islice(octavo.jobs(status=status), limit))


@main.command()
@_job_ids
@click.pass_obj
def cancel(access: Access, job_ids: tuple[str, ...]) -> None:
    """Cancel jobs; pages that were read stay readable."""

    def end(octavo: Octavo, job_id: str) -> ExitCode:
        write_line(line_of_job(octavo.cancel(job_id)))
        return ExitCode.GOOD

    _each(access, job_ids, end)


@main.command()
@_job_id
@click.option(
    "--pages",
    default="failed",
    show_default=True,
    metavar="RANGE",
    help="failed, all, or a range such as 3-5.",
)
@_with_password
@click.pass_obj
def retry(
    access: Access,
    job_id: str,
    *,
    pages: str,
    password_file: TextIO | None,
    password_prompt: bool,
) -> None:
    """Read pages again, as a new job; print its id."""
    password = _password(password_file, prompt=password_prompt)
    with access.connect() as octavo:
        write_line(octavo.retry(job_id, pages=pages, password=password).id)


@main.command()
@_job_ids
@click.pass_obj
def delete(access: Access, job_ids: tuple[str, ...]) -> None:
    """Delete jobs with their documents, pages and results, for good."""

    def remove(octavo: Octavo, job_id: str) -> ExitCode:
        receipt = octavo.delete(job_id)
        bytes_are = "going" if receipt.purged_at is None else "gone"
        write_line(f"{receipt.id}  deleted, its bytes are {bytes_are}")
        return ExitCode.GOOD

    _each(access, job_ids, remove)


def _password(file: TextIO | None, *, prompt: bool) -> str | None:
    if file is not None and prompt:
        raise click.UsageError("--password-file and --password-prompt exclude each other")
    if prompt:
        return str(click.prompt("Password of the document", hide_input=True, err=True))
    return file.read().rstrip("\r\n") if file is not None else None


def _written(file: Path, text: str) -> ExitCode:
    """What writing `text` to `file` amounts to."""
    try:
        results.write(file, text)
    except OSError as error:
        say_error(error)
        return ExitCode.FAILED
    return ExitCode.GOOD


def _write_results(octavo: Octavo, ended: Sequence[Errand], ending: str) -> None:
    """Write one result after the other, in the order in which their documents were named."""
    for errand in ended:
        if errand.job is None or not errand.job.has_result:
            continue
        try:
            text = octavo.result(errand.job.id, results.FORMATS[ending])
        except OctavoError as error:
            say_error(error, about=errand.name)
            errand.code = exit_codes.worst([errand.code, exit_codes.of_error(error)])
            continue
        is_apart = len(ended) == 1 or text.endswith("\n")
        write_result(text if is_apart else f"{text}\n")


def _each(
    access: Access, job_ids: Sequence[str], act: Callable[[Octavo, str], ExitCode]
) -> NoReturn:
    """Do the same with each job, whatever becomes of the others."""
    codes = []
    with access.connect() as octavo:
        for job_id in job_ids:
            try:
                codes.append(act(octavo, job_id))
            except OctavoError as error:
                say_error(error, about=job_id)
                codes.append(exit_codes.of_error(error))
    _end(codes)


def _write_lines(lines: Iterable[str]) -> None:
    for line in lines:
        write_line(line)


def _end(codes: Iterable[ExitCode]) -> NoReturn:
    raise click.exceptions.Exit(exit_codes.worst(codes))
