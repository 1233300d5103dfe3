"""What the samples say: pages of headings, paragraphs and tables, in plain text.

The pages are typeset from these blocks and the truth beside each sample is written from them too,
so that the two cannot differ. Written for this project; the measured values are made up.
"""

# ruff: noqa: RUF001 - Chinese has its own punctuation

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A line in larger type."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Justified text in one language, named as in ISO 639-1."""

    text: str
    language: str = "en"


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first row being the head, if there is one.

    The first column is words, the others are figures.
    """

    rows: tuple[tuple[str, ...], ...]
    has_head: bool = True


Block = Heading | Paragraph | Table
Page = tuple[Block, ...]

OCTAVO: tuple[Page, ...] = (
    (
        Heading("From a sheet to an octavo"),
        Paragraph(
            "A printer does not print pages but sheets. Eight pages are set on one side of the "
            "sheet and eight on the other, some of them upside down, so that after three folds "
            "they follow one another in reading order. The result is a gathering of eight leaves, "
            "or sixteen pages, and a book made of such gatherings is called an octavo, often "
            "written 8vo."
        ),
        Paragraph(
            "The first fold halves the longer side and gives two leaves: a folio. The second, at "
            "right angles to it, gives four: a quarto. The third gives eight. Every fold turns the "
            "grain of the paper, and with it the chain lines that the mould has left: they run "
            "upright in a folio, across in a quarto, and upright again in an octavo. Whoever finds "
            "a loose leaf can tell its format by holding it against the light."
        ),
        Paragraph(
            "After folding, the outer edges are still closed. The gatherings are pressed, sewn "
            "through the last fold onto cords or tapes, and only then trimmed on three sides; in "
            "books that were sold uncut, the reader opened each bolt with a knife. A signature, "
            "the small letter or figure at the foot of the first leaf, tells the binder in which "
            "order the gatherings belong."
        ),
        Heading("Das Falzen in der Werkstatt"),
        Paragraph(
            "Für das Falzen genügt ein glattes Falzbein aus Knochen. Der Bogen liegt so, dass die "
            "größere Seite quer vor dem Buchbinder liegt; er schlägt die rechte Hälfte über die "
            "linke, prüft, ob die Seitenzahlen genau übereinander stehen, und streicht den Bruch "
            "mit kräftigem Druck nach außen. Schräge Brüche lassen sich später kaum mehr beheben. "
            "Geübte Hände falzen etwa dreihundert Bogen in der Stunde.",
            "de",
        ),
        Heading("Le papier et l’humidité"),
        Paragraph(
            "Le papier n’est jamais tout à fait sec. À l’air libre il garde de cinq à huit pour "
            "cent d’eau, s’allonge quand le temps devient humide et se rétracte près du feu. C’est "
            "pourquoi l’imprimeur mouillait ses feuilles la veille, les empilait sous un poids, et "
            "les faisait sécher sur des cordes après le tirage.",
            "fr",
        ),
    ),
    (
        Heading("纸是怎样做成的"),
        Paragraph(
            "造纸的原料是植物的纤维。古人用过树皮、麻头、破布和旧渔网，后来又用竹子和稻草。"
            "原料先要切碎，在水里泡上许多天，再加石灰或草木灰蒸煮，除去里面的胶质，剩下的纤维才会变得柔软、洁白。",
            "zh",
        ),
        Paragraph(
            "煮好的料放进石臼里反复捶打，直到纤维分散开来，然后倒进水槽，加水搅匀，成为纸浆。"
            "工匠双手拿着细竹帘，斜着插入浆中，轻轻一荡，平平地抬起，水从帘缝里漏下去，帘上便留下一层薄薄的湿纸。"
            "荡得轻，纸就薄；荡得重，纸就厚。同一位工匠一天可以抄出几百张，每张的厚薄几乎没有差别，这全靠手上的功夫。",
            "zh",
        ),
        Paragraph(
            "湿纸一张一张叠在木板上，叠到半人高，再用木榨慢慢压去水分。"
            "压过的纸仍然是潮的，要一张张揭开，用软刷贴到火墙上烘干，或者放在太阳底下晒干。"
            "干透以后揭下来，切齐四边，数好张数，打成一捆，这样才算完工。",
            "zh",
        ),
        Heading("书页与折叠"),
        Paragraph(
            "纸有了，书还要折。把一张大纸对折三次，得到八叶，也就是十六个页面，这种开本叫作八开。"
            "折之前，印工要先想好每一页放在哪里、朝哪个方向，因为在没有折的大纸上，有一半的页面是倒着的。"
            "折好以后，从第一页翻到第十六页，次序应当一页也不错。",
            "zh",
        ),
        Paragraph(
            "中国的旧书折法不同：纸只印一面，字朝外对折一次，折口留在书的外侧，另一边用线装订。"
            "这样的一叶有两面，中间是空的，所以翻书的时候，手指会觉得每一叶都有两层。",
            "zh",
        ),
    ),
    (
        Heading("Formats of a book"),
        Paragraph(
            "The number of folds gives the number of leaves. The heights are those of common "
            "printing papers after trimming and differ from one mill to another."
        ),
        Table(
            (
                ("Format", "Short", "Folds", "Leaves", "Pages", "Height in cm"),
                ("Folio", "2o", "1", "2", "4", "38.1"),
                ("Quarto", "4to", "2", "4", "8", "30.5"),
                ("Octavo", "8vo", "3", "8", "16", "22.9"),
                ("Sextodecimo", "16mo", "4", "16", "32", "17.1"),
                ("Trigesimo-secundo", "32mo", "5", "32", "64", "14.0"),
            )
        ),
        Heading("Drying of a sheet"),
        Paragraph(
            "One sheet of rag paper was taken from the press, hung over a cord in a room at 21 °C, "
            "and weighed every half hour. The last column is the water left, as a share of the "
            "mass of the dry sheet."
        ),
        Table(
            (
                ("Time", "Air humidity in %", "Mass in g", "Water in %"),
                ("09:00", "54", "41.8", "132.2"),
                ("09:30", "53", "33.6", "86.7"),
                ("10:00", "53", "27.9", "55.0"),
                ("10:30", "52", "23.5", "30.6"),
                ("11:00", "52", "20.7", "15.0"),
                ("11:30", "51", "19.4", "7.8"),
                ("12:00", "51", "19.2", "6.7"),
            )
        ),
        Paragraph(
            "After two hours and a half the mass hardly changes: the sheet has come to rest with "
            "the air around it. It never becomes quite dry, and on a wet day it takes up water "
            "again."
        ),
    ),
)

SCAN: Page = (
    Heading("Making a sheet by hand"),
    Paragraph(
        "The vat is filled with water and a little pulp, about two parts in a hundred, and kept "
        "at the warmth of a hand. The mould is a wooden frame covered with fine wires; a second "
        "frame, the deckle, lies on it loosely and decides how large the sheet will be. The "
        "vatman dips both together, almost upright, draws them level through the pulp and lifts "
        "them out."
    ),
    Paragraph(
        "Now everything happens within a few seconds. While the water runs off, he shakes the "
        "mould once from left to right and once away from himself. The fibres turn and lock into "
        "each other, and a grey shine on the surface goes out: the sheet is formed. A drop that "
        "falls on it from the deckle leaves a thin round spot, which papermakers call a tear."
    ),
    Paragraph(
        "The deckle is taken off and the mould handed to the coucher, who presses it face down "
        "onto a damp felt with a rocking movement. When he lifts it, the sheet stays behind. "
        "Another felt is laid over it, then the next sheet, and so on until a post of 144 sheets "
        "stands ready for the press."
    ),
    Heading("Pressing and drying"),
    Paragraph(
        "The press takes out about half of the water and reduces the post from 60 cm to 15 cm. "
        "The sheets can now be lifted from the felts; they are pressed again without them, with "
        "less force, which gives a smoother surface. Then they hang over ropes of horsehair in "
        "the loft, four or five together, with the shutters set according to the weather."
    ),
    Paragraph(
        "Dry paper drinks ink like a blotter. To make it fit for the pen it is drawn through warm "
        "size, a thin glue boiled from parchment clippings, pressed once more, and dried slowly. "
        "A good sized sheet rattles when it is shaken."
    ),
)

ROTATED: Page = (
    Heading("Watermarks"),
    Paragraph(
        "A watermark is a place where the paper is thinner. A figure bent from wire is sewn onto "
        "the mould, the pulp lies less deep over it, and the finished sheet lets more light "
        "through. The mark can be seen against a window and felt by nobody."
    ),
    Paragraph(
        "Because the moulds were made in pairs, watermarks come in twins: alike at first sight, "
        "yet a few millimetres apart in place or shape. As a mould was used, its wires were bent "
        "and mended, so that the same mark changes slowly over the months. Whoever measures it "
        "closely can date an undated letter to within a year or two."
    ),
    Paragraph(
        "The distance between the chain lines is measured first, 24 to 27 mm in most papers, then "
        "the place of the mark between them, then its height and width. Photographs in raking "
        "light show the wire side of the sheet; an image made with soft rays shows the mark "
        "without the ink that covers it."
    ),
)

FAX: tuple[Page, ...] = (
    (
        Heading("WEATHER RECORD, WEEK 12"),
        Paragraph(
            "Readings were taken at 07:00 in a screen two metres above short grass. Rain is the "
            "sum of the 24 hours before the reading. Pressure is reduced to sea level."
        ),
        Table(
            (
                ("Day", "Low in °C", "High in °C", "Rain in mm", "Wind in m/s", "Pressure in hPa"),
                ("Monday", "2.4", "11.8", "0.0", "3.1", "1021.6"),
                ("Tuesday", "4.0", "12.5", "0.0", "4.7", "1017.2"),
                ("Wednesday", "6.3", "10.9", "8.6", "9.2", "1003.8"),
                ("Thursday", "3.7", "9.1", "14.2", "11.5", "996.4"),
                ("Friday", "1.9", "8.8", "2.3", "7.6", "1004.9"),
                ("Saturday", "0.2", "10.4", "0.0", "2.8", "1015.7"),
                ("Sunday", "1.1", "13.6", "0.0", "2.2", "1022.3"),
            )
        ),
        Paragraph(
            "Total rain of the week: 25.1 mm. Highest gust: 21.4 m/s on Thursday at 03:10, from "
            "the west. Ground frost was seen on Saturday morning only."
        ),
    ),
    (
        Heading("REMARKS"),
        Paragraph(
            "The front reached the station during the night to Wednesday. Pressure fell by 13.4 "
            "hPa within a day and by a further 7.4 hPa until Thursday, when the wind went round "
            "from south-west to west. Hail of 4 to 6 mm fell for about ten minutes before sunrise."
        ),
        Paragraph(
            "The rain gauge was emptied and cleaned on Friday. A leaf had covered part of the "
            "funnel, so the value of Thursday may be too low; a second gauge, 80 m away, showed "
            "15.0 mm. The record keeps the value of the first gauge, as in the years before."
        ),
        Paragraph(
            "Visibility was good on four days and poor on Wednesday, with fog below 200 m until "
            "half past nine. The next record follows in seven days."
        ),
    ),
)

RECEIPT: Page = (
    Heading("RECEIPT"),
    Paragraph("No. 004718   2026-03-14   16:25"),
    Table(
        (
            ("ITEM", "QTY", "EUR"),
            ("Bone folder 15 cm", "1", "6.80"),
            ("Linen thread 18/3", "2", "9.50"),
            ("Grey board 2 mm A4", "5", "7.25"),
            ("Wheat starch 500 g", "1", "4.90"),
            ("Japanese paper 11 g", "3", "12.60"),
            ("Beeswax 50 g", "1", "3.45"),
        )
    ),
    Table((("SUBTOTAL", "37.39"), ("VAT 19 %", "7.11"), ("TOTAL", "44.50")), has_head=False),
    Paragraph("Paid by card. Goods may be returned within 14 days with this receipt."),
)


def truth(pages: tuple[Page, ...]) -> str:
    """The text of `pages`, a line for each heading, paragraph and row; pages end in a form feed.

    The last page ends in a line break instead.
    """
    return "\f".join("".join(map(_plain, page)) for page in pages)


def _plain(block: Block) -> str:
    if isinstance(block, Table):
        return "".join(" ".join(row) + "\n" for row in block.rows)
    return f"{block.text}\n"
