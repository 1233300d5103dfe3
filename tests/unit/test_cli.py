"""What the command line promises to people and to scripts: see `octavo --help`."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from client import results
from client.cli import main
from tests.unit.test_client_gateway import (
    JOB_ID,
    JOB_PATH,
    Answer,
    Gateway,
    Reply,
    Request,
    a_job,
    a_page,
    problem,
    scripted_gateway,
    stream,
)

ROOT = Path(__file__).parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08"
OCTAVO = [sys.executable, "-c", "from client.cli import main; main(prog_name='octavo')"]

pytestmark = pytest.mark.timeout(30)

Octavo = Callable[..., Result]


@pytest.fixture(scope="module")
def running_gateway() -> Iterator[Gateway]:
    with scripted_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(running_gateway: Gateway) -> Gateway:
    running_gateway.forget()
    return running_gateway


@pytest.fixture
def octavo(gateway: Gateway) -> Octavo:
    def run(*arguments: str | Path, typed: str | None = None) -> Result:
        given = ["--url", gateway.url, "--api-key", "key_1", *map(str, arguments)]
        return CliRunner().invoke(main, given, input=typed, catch_exceptions=False)

    return run


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return write(tmp_path / "contract.pdf")


def write(path: Path, content: bytes = b"%PDF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def accepts(
    gateway: Gateway, *, status: str = "succeeded", text: str = "# Read", **facts: Any
) -> None:
    """Let every submission become job_1, job_2 ..., which ends in `status` with `text`."""
    numbers = iter(range(1, 100))

    def submit(request: Request) -> Reply:
        job_id = f"job_{next(numbers)}"
        ended = a_job(status, job_id, **facts)
        gateway.on("GET", f"/v1/jobs/{job_id}", Answer(200, ended))
        gateway.on("GET", f"/v1/jobs/{job_id}/result", Answer(200, f"{text} {job_id}"))
        return Answer(202, a_job("queued", job_id))

    gateway.on_each("POST", "/v1/jobs", submit)


# Submitting


def test_submit_prints_the_ids_of_the_jobs_one_a_line(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    slow, fast = write(tmp_path / "slow.pdf"), write(tmp_path / "fast.pdf")
    gateway.on_each(
        "POST",
        "/v1/jobs",
        lambda request: (
            Answer(202, a_job(job_id="job_slow"), after_seconds=0.2)
            if b"slow.pdf" in request.body
            else Answer(202, a_job(job_id="job_fast"))
        ),
    )

    result = octavo("submit", slow, fast)

    assert (result.exit_code, result.stdout) == (0, "job_slow\njob_fast\n")


def test_submit_sends_what_was_asked_for(gateway: Gateway, octavo: Octavo, document: Path) -> None:
    accepts(gateway)
    options = ["--pages", "1-3", "--engine", "tiny", "--task", "text", "--priority", "batch"]
    options += ["--mode", "gundam"]

    result = octavo("submit", document, *options, "--metadata", "case=A=17", "--metadata", "by=")

    assert result.exit_code == 0
    [request] = gateway.requests
    assert json.loads(request.body.split(b"\r\n")[4]) == {
        "pages": "1-3",
        "engine": "tiny",
        "task": "text",
        "mode": "gundam",
        "priority": "batch",
        "metadata": {"case": "A=17", "by": ""},
    }


@pytest.mark.parametrize("way", ["file", "prompt"])
def test_a_password_comes_from_a_file_or_from_the_keyboard(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path, way: str
) -> None:
    accepts(gateway)
    secret = write(tmp_path / "secret", b"s3cret \n")

    if way == "file":
        result = octavo("submit", document, "--password-file", secret)
    else:
        result = octavo("submit", document, "--password-prompt", typed="s3cret \n")

    assert (result.exit_code, result.stdout) == (0, "job_1\n")
    assert b'{"password": "s3cret "}' in gateway.requests[0].body
    assert "s3cret" not in result.output


def test_submit_that_waits_prints_what_was_read_in_the_order_of_the_files(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    accepts(gateway, text="first line\n")
    files = [write(tmp_path / f"{name}.pdf") for name in "abc"]

    result = octavo("submit", "--wait", *files)

    assert result.exit_code == 0
    ids = [line.split()[1] for line in sorted(result.stderr.splitlines()) if "succeeded" in line]
    assert result.stdout == "".join(f"first line\n {job_id}\n" for job_id in ids)


def test_one_result_goes_into_a_pipe_as_it_is(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    accepts(gateway, text=f"ä{EVIL}\n")

    result = octavo("submit", "--wait", document)

    assert result.stdout_bytes == f"ä{EVIL}\n job_1".encode()


def test_results_are_written_under_the_names_of_their_documents(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    accepts(gateway, text="{}")
    out = tmp_path / "new" / "out"

    result = octavo("submit", "--wait", "-o", out, "--format", "json", document)

    assert (result.exit_code, result.stdout) == (0, "")
    assert [path.name for path in out.iterdir()] == ["contract.json"]
    assert (out / "contract.json").read_text() == "{} job_1"
    assert gateway.requests[-1].query == {"format": "json"}


def test_two_documents_of_the_same_name_have_two_results(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    accepts(gateway)
    names = ["a/scan.pdf", "b/scan.pdf", "b/scan.png", "c/SCAN.pdf", "c/scan-2.pdf"]
    files = [write(tmp_path / name) for name in names]
    out = tmp_path / "out"

    assert octavo("submit", "--wait", "-o", out, *files).exit_code == 0

    assert {path.name for path in out.iterdir()} == {
        "scan.md",
        "scan-2.md",
        "scan-3.md",
        "SCAN-4.md",
        "scan-2-2.md",
    }
    assert len({path.read_text() for path in out.iterdir()}) == 5


def test_a_result_never_takes_the_place_of_a_document(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    accepts(gateway)
    document = write(tmp_path / "scan.txt", b"%PDF in truth")

    assert octavo("submit", "--wait", "-o", tmp_path, "--format", "txt", document).exit_code == 0

    assert document.read_bytes() == b"%PDF in truth"
    assert (tmp_path / "scan-2.txt").read_text() == "# Read job_1"


def test_what_stands_in_the_place_of_a_result_stops_the_command_before_anything_is_sent(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    accepts(gateway)
    files = [write(tmp_path / name) for name in ("NEWS.pdf", "README.pdf")]
    readme = write(tmp_path / "README.md", b"by hand")

    result = octavo("submit", "--wait", "-o", tmp_path, *files)

    assert (result.exit_code, gateway.requests) == (2, [])
    assert readme.read_bytes() == b"by hand"
    said = " ".join(result.stderr.split())
    assert f"{readme} exists" in said
    assert "--force" in said
    assert "--skip-existing" in said


def test_a_result_is_replaced_by_force(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    accepts(gateway)
    old = write(tmp_path / "contract.md", b"old")

    assert octavo("submit", "--wait", "-o", tmp_path, "--force", document).exit_code == 0

    assert old.read_text() == "# Read job_1"


def test_a_batch_that_was_interrupted_goes_on_with_what_is_missing(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    accepts(gateway)
    files = [write(tmp_path / name) for name in ("a/scan.pdf", "b/scan.pdf", "c/scan.pdf")]
    out = tmp_path / "out"
    there = write(out / "scan-2.md", b"read before")

    result = octavo("submit", "--wait", "-o", out, "--skip-existing", *files)

    assert result.exit_code == 0
    assert f"{files[1]}: not sent, {there} exists" in result.stderr.splitlines()
    assert len([request for request in gateway.requests if request.method == "POST"]) == 2
    assert {path.name for path in out.iterdir()} == {"scan.md", "scan-2.md", "scan-3.md"}
    assert there.read_bytes() == b"read before"


def test_a_batch_of_which_nothing_is_missing_is_done(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    write(tmp_path / "contract.md", b"read before")

    result = octavo("submit", "--wait", "-o", tmp_path, "--skip-existing", document)

    assert (result.exit_code, gateway.requests) == (0, [])


def test_what_came_to_stand_there_meanwhile_is_not_replaced(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "contract.md"

    def read_beside_another_run(_: Request) -> Reply:
        write(target, b"of another run")
        return Answer(200, "# Read")

    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    gateway.on("GET", JOB_PATH, Answer(200, a_job("succeeded")))
    gateway.on_each("GET", f"{JOB_PATH}/result", read_beside_another_run)

    result = octavo("submit", "--wait", "-o", target.parent, document)

    assert result.exit_code == 1
    assert f"{document}: {JOB_ID}: [Errno 17] File exists: '{target}'" in result.stderr
    assert target.read_bytes() == b"of another run"
    assert list(target.parent.iterdir()) == [target]


def test_of_many_that_write_one_file_all_but_one_are_told(tmp_path: Path) -> None:
    target, together = tmp_path / "scan.md", threading.Barrier(8)

    def run(text: str) -> str | None:
        together.wait(20)
        try:
            results.write_new(target, text)
        except FileExistsError:
            return None
        return text

    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(run, "abcdefgh"))

    assert [text for text in ends if text] == [target.read_text()]
    assert list(tmp_path.iterdir()) == [target]


def test_a_result_is_written_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)

    results.write_new(tmp_path / "scan.md", "read")

    assert (tmp_path / "scan.md").read_text() == "read"
    assert [path.name for path in tmp_path.iterdir()] == ["scan.md"]


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["漢" * 83 + ".pdf"], ["漢" * 83 + ".md"]),
        (["漢" * 85], ["漢" * 83 + ".json"]),
        (["x" * 254 + "1", "x" * 254 + "2"], ["x" * 252 + ".md", "x" * 250 + "-2.md"]),
        (["a" + "ß" * 125 + ".pdf"], ["a" + "ß" * 124 + ".json"]),
    ],
    ids=["252 bytes", "no ending", "the same beginning", "within a character"],
)
def test_a_long_name_is_cut_to_what_a_file_system_takes(
    gateway: Gateway,
    octavo: Octavo,
    tmp_path: Path,
    names: list[str],
    written: list[str],
) -> None:
    accepts(gateway)
    ending = written[0].rpartition(".")[2]
    files = [write(tmp_path / name) for name in names]
    out = tmp_path / "out"

    result = octavo("submit", "--wait", "-o", out, "--format", ending, *files)

    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(written)


def test_a_result_that_is_being_written_is_no_other_runs(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    accepts(gateway)
    other = write(tmp_path / "out" / ".contract.md.part", b"half of")

    assert octavo("submit", "--wait", "-o", tmp_path / "out", document).exit_code == 0

    assert other.read_bytes() == b"half of"
    assert {path.name for path in other.parent.iterdir()} == {other.name, "contract.md"}


def test_a_result_has_the_permissions_of_any_new_file(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    accepts(gateway)
    before = os.umask(0o027)
    try:
        octavo("submit", "--wait", "-o", tmp_path / "out", document)
    finally:
        os.umask(before)

    assert (tmp_path / "out" / "contract.md").stat().st_mode & 0o777 == 0o640


def test_no_name_of_the_servers_becomes_a_path(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    source = {**a_job()["source"], "name": "../../evil.pdf"}
    accepts(gateway, source=source, metadata={"name": "../evil"})

    octavo("submit", "--wait", "-o", tmp_path / "a" / "out", document)

    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"contract.pdf", "a/out/contract.md"}


def test_a_refused_document_does_not_hold_up_the_others(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    bad, good = write(tmp_path / "bad.pdf", b"bad"), write(tmp_path / "good.pdf")
    gateway.on_each(
        "POST",
        "/v1/jobs",
        lambda request: (
            problem(415, "unsupported_format", "bytes of no known type")
            if b"bad.pdf" in request.body
            else Answer(202, a_job())
        ),
    )
    gateway.on("GET", JOB_PATH, Answer(200, a_job("succeeded")))
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, "read"))

    result = octavo("submit", "--wait", bad, good)

    assert (result.exit_code, result.stdout) == (4, "read\n")
    assert "bad.pdf: The title of unsupported_format.\n" in result.stderr
    assert "  bytes of no known type\n  code unsupported_format, request req_1\n" in result.stderr


def test_a_result_that_cannot_be_written_is_a_failure(
    gateway: Gateway, octavo: Octavo, document: Path, tmp_path: Path
) -> None:
    accepts(gateway)
    (tmp_path / "out" / "contract.md").mkdir(parents=True)

    result = octavo("submit", "--wait", "--force", "-o", tmp_path / "out", document)

    assert result.exit_code == 1
    assert "contract.md" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["contract.md"]


def test_a_job_that_was_lost_sight_of_is_named(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    gateway.on("GET", JOB_PATH, problem(401, "unauthenticated", "the key was revoked"))

    result = octavo("submit", "--wait", document)

    assert result.exit_code == 4
    assert f"{document}: {JOB_ID}: The title of unauthenticated.\n" in result.stderr


def test_plain_lines_say_how_a_job_goes_where_there_is_no_terminal(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    gateway.on(
        "GET",
        JOB_PATH,
        Answer(200, a_job("queued", pages={**a_job()["pages"], "total": None})),
        Answer(200, a_job("running")),
        Answer(200, a_job("running", pages={**a_job()["pages"], "succeeded": 1})),
        Answer(200, a_job("succeeded")),
    )
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, "read"))

    result = octavo("submit", "--wait", document)

    assert result.stderr.splitlines() == [
        f"{document}: {JOB_ID} queued, 1 jobs ahead",
        f"{document}: {JOB_ID} running, 0 of 2 pages",
        f"{document}: {JOB_ID} succeeded, 2 of 2 pages",
    ]


# Exit codes


@pytest.mark.parametrize(
    ("status", "code"),
    [("succeeded", 0), ("partially_succeeded", 3), ("failed", 1), ("cancelled", 1)],
)
def test_the_end_of_a_job_is_the_exit_code(
    gateway: Gateway, octavo: Octavo, document: Path, status: str, code: int
) -> None:
    accepts(gateway, status=status)

    assert octavo("submit", "--wait", document).exit_code == code
    assert octavo("watch", "job_1").exit_code == code
    assert octavo("status", "job_1").exit_code == code


def test_the_gravest_of_several_ends_is_the_exit_code(gateway: Gateway, octavo: Octavo) -> None:
    ends = {"job_1": "succeeded", "job_2": "failed", "job_3": "partially_succeeded"}
    for job_id, status in ends.items():
        gateway.on("GET", f"/v1/jobs/{job_id}", Answer(200, a_job(status, job_id)))

    assert octavo("status", "job_1", "job_3").exit_code == 3
    assert octavo("status", "job_1", "job_2", "job_3").exit_code == 1
    assert octavo("status", "job_1", "job_2", "job_4").exit_code == 4


def test_a_refusal_is_shown_with_what_finds_it_in_the_log(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    refusal = problem(401, "unauthenticated", f"no such key{EVIL}\nError: all is well")
    gateway.on("POST", "/v1/jobs", refusal)
    gateway.on("GET", "/v1/jobs", refusal)

    for command in (["submit", str(document)], ["list"]):
        result = octavo(*command)

        assert result.exit_code == 4
        assert result.stdout == ""
        assert "The title of unauthenticated.\n  no such key" in result.stderr
        assert "\n  code unauthenticated, request req_1\n" in result.stderr
        assert "\nError: all is well" not in result.stderr
        assert not {"\x1b", "\x9b", "\x07", "\r"} & set(result.stderr)


def test_wrong_options_are_named(gateway: Gateway, octavo: Octavo, document: Path) -> None:
    refusal = problem(422, "invalid_options", "an option is not allowed")
    errors = [{"pointer": "/pages", "message": "ends before it begins"}]
    assert isinstance(refusal.body, dict)
    gateway.on("POST", "/v1/jobs", Answer(422, {**refusal.body, "errors": errors}))

    assert "  /pages: ends before it begins\n" in octavo("submit", document).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "no-such-file.pdf"],
        ["submit", __file__, "-o", "out"],
        ["submit", __file__, "--wait", "--force"],
        ["submit", __file__, "--wait", "--skip-existing"],
        ["submit", __file__, "--metadata", "case"],
        ["submit", __file__, "--password-prompt", "--password-file", __file__],
        ["status", "../keys"],
        ["result", "job_1", "--format", "exe"],
        ["no-such-command"],
    ],
    ids=[
        "no file",
        "no such file",
        "folder without waiting",
        "force without folder",
        "skipping without folder",
        "metadata without value",
        "two passwords",
        "no id",
        "no format",
        "no command",
    ],
)
def test_what_is_not_understood_is_not_done(
    gateway: Gateway, octavo: Octavo, arguments: list[str]
) -> None:
    assert octavo(*arguments).exit_code == 2
    assert gateway.requests == []


@pytest.mark.parametrize(
    "access",
    [[], ["--url", "http://127.0.0.1:1"], ["--url", "ocr.example", "--api-key", "key_1"]],
    ids=["nothing", "no key", "no address"],
)
def test_a_server_that_is_not_named_is_asked_for(
    access: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OCTAVO_URL", raising=False)
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)

    assert CliRunner().invoke(main, [*access, "list"]).exit_code == 2


def test_no_folder_is_made_for_a_server_that_is_not_named(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OCTAVO_URL", raising=False)
    out = tmp_path / "out"

    result = CliRunner().invoke(main, ["submit", str(document), "--wait", "-o", str(out)])

    assert (result.exit_code, out.exists()) == (2, False)


def test_a_server_that_is_not_there_has_its_own_exit_code(document: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        access = {
            "OCTAVO_URL": f"http://127.0.0.1:{unused.getsockname()[1]}",
            "OCTAVO_API_KEY": "k",
        }

        result = CliRunner().invoke(main, ["submit", str(document)], env=access)

    assert result.exit_code == 5
    assert "trying again in" in result.stderr


# The other commands


def test_watch_ends_with_how_the_jobs_stand(gateway: Gateway, octavo: Octavo) -> None:
    failure = {
        "code": "document_encrypted",
        "title": "T",
        "detail": "the password is wrong",
        "retryable": False,
        "category": "policy",
        "phase": "source",
    }
    for job_id, status, error in (("job_1", "succeeded", None), ("job_2", "failed", failure)):
        gateway.on("GET", f"/v1/jobs/{job_id}", Answer(200, a_job(status, job_id, error=error)))

    result = octavo("watch", "job_1", "job_2")

    first, second = result.stdout.splitlines()
    assert first.split() == ["job_1", "succeeded", "2/2", "contract.pdf"]
    assert second.split()[:2] == ["job_2", "failed"]
    assert second.endswith("contract.pdf  document_encrypted: the password is wrong")


def watched(gateway: Gateway, *events: tuple[str, dict[str, Any]], **page: Any) -> None:
    """Let page 2 of the job be told so, and stand so."""
    read = {"page": 2, "status": "succeeded", "markdown": "# Zwei und mehr", **page}
    gateway.on("GET", f"{JOB_PATH}/pages/2/events", stream(*events, ("page", read)))


def told(text: str) -> tuple[str, dict[str, Any]]:
    return "text", {"text": text, "attempt": 1}


def test_a_page_is_printed_as_it_is_read(gateway: Gateway, octavo: Octavo) -> None:
    watched(gateway, told("\n# Zwei"), told(" und"))

    result = octavo("watch", JOB_ID, "--page", 2)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "\n# Zwei und mehr\n", "")


def test_a_page_of_which_nothing_is_told_is_printed_at_the_end(
    gateway: Gateway, octavo: Octavo
) -> None:
    watched(gateway)

    assert octavo("watch", JOB_ID, "--page", 2).stdout == "# Zwei und mehr\n"


def test_a_page_that_is_read_anew_or_stands_otherwise_is_said(
    gateway: Gateway, octavo: Octavo
) -> None:
    watched(gateway, told("# Drei"), ("reset", {"attempt": 2}), told("# Zwo"))

    result = octavo("watch", JOB_ID, "--page", 2)

    assert (result.exit_code, result.stdout) == (0, "# Drei\n# Zwo\n")
    assert result.stderr.splitlines() == [
        "The page is read anew; what was written so far is void.",
        "page 2: it stands otherwise than it was told; see the job's result",
    ]


def test_a_page_that_failed_is_said(gateway: Gateway, octavo: Octavo) -> None:
    watched(gateway, status="failed", markdown="", error={"code": "page_timeout", "detail": "late"})

    result = octavo("watch", JOB_ID, "--page", 2)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "page 2: failed, page_timeout: late\n"


def test_a_page_is_watched_of_one_job(octavo: Octavo) -> None:
    assert octavo("watch", "job_1", "job_2", "--page", 2).exit_code == 2


def test_a_result_goes_to_standard_output_or_into_a_file(
    gateway: Gateway, octavo: Octavo, tmp_path: Path
) -> None:
    gateway.on_each("GET", f"{JOB_PATH}/result", lambda it: Answer(200, f"ä {it.query['format']}"))
    gateway.on("GET", JOB_PATH, Answer(200, a_job("succeeded")))
    file = tmp_path / "result.txt"

    printed = octavo("result", JOB_ID)
    assert (printed.exit_code, printed.stdout, printed.stderr) == (0, "ä markdown", "")
    assert octavo("result", JOB_ID, "-o", file, "--format", "txt").stdout == ""
    assert file.read_bytes() == "ä text".encode()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("target", [[], ["-o", "result.md"]], ids=["printed", "in a file"])
def test_a_result_that_lacks_pages_says_so(
    gateway: Gateway,
    octavo: Octavo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = {**a_job()["pages"], "succeeded": 1, "failed": 1}
    gateway.on("GET", JOB_PATH, Answer(200, a_job("partially_succeeded", pages=counts)))
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, "read"))

    result = octavo("result", JOB_ID, *target)

    assert result.exit_code == 3
    assert (Path("result.md").read_text() if target else result.stdout) == "read"
    [said] = result.stderr.splitlines()
    assert said.startswith(f"{JOB_ID} partially_succeeded, 2 of 2 pages, 1 failed; ")
    assert f"`octavo pages {JOB_ID}`" in said


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(202, a_job("running")), 4),
        (problem(409, "job_failed"), 1),
        (problem(409, "job_cancelled"), 1),
        (problem(410, "result_expired"), 4),
    ],
    ids=["running", "failed", "cancelled", "expired"],
)
def test_there_is_not_always_a_result(
    gateway: Gateway, octavo: Octavo, answer: Answer, code: int
) -> None:
    gateway.on("GET", f"{JOB_PATH}/result", answer)

    result = octavo("result", JOB_ID)

    assert (result.exit_code, result.stdout) == (code, "")


def test_list_shows_no_more_jobs_than_asked_for(gateway: Gateway, octavo: Octavo) -> None:
    jobs = [a_job(job_id=f"job_{number}") for number in range(3)]
    gateway.on("GET", "/v1/jobs", Answer(200, {"data": jobs, "next_cursor": "more"}))

    result = octavo("list", "--status", "queued", "--limit", "2")

    assert [line.split()[0] for line in result.stdout.splitlines()] == ["job_0", "job_1"]
    assert [request.query["status"] for request in gateway.requests] == ["queued"]


def test_a_name_cannot_pose_as_another_line(gateway: Gateway, octavo: Octavo) -> None:
    source = {**a_job()["source"], "name": f"a\njob_9  succeeded{EVIL}"}
    gateway.on("GET", JOB_PATH, Answer(200, a_job(source=source)))

    result = octavo("status", JOB_ID)

    assert len(result.stdout.splitlines()) == 1
    assert "\x1b" not in result.stdout


def test_pages_are_listed_with_what_became_of_them(gateway: Gateway, octavo: Octavo) -> None:
    failure = {"code": "page_timeout", "title": "T", "detail": "too long"}
    pages = [
        a_page(1, needs_review=True),
        a_page(2, status="failed", confidence=None, error=failure),
    ]
    part = {"job_id": JOB_ID, "status": "running", "total": 2, "next_cursor": None}
    gateway.on("GET", f"{JOB_PATH}/pages", Answer(200, {**part, "data": pages}))

    result = octavo("pages", JOB_ID)

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["1", "succeeded", "0.97", "needs", "review"],
        ["2", "failed", "page_timeout:", "too", "long"],
    ]


def test_jobs_are_cancelled_retried_and_deleted(gateway: Gateway, octavo: Octavo) -> None:
    receipt = {"id": JOB_ID, "deleted_at": "2026-11-21T10:05:00Z", "rows": 9, "objects": 4}
    gateway.on("POST", f"{JOB_PATH}/cancel", Answer(202, a_job("cancelled")))
    gateway.on("POST", f"{JOB_PATH}/retry", Answer(202, a_job(job_id="job_2")))
    gateway.on("DELETE", JOB_PATH, Answer(202, {**receipt, "purged_at": None}))

    cancelled, retried = octavo("cancel", JOB_ID), octavo("retry", JOB_ID, "--pages", "all")
    deleted = octavo("delete", JOB_ID)

    assert (cancelled.exit_code, cancelled.stdout.split()[1]) == (0, "cancelled")
    assert (retried.exit_code, retried.stdout) == (0, "job_2\n")
    assert (deleted.exit_code, deleted.stdout) == (0, f"{JOB_ID}  deleted, its bytes are going\n")


# A terminal, and Ctrl-C


def on_a_terminal(gateway: Gateway, *arguments: str | Path) -> str:
    """What a person sees of the command, with all that a terminal would obey."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "OCTAVO_URL": gateway.url,
        "OCTAVO_API_KEY": "k",
        "TERM": "xterm",
        "COLUMNS": "150",
    }
    process = subprocess.Popen(
        [*OCTAVO, *map(str, arguments)], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65_536):
            seen += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return seen.decode()


