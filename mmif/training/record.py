"""The record of a training: CSV files, and TensorBoard where it is installed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmif.training.validation import OURS, Validation

LOSSES = "losses.csv"
VALIDATION = "validation.csv"


class Record:
    """Appends to ``losses.csv`` and ``validation.csv``; rows beyond ``step`` are dropped first."""

    def __init__(self, output: Path, step: int) -> None:
        self.losses, self.validations = output / LOSSES, output / VALIDATION
        for path in (self.losses, self.validations):
            _cut(path, step)
        self.board = _board(output, step)

    def step(self, step: int, learning_rate: float, losses: Mapping[str, float]) -> None:
        """One row of losses."""
        _append(
            self.losses, ["step", "learning_rate", *losses], [step, learning_rate, *losses.values()]
        )
        if self.board is not None:
            for name, value in losses.items():
                self.board.add_scalar(f"loss/{name}", value, step)

    def validation(self, step: int, found: Validation) -> None:
        """One row for the network and one for each baseline."""
        header = ["step", "method", "mean_rank", "margin", *found.means]
        ours = [step, OURS, found.mean_rank, round(found.margin, 4), *found.means.values()]
        _append(self.validations, header, ours)
        for name, means in found.baselines.items():
            _append(self.validations, header, [step, name, "", "", *means.values()])
        if self.board is not None:
            for name, value in {"mean_rank": found.mean_rank, **found.means}.items():
                self.board.add_scalar(f"validation/{name}", value, step)


def _board(output: Path, step: int) -> Any:
    """A TensorBoard writer, or None where the optional package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)


def _append(path: Path, header: Sequence[str], row: Sequence[object]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(header)
        writer.writerow(row)


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if int(row.partition(",")[0]) <= step]
    path.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
