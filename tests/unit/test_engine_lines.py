from __future__ import annotations

import random
import time

from worker.engine.lines import Line, arrange, markdown_of, text_of

HEIGHT = 30
PITCH = 45


def line(text: str, x: int, y: int, width: int | None = None) -> Line:
    return Line(text, 0.99, x, y, x + (width or 14 * len(text)), y + HEIGHT)


def column(prefix: str, x: int, y: int, lines: int, width: int = 500) -> list[Line]:
    return [line(f"{prefix}{n}", x, y + PITCH * n, width) for n in range(lines)]


def table(rows: list[list[str]], y: int = 100) -> list[Line]:
    return [
        line(text, 100 + 300 * n, y + PITCH * m)
        for m, row in enumerate(rows)
        for n, text in enumerate(row)
        if text
    ]


def shuffled(lines: list[Line]) -> list[Line]:
    return random.Random(5).sample(lines, len(lines))  # noqa: S311 - seeded


def read(lines: list[Line]) -> str:
    return text_of(arrange(shuffled(lines)))


def test_an_empty_page_has_no_regions() -> None:
    assert arrange([]) == []
    assert text_of([]) == markdown_of([]) == ""


def test_lines_are_read_from_top_to_bottom() -> None:
    assert read(column("a", 100, 100, 4)) == "a0\na1\na2\na3"


def test_pieces_of_one_line_are_joined_from_left_to_right() -> None:
    assert read([line("Hello", 100, 100), line("world", 180, 103)]) == "Hello world"


def test_a_wide_gap_in_a_line_becomes_a_tab() -> None:
    assert read([line("Total", 100, 100), line("12.50", 600, 100)]) == "Total\t12.50"


def test_a_slanting_line_is_one_line() -> None:
    slanting = [line(f"w{n}", 100 + 70 * n, 100 + 5 * n, 60) for n in range(6)]

    assert read(slanting + column("next", 100, 160, 1)) == "w0 w1 w2 w3 w4 w5\nnext0"


def test_rows_that_slant_by_more_than_a_row_are_told_apart() -> None:
    rows = [
        [line(f"{row}{n}", 100 + 70 * n, y + 5 * n, 60) for n in range(11)]
        for row, y in (("a", 100), ("b", 145))
    ]

    assert read(rows[0] + rows[1]).split("\n") == [
        " ".join(f"{row}{n}" for n in range(11)) for row in "ab"
    ]


def test_a_blank_line_stands_between_paragraphs() -> None:
    lines = column("a", 100, 100, 3) + column("b", 100, 300, 3)

    assert read(lines) == "a0\na1\na2\n\nb0\nb1\nb2"


def test_two_columns_are_read_one_after_the_other() -> None:
    lines = column("left", 100, 100, 5) + column("right", 660, 100, 4)

    assert read(lines) == "left0\nleft1\nleft2\nleft3\nleft4\n\nright0\nright1\nright2\nright3"


def test_columns_whose_lines_stand_at_different_heights_are_columns() -> None:
    lines = column("left", 100, 100, 4) + column("right", 660, 122, 4)

    assert read(lines).startswith("left0\nleft1\nleft2\nleft3\n\nright0")


def test_a_gap_across_both_columns_does_not_end_them() -> None:
    lines = column("a", 100, 100, 3) + column("b", 100, 320, 3)
    lines += column("c", 660, 100, 3) + column("d", 660, 320, 3)

    assert read(lines) == "a0\na1\na2\n\nb0\nb1\nb2\n\nc0\nc1\nc2\n\nd0\nd1\nd2"


def test_three_columns_are_read_in_turn() -> None:
    lines = (
        column("a", 50, 100, 4, 330) + column("b", 430, 100, 4, 330) + column("c", 810, 100, 4, 330)
    )

    assert [region[0][0].text for region in arrange(shuffled(lines))] == ["a0", "b0", "c0"]


def test_a_title_across_the_columns_is_read_first() -> None:
    lines = [line("A title across", 300, 30, 600)]
    lines += column("left", 100, 100, 4) + column("right", 660, 100, 4)
    lines += [line("A footer across", 300, 330, 600)]

    read_as = read(lines).split("\n\n")

    assert [part.split("\n")[0] for part in read_as] == [
        "A title across",
        "left0",
        "right0",
        "A footer across",
    ]


def test_a_table_below_columns_does_not_spoil_them() -> None:
    lines = column("left", 100, 100, 4) + column("right", 660, 100, 4)
    lines += table([["Item", "Qty"], ["Ink", "2"], ["Twine", "4"]], y=500)

    assert read(lines).split("\n\n")[0] == "left0\nleft1\nleft2\nleft3"
    assert "| Ink | 2 |" in markdown_of(arrange(shuffled(lines)))


def test_a_grid_is_a_table_in_markdown_and_tabs_in_text() -> None:
    rows = [["Item", "Qty", "Price"], ["Ink", "2", "3.50"], ["A|B", "", "0.75"]]

    regions = arrange(shuffled(table(rows)))

    assert markdown_of(regions) == (
        "| Item | Qty | Price |\n| --- | --- | --- |\n| Ink | 2 | 3.50 |\n| A\\|B |  | 0.75 |"
    )
    assert text_of(regions) == "Item\tQty\tPrice\nInk\t2\t3.50\nA|B\t\t0.75"


def test_two_rows_are_no_table() -> None:
    assert "|" not in markdown_of(arrange(table([["Name", "Date"], ["Ada", "1843"]])))


def test_wide_but_ragged_cells_are_a_table_and_no_columns() -> None:
    widths = [190, 200, 210, 600]
    left = [line(f"a{n}", 100, 100 + PITCH * n, width) for n, width in enumerate(widths)]
    right = [line(f"b{n}", 800, 100 + PITCH * n, width) for n, width in enumerate(widths)]

    assert read(left + right) == "a0\tb0\na1\tb1\na2\tb2\na3\tb3"


def test_a_grid_that_is_mostly_empty_is_no_table() -> None:
    places = [(0, 1), (2, 3), (4, 0)]
    cells = [
        line("x", 100 + 300 * column, 100 + PITCH * row)
        for row, columns in enumerate(places)
        for column in columns
    ]

    assert "|" not in markdown_of(arrange(cells))


def test_text_around_a_table_stays_text() -> None:
    lines = [line("Before", 100, 40), *table([["a", "b"]] * 3), line("After it all", 100, 260)]

    parts = markdown_of(arrange(shuffled(lines))).split("\n\n")

    assert parts == ["Before", "| a | b |\n| --- | --- |\n| a | b |\n| a | b |", "After it all"]


def test_columns_that_are_not_cells_are_no_table() -> None:
    ragged = [line(f"word{n}", 100 + 70 * (n % 5), 100 + PITCH * (n // 2)) for n in range(12)]

    assert "|" not in markdown_of(arrange(ragged))


def test_no_line_is_lost_and_a_full_page_takes_no_time() -> None:
    chance = random.Random(1)  # noqa: S311 - seeded
    lines = [
        line(f"w{n}", chance.randrange(2000), chance.randrange(3000), 90) for n in range(1_500)
    ]

    begun = time.process_time()
    regions = arrange(lines)

    assert sorted(x.text for region in regions for row in region for x in row) == sorted(
        x.text for x in lines
    )
    assert time.process_time() - begun < 5
