"""Cells of a CSV table that no spreadsheet takes for a formula, and back."""

import re

# What begins a formula (OWASP, CSV injection), in full width too, where a cell begins: after
# spaces, which a spreadsheet skips, and after a semicolon, which ends a cell where the comma is
# the decimal point. An apostrophe before it makes it text.
_FORMULA = r"[\s']*[=+\-@＝＋－＠]"
_BEGINS = re.compile(rf"(^|;)(?={_FORMULA})")
_MARKED = re.compile(rf"(^|;)'(?={_FORMULA})")


def plain_cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet takes for a formula.

    >>> plain_cell("=HYPERLINK(1)"), plain_cell("case 7"), plain_cell("a;=1")
    ("'=HYPERLINK(1)", 'case 7', "a;'=1")
    """
    return _BEGINS.sub(r"\1'", text)


def cell_text(cell: str) -> str:
    """The text that `plain_cell` made ``cell`` of.

    >>> cell_text(plain_cell("'=HYPERLINK(1)")), cell_text("'tis")
    ("'=HYPERLINK(1)", "'tis")
    """
    return _MARKED.sub(r"\1", cell)
