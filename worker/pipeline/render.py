"""Page images of hostile documents: what a worker asks for, and gets as JPEG.

The document is parsed in a child of `sandbox`, never here; this process sees pixels.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Self, TypeVar

from PIL import Image

from shared.errors import (
    DependencyUnavailable,
    DocumentInvalid,
    DocumentTooExpensive,
    TooManyPages,
)
from shared.media import MediaType
from worker.pipeline.limits import PAGES_PER_CHILD, Limits
from worker.pipeline.sandbox import Child, ChildLate, ChildLied, ChildLost, ZygoteLost, open_child

__all__ = ["Document", "Limits", "PageImage", "open_document"]

SOON_SECONDS = 1.0
"""A child that is lost before may have been killed by somebody else, and has a second life."""

MAX_CHILDREN_LOST = 3
"""A document that has cost so many children gets no more."""

_JPEG_QUALITY = 92
_T = TypeVar("_T")


@dataclass(frozen=True)
class PageImage:
    """A page as a JPEG of `width` by `height` pixels, without any metadata."""

    jpeg: bytes
    width: int
    height: int


def open_document(
    file: IO[bytes] | int, media_type: MediaType, *, limits: Limits, password: str | None = None
) -> Document:
    """The document in `file`, a descriptor or a flushed file that has one; it is left as it is.

    Raises DocumentInvalid, DocumentEncrypted, DocumentTooExpensive or TooManyPages; ImageDimensions
    where its only page is an image that is not allowed; DependencyUnavailable where no child can be
    had, here and in `Document.render`.
    """
    document = Document(file, media_type, limits=limits, password=password)
    try:
        document.open()
    except BaseException:
        document.close()
        raise
    return document


class Document:
    """An open document, for one thread. Close it, or leave it as a context manager."""

    pages_total: int

    def __init__(
        self, file: IO[bytes] | int, media_type: MediaType, *, limits: Limits, password: str | None
    ) -> None:
        """Not open yet: that is `open_document`."""
        # Opened anew, so that neither the right to write nor the place in the file is shared
        descriptor = file if isinstance(file, int) else file.fileno()
        self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
        self._media_type = media_type
        self._limits = limits
        self._password = password
        self._child: Child | None = None
        self._children_lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Learn `pages_total`, as `open_document` says."""
        self.pages_total = self._ask(lambda child: child.pages_total)
        if self.pages_total == 0:
            raise DocumentInvalid("the document has no pages")
        if self.pages_total > self._limits.max_pages:
            rule = f"{self._limits.max_pages} are allowed"
            raise TooManyPages(f"the document has {self.pages_total} pages; {rule}")

    def render(self, index: int) -> PageImage:
        """The image of the page at `index`, from 0.

        Raises DocumentInvalid, DocumentTooExpensive or ImageDimensions for this page; the others
        may be good, until `MAX_CHILDREN_LOST` pages have each cost a child.
        """
        if not 0 <= index < self.pages_total:
            raise IndexError(index)
        if self._children_lost >= MAX_CHILDREN_LOST:
            raise DocumentTooExpensive(f"{MAX_CHILDREN_LOST} pages of it were too expensive")
        return _encoded(self._ask(lambda child: child.render(index)))

    def close(self) -> None:
        """End the child and let go of the file. More than once does nothing."""
        self._drop_child()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _ask(self, question: Callable[[Child], _T]) -> _T:
        with self._counting_lost_children():
            began = time.monotonic()
            try:
                return question(self._open_child())
            except ZygoteLost:
                self._drop_child()
            except (ChildLate, ChildLied):
                raise
            except ChildLost:
                # Somebody else may have killed it. What is too expensive dies later, or once more.
                if time.monotonic() - began > SOON_SECONDS:
                    raise
                self._drop_child()
            return question(self._open_child())

    @contextmanager
    def _counting_lost_children(self) -> Iterator[None]:
        try:
            yield
        except ZygoteLost as lost:
            self._drop_child()
            raise DependencyUnavailable("documents cannot be opened now") from lost
        except ChildLost as lost:
            self._drop_child()
            self._children_lost += 1
            error = DocumentInvalid if isinstance(lost, ChildLied) else DocumentTooExpensive
            raise error(str(lost)) from lost

    def _open_child(self) -> Child:
        """The child that has the document open, a fresh one where there is none that is to stay."""
        if self._child is not None and self._child.pages_rendered >= PAGES_PER_CHILD:
            self._drop_child()
        if self._child is None:
            self._child = open_child(
                self._file, self._media_type, limits=self._limits, password=self._password
            )
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def _encoded(image: Image.Image) -> PageImage:
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    return PageImage(jpeg.getvalue(), image.width, image.height)
