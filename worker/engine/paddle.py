"""`paddle`: PP-OCRv6 tiny on one CPU thread, its weights inside the package. The default engine."""

from __future__ import annotations

from faster_paddle import OcrEngine

from shared.errors import PageUnreadable
from worker.engine.images import PageImage
from worker.engine.line_engine import LineEngine
from worker.engine.lines import Line


class _Paddle:
    def __init__(self) -> None:
        self._engine = OcrEngine(model_size="tiny", threads=1)

    def find_lines(self, page: PageImage) -> list[Line]:
        """The lines of a page, in no order."""
        try:
            found = self._engine.ocr(page.file)["bounds"].values()
        except RuntimeError as error:  # all that it raises of an image
            raise PageUnreadable("The engine cannot take this image.") from error
        return [
            Line(
                bound["text"],
                bound["confidence"],
                *bound["topLeftCoord"],
                *bound["bottomRightCoord"],
            )
            for bound in found
        ]


def build() -> LineEngine:
    """The engine, its weights loaded."""
    return LineEngine(name="paddle", model="pp-ocrv6-tiny", find_lines=_Paddle().find_lines)