def test_a_terminal_shows_bars_and_none_of_the_documents_escapes(
    gateway: Gateway, document: Path
) -> None:
    read = f"before{EVIL}after\tü\n\fnext page"
    error = {"code": "c", "title": "t", "detail": EVIL}
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    gateway.on(
        "GET",
        JOB_PATH,
        Answer(200, a_job("running", error=error)),
        Answer(200, a_job("succeeded", error=error)),
    )
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, read))

    seen = on_a_terminal(gateway, "submit", "--wait", document)

    assert "━" in seen
    assert "running, 0 of 2 pages, c:  ]0;owned  [2J 31m" in seen
    assert f"contract.pdf: {JOB_ID} succeeded, 2 of 2 pages, c: ]0;owned" in " ".join(seen.split())
    assert "before]0;owned[2J31mafter\tü\r\n\fnext page\r\n" in seen
    assert not {"\x1b]", "\x1b[2J", "\x9b", "\x07", "\x08"} & {
        seen[at : at + length] for at in range(len(seen)) for length in (1, 2, 4)
    }


def interrupted(gateway: Gateway, *arguments: str | Path, after_requests: int) -> tuple[str, str]:
    """What the command prints and says that is ended by Ctrl-C after so many requests."""
    process = subprocess.Popen(
        [*OCTAVO, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OCTAVO_URL": gateway.url, "OCTAVO_API_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background of a shell has them, and all they start, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
    )
    while len(gateway.requests) < after_requests:
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)  # less than an answer is held back

    assert process.returncode == 130
    assert "Traceback" not in said
    return out, said


