"""The README beside each shipped weights file, from its card.

python benchmarks/weights_pages.py [weights]
"""

import json
import sys
from pathlib import Path
from typing import Any

from mmif.metrics import REPORTED

PAGE = """\
# Weights for {task}

{architecture}, {parameters:,} parameters, trained on {count} pairs in {seconds:.0f} seconds
({device}) by

    {command}

at commit `{commit}`{averaged}; research use only. `card.json` holds the data and the split by
case, the recipe, the figures below, limits and licences, and the sha256 that is verified at every
load (`mmif weights verify`).

Held-out cases (pairs): {held}. Mean of {pairs} of their pairs, the baselines on the same pairs:

{table}

Mean rank among these four rows over the eight metrics: {rank:.3f}.

Limits:

{limits}

Licence: code and weights {code}. Data: {data}.
"""


def page(card: dict[str, Any]) -> str:
    """The page of one card, as Markdown."""
    found, cases = card["validation"], card["data"]["cases"]
    rows = {"mmif": found["ours"], **found["baselines"]}
    lines = [f"| | {' | '.join(REPORTED)} |", "|---" * (len(REPORTED) + 1) + "|"]
    for name, means in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{means[n]:.3f}" for n in REPORTED) + " |")
    return PAGE.format(
        **{key: card[key] for key in ("task", "architecture", "parameters", "seconds", "device")},
        command=card["command"],
        commit=card["commit"][:12],
        averaged=", averaged with what it began from (`averaged` in the card)"
        if "averaged" in card
        else "",
        count=sum(cases["training"].values()),
        held=", ".join(f"{case} ({pairs})" for case, pairs in cases["validation"].items()),
        pairs=found["pairs"],
        table="\n".join(lines),
        rank=found["mean_rank_among_baselines"],
        limits="\n".join(f"- {limit}" for limit in card["limits"]),
        code=card["licence"]["code_and_weights"],
        data=card["licence"]["data"],
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "weights")
    for path in sorted(folder.glob("*/card.json")):
        (path.parent / "README.md").write_text(page(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
