"""``python -m mmif``."""

from mmif.cli import run

run()
