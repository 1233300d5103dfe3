"""A long document goes through with flat memory, and its first page is there at once."""

import io
import time
from itertools import islice

import psutil

from client.sdk import Octavo
from deploy.local import Platform
from tests import documents

PAGES = 600
FIRST_PAGE_SECONDS = 3
LARGEST_BYTES = 700 * 1024**2


def test_600_pages(octavo: Octavo, fake_platform: Platform) -> None:
    began = time.monotonic()
    job = octavo.submit(io.BytesIO(documents.pdf(pages=PAGES)), name="long.pdf")
    while not is_readable(octavo, job.id):
        time.sleep(0.05)
    first_page_seconds = time.monotonic() - began

    largest = 0
    for _ in octavo.watch(job.id):
        largest = max(largest, *memory(fake_platform))

    job = octavo.job(job.id)
    assert (job.status, job.pages.succeeded) == ("succeeded", PAGES)
    assert first_page_seconds <= FIRST_PAGE_SECONDS
    assert largest <= LARGEST_BYTES


def is_readable(octavo: Octavo, job_id: str) -> bool:
    return any(page.status == "succeeded" for page in islice(octavo.pages(job_id), 1))


def memory(platform: Platform) -> list[int]:
    """Resident bytes of every process of the platform, children included."""
    sizes = []
    for pid in platform.pids().values():
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            try:
                sizes.append(each.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
    return sizes
