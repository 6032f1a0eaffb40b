"""A self-contained page: one HTML file with its style and scripts inside, no request to anywhere.

Every text goes through Jinja2's autoescape, and a content security policy lists the hashes of the
page's own scripts: markup that came in with a patient's name neither runs nor loads anything.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "img-src data:; style-src 'unsafe-inline'; script-src {hashes}"
)


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is read.
        sort: what the column is sorted by, ``text`` when None.
        link: a relative address that the text leads to.
        picture: a data URI shown before the text, with ``text`` as its description.
        tone: ``pass``, ``review``, ``fail`` or ``skipped`` shows the text as a verdict.
    """

    text: str
    sort: float | str | None = None
    link: str | None = None
    picture: str | None = None
    tone: str | None = None


@dataclass(frozen=True)
class Table:
    """A table that sorts at a click on a column's head.

    Attributes:
        caption: what the table shows, for a screen reader.
        columns: the heads.
        rows: one cell for each column.
        numeric: the columns (by index) whose texts are figures, set to the right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: Sequence[int] = ()


@cache
def template_environment() -> Environment:
    """The templates of ``mmif/report/templates``, with autoescape and no silent gaps."""
    env = Environment(
        loader=PackageLoader("mmif.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = number
    env.filters["sort_key"] = sort_key
    env.filters["seconds"] = seconds
    return env


def sort_key(value: object) -> str:
    """What a column is sorted by: five digits of a number, for 17 of them can spell anything.

    >>> sort_key(1.5028598291122348), sort_key(12), sort_key("pass")
    ('1.5029', '12', 'pass')
    """
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def number(value: object, digits: int = 2) -> str:
    """``value`` with ``digits`` decimals; a figure that is missing or not finite as a word.

    >>> number(-1.2345), number(-0.001), number(float("nan")), number(None)
    ('−1.23', '0.00', 'not defined', 'not known')
    """
    if value is None:
        return "not known"
    if not isinstance(value, int | float):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return "not defined"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def seconds(value: object) -> str:
    """A time for a reader.

    >>> seconds(0.004), seconds(3.21), seconds(75.0)
    ('<0.01 s', '3.21 s', '1 min 15 s')
    """
    if not isinstance(value, int | float) or value != value:
        return "not known"
    if value < 0.01:
        return "<0.01 s"
    if value < 60:
        return f"{value:.2f} s"
    return f"{int(value // 60)} min {round(value % 60):d} s"


def render(
    template: str,
    *,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    context: Mapping[str, object],
) -> str:
    """The whole text of a page.

    Args:
        template: a file of ``templates/`` that extends ``base.html``.
        scripts: files of ``static/`` that the page runs, in order, behind its content.
        styles: files of ``static/`` that follow the common style sheet.
        context: what the template shows; texts are escaped. ``base.html`` needs ``title``.
    """
    sources = [(STATIC / name).read_text(encoding="utf-8") for name in scripts]
    sheets = [(STATIC / name).read_text(encoding="utf-8") for name in ("page.css", *styles)]
    hashes = " ".join(_hash(source) for source in sources) or "'none'"
    return (
        template_environment()
        .get_template(template)
        .render(
            policy=POLICY.format(hashes=hashes),
            scripts=[Markup(source) for source in sources],
            sheets=[Markup(sheet) for sheet in sheets],
            **context,
        )
    )


def _hash(script: str) -> str:
    """The source expression of an inline script (Content Security Policy Level 3, 2.3.1)."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