def test_ctrl_c_leaves_the_jobs_running_and_says_how_to_go_on(
    gateway: Gateway, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    held_back = Answer(304, after_seconds=60)
    gateway.on("GET", JOB_PATH, Answer(200, a_job("running"), {"ETag": '"1"'}), held_back)

    out, said = interrupted(gateway, "submit", "--wait", document, after_requests=3)

    assert out == ""
    assert f"  octavo watch {JOB_ID}\n" in said
    assert "trying again" not in said
    assert [request.method for request in gateway.requests] == ["POST", "GET", "GET"]


def test_ctrl_c_while_a_result_comes_says_where_it_stays(
    gateway: Gateway, document: Path, tmp_path: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    gateway.on("GET", JOB_PATH, Answer(200, a_job("succeeded")))
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, "read", after_seconds=60))

    _, said = interrupted(
        gateway, "submit", "--wait", "-o", tmp_path / "out", document, after_requests=3
    )

    assert f"{document}: {JOB_ID} has ended" in said
    assert f"  octavo result {JOB_ID}\n" in said
    assert list((tmp_path / "out").iterdir()) == []


# Commands of the server


@pytest.fixture
def with_commands(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `octavo` where two more packages are installed, one of which lacks what it imports."""
    write(
        tmp_path / "platform-1.0.dist-info" / "entry_points.txt",
        b"[octavo.commands]\nhello = hello_command:hello\nlost = lost_command:lost\n",
    )
    write(tmp_path / "platform-1.0.dist-info" / "METADATA", b"Name: platform\nVersion: 1.0\n")
    write(
        tmp_path / "hello_command.py",
        b"""
import click
print("imported")
@click.command()
@click.argument("name")
def hello(name):
    print("hello", name)
""",
    )
    write(tmp_path / "lost_command.py", b"import no_such_package\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*OCTAVO, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            check=False,
            capture_output=True,
            text=True,
        )

    return run


def test_a_command_of_the_server_is_imported_only_when_it_is_run(
    with_commands: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed, run = with_commands("--help"), with_commands("hello", "Ada")

    assert (listed.returncode, run.returncode) == (0, 0)
    assert "hello" in listed.stdout
    assert "lost" in listed.stdout
    assert "imported" not in listed.stdout
    assert run.stdout == "imported\nhello Ada\n"


def test_a_command_whose_packages_are_missing_says_what_to_install(
    with_commands: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    lost = with_commands("lost")

    assert lost.returncode == 2
    assert "this command needs: pip install 'octavo[local]'" in lost.stderr
    assert "Traceback" not in lost.stderr
