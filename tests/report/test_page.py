import base64
import hashlib
import re

from mmif.report.page import Cell, Table, render, template_environment

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_texts_are_escaped_in_tables() -> None:
    template = template_environment().from_string(
        "{% from 'macros.html' import data_table %}{{ data_table(table) }}"
    )
    cell = Cell(MARKUP, sort=MARKUP, link=MARKUP)
    html = template.render(table=Table(MARKUP, [MARKUP], [[cell]]))
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;") == 6


def test_policy_allows_the_scripts_of_the_page_and_nothing_else() -> None:
    html = render("base.html", scripts=("table.js",), context={"title": "page"})
    policy = re.search(r'Policy" content="([^"]+)"', html).group(1).replace("&#39;", "'")
    script = re.search(r"<script>(.*?)</script>", html, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_a_table_shows_links_pictures_and_verdicts() -> None:
    template = template_environment().from_string(
        "{% from 'macros.html' import data_table %}{{ data_table(table) }}"
    )
    row = [Cell("a", link="a/report.html"), Cell("fail", tone="fail"), Cell("1.5", sort=1.5)]
    html = template.render(table=Table("studies", ["name", "verdict", "mm"], [row], numeric=[2]))
    assert '<a href="a/report.html">a</a>' in html
    assert 'class="badge fail"' in html
    assert 'class="figure" data-sort="1.5"' in html
