"""Each shipped weights file has the page that its card makes."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from weights_pages import page

WEIGHTS = Path(__file__).parents[2] / "weights"


@pytest.mark.parametrize(
    "card", sorted(WEIGHTS.glob("*/card.json")), ids=lambda card: card.parent.name
)
def test_the_page_of_weights_is_that_of_their_card(card: Path) -> None:
    """Otherwise ``python benchmarks/weights_pages.py`` was not run."""
    assert (card.parent / "README.md").read_text() == page(json.loads(card.read_text()))
