"""What the model says of a page becomes blocks, markdown and text, whatever it says."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from shared.document import BlockKind, FinishReason, Recognition
from worker.engine.deepseek import grounding, recognised, tokenizer_file
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.recognised import Output
from worker.engine.deepseek.tokens import Tokenizer
from worker.pipeline.markup import clean

WIDTH, HEIGHT = 999, 1998
PAGE = (
    "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 90]]<|/det|>\n# One printed sheet  \n\n"
    "<|ref|>text<|/ref|><|det|>[[100, 100, 900, 300]]<|/det|>\nFolded into \\(8\\) leaves.  \n\n"
    "<|ref|>image<|/ref|><|det|>[[100, 310, 500, 600]]<|/det|>\n  \n\n"
    "<|ref|>image_caption<|/ref|><|det|>[[100, 610, 500, 640]]<|/det|>\n"
    "<center>Figure 1: a sheet</center>  \n\n"
    "<|ref|>table<|/ref|><|det|>[[100, 650, 900, 800]]<|/det|>\n"
    "<|ref|>table_caption<|/ref|><|det|>[[100, 640, 900, 650]]<|/det|>\nTable 1  \n\n"
    "<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td></td></tr></table>  \n\n"
    "<|ref|>equation<|/ref|><|det|>[[100, 810, 900, 850]]<|/det|>\n\\[ x \\coloneqq 2 \\]"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(tokenizer_file.build())
    return Tokenizer(path)


def read(
    tokenizer: Tokenizer,
    text: str,
    *,
    use: Use = Use.DOCUMENT,
    log_probs: list[float] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Recognition:
    ids = tokenizer.ids(text)
    output = Output(
        ids=ids,
        log_probs=log_probs or [-0.1] * len(ids),
        finish_reason=FinishReason.STOP,
        use=use,
        size=size,
        mode="base",
        vision_tokens=100,
        seconds=1.5,
    )
    return recognised.recognition(output, tokenizer, engine="deepseek-ocr", model="m")


def test_a_page_becomes_blocks_with_kind_text_and_box(tokenizer: Tokenizer) -> None:
    blocks = read(tokenizer, PAGE).blocks

    assert [(block.kind, block.text) for block in blocks] == [
        (BlockKind.TITLE, "# One printed sheet"),
        (BlockKind.TEXT, "Folded into \\(8\\) leaves."),
        (BlockKind.IMAGE, ""),
        (BlockKind.IMAGE_CAPTION, "Figure 1: a sheet"),
        (BlockKind.TABLE_CAPTION, "Table 1"),
        (
            BlockKind.TABLE,
            "<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td></td></tr></table>",
        ),
        (BlockKind.EQUATION, "\\[ x := 2 \\]"),
    ]
    assert blocks[0].box is not None
    assert blocks[0].box.model_dump() == {"x0": 100, "y0": 100, "x1": 900, "y1": 180}


def test_markdown_keeps_tables_and_formulas_and_refers_to_figures(tokenizer: Tokenizer) -> None:
    page = read(tokenizer, PAGE)

    assert page.markdown.startswith("# One printed sheet\n\nFolded into \\(8\\) leaves.\n\n![]")
    assert "![](figures/1)\n\nFigure 1: a sheet\n\n" in page.markdown
    assert "<table><tr><td>a</td><td>b</td></tr>" in page.markdown
    assert "\\[ x := 2 \\]" in page.markdown
    assert "<|" not in page.markdown and "<center>" not in page.markdown


def test_text_has_no_marks_and_parts_cells_by_tabs(tokenizer: Tokenizer) -> None:
    assert read(tokenizer, PAGE).text.split("\n\n")[:3] == [
        "One printed sheet",
        "Folded into \\(8\\) leaves.",
        "Figure 1: a sheet",
    ]
    assert "Table 1\n\na\tb\n1\n\n" in read(tokenizer, PAGE).text


def test_other_prompts_give_paragraphs_without_boxes(tokenizer: Tokenizer) -> None:
    page = read(tokenizer, "First.\n\n\n\nSecond\nline.\n", use=Use.TEXT)

    assert [(b.kind, b.text, b.box) for b in page.blocks] == [
        (BlockKind.TEXT, "First.", None),
        (BlockKind.TEXT, "Second\nline.", None),
    ]
    assert page.text == page.markdown == "First.\n\nSecond\nline."


def test_located_words_stand_in_the_label(tokenizer: Tokenizer) -> None:
    said = "<|ref|>Figure 1<|/ref|><|det|>[[1, 2, 30, 40], [5, 6, 70, 80]]<|/det|>"

    blocks = read(tokenizer, said, use=Use.LOCATE).blocks

    assert [(block.kind, block.text) for block in blocks] == [
        (BlockKind.LINE, "Figure 1"),
        (BlockKind.LINE, ""),
    ]
    assert blocks[1].box is not None and blocks[1].box.x0 == 5


def test_a_label_that_nobody_knows_is_other(tokenizer: Tokenizer) -> None:
    said = "<|ref|>stamp<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>\nPAID"

    assert [(b.kind, b.text) for b in read(tokenizer, said).blocks] == [(BlockKind.OTHER, "PAID")]


def test_a_page_on_which_nothing_stands(tokenizer: Tokenizer) -> None:
    page = read(tokenizer, "")

    assert (page.text, page.markdown, page.blocks) == ("", "", [])
    assert page.confidence is None and page.confidence_min is None


def test_confidence_is_of_the_tokens_and_the_least_sure_block_shows(tokenizer: Tokenizer) -> None:
    first, second = "Certain words.\n\n", "Guessed words."
    sure, guessed = len(tokenizer.ids(first)), len(tokenizer.ids(second))

    page = read(
        tokenizer, first + second, use=Use.TEXT, log_probs=[-0.01] * sure + [-2.0] * guessed
    )

    assert [round(block.confidence or 0, 3) for block in page.blocks] == [0.99, 0.135]
    assert page.confidence_min == page.blocks[1].confidence
    assert page.confidence is not None and 0.135 < page.confidence < 0.99
    assert page.usage.output_tokens == sure + guessed
    assert page.usage.compression_ratio == round((sure + guessed) / 100, 3)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[[0, 0, 999, 999]]", [(0, 0, WIDTH, HEIGHT)]),
        ("[[900, 90, 100, 50]]", [(100, 100, 900, 180)]),  # corners the other way
        ("[[0, 0, 9999, 9999]]", [(0, 0, WIDTH, HEIGHT)]),  # beyond the page
        ("[[5, 5, 5, 900]]", []),  # empty
        ("[[1, 2, 3]]", []),
        ("[[-1, 2, 3, 4]]", []),
        ("[[1.5, 2, 3, 4]]", []),
        ("[[1, 2, 3, 4], [5, 6, 7,", [(1, 4, 3, 8)]),
        ("[[__import__('os').system('true')]]", []),
        ("[[99999999999999999999, 0, 1, 1]]", []),
        ("[[\u0661, \u0662, \u0663, \u0664]]", []),  # digits of another script
        ("", []),
    ],
)
def test_boxes_are_parsed_strictly(text: str, boxes: list[tuple[int, int, int, int]]) -> None:
    found = grounding.boxes(text, WIDTH, HEIGHT)

    assert [(box.x0, box.y0, box.x1, box.y1) for box in found] == boxes


@pytest.mark.parametrize("size", [(1, 1), (16, 1600), (20_000, 200)])
def test_a_box_is_never_empty_and_never_beyond_the_page(size: tuple[int, int]) -> None:
    dice = random.Random(size[0])  # noqa: S311 - seeded
    for _ in range(500):
        text = str([[dice.randrange(0, 1100) for _ in range(4)]])
        for box in grounding.boxes(text, *size):
            assert 0 <= box.x0 < box.x1 <= size[0] and 0 <= box.y0 < box.y1 <= size[1]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("<|ref|>title", "title"),
        ("<|ref|>title<|/ref|>", "title"),
        ("<|ref|>title<|/ref|><|det|>[[1, 2", "title[[1, 2"),
        ("<|/det|>words<|ref|>", "words"),
        ("<|ref|><|ref|>text<|/ref|><|det|>[[1,2,3,4]]<|/det|>words", "words"),
        ("<|ref|>a<|/ref|>between<|det|>[[1,2,3,4]]<|/det|>", "abetween[[1,2,3,4]]"),
        ("<|det|>[[1,2,3,4]]<|/det|>words", "[[1,2,3,4]]words"),
    ],
)
def test_broken_markup_loses_no_words(tokenizer: Tokenizer, said: str, text: str) -> None:
    assert "".join(block.text for block in read(tokenizer, said).blocks) == text


PIECES = [
    *("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "[[", "]]", "[", "]", "1", ",", " ", "\n"),
    *("\n\n", "title", "image", "table", "<table>", "<td>", "</td>", "<tr>", "</tr>", "<|", "|>"),
    *("<center>", "\\coloneqq", "# ", "999", "-1", "\x00", "table_caption"),
    *("[[1, 2, 3, 4]]", "__import__('os')", "\u202e", "é", "漢"),
]


def test_no_soup_of_markup_breaks_it(tokenizer: Tokenizer) -> None:
    dice = random.Random(0)  # noqa: S311 - seeded
    for _ in range(400):
        soup = "".join(dice.choices(PIECES, k=dice.randrange(1, 80)))
        use = dice.choice([Use.DOCUMENT, Use.OCR, Use.TEXT])

        page = read(tokenizer, soup, use=use, size=(dice.randrange(1, 3000), 17))

        assert Recognition.model_validate_json(page.model_dump_json()) == page
        assert clean(page.text) is not None
        covered = [region.span for region in grounding.regions(soup, 10, 10)]
        assert covered == sorted(covered)
        assert all(start < end <= len(soup) for start, end in covered)


@pytest.mark.parametrize(
    "piece",
    [
        "<|ref|>",
        "<|ref|>a",
        "<|ref|>a<|/ref|>",
        "<|ref|>a<|/ref|><|det|>",
        "<|ref|>a<|/ref|><|det|>[[1,2,3,4]]<|/det|>",
        "<|ref|>a<|/ref|> \n ",
        "[",
        "[[1,",
        "[1" + " " * 8,
        "\n",
        "\n \n",
        "<td>",
        "<table ",
        "# ",
        "</td>\t",
    ],
)
def test_two_million_characters_of_soup_are_parsed_in_no_time(piece: str) -> None:
    """A second when the time grows with the text; minutes when it grows with its square."""
    said = (piece * 2_000_000)[:2_000_000]
    begun = time.process_time()

    for region in grounding.regions(said, 1000, 1000):
        recognised.plain(recognised.tidy(region.text))
    for _ in grounding.boxes(said, 1000, 1000):
        pass

    assert time.process_time() - begun < 10


def test_nothing_of_the_repository_is_written_by_hostile_output(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    target = tmp_path / "written"
    code = f"[[__import__('pathlib').Path('{target}').touch(), 1, 2, 3]]"
    read(tokenizer, f"<|ref|>image<|/ref|><|det|>{code}<|/det|>")
    read(tokenizer, code, use=Use.FIGURE)

    assert not target.exists()
