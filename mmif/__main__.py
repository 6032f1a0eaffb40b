"""``python -m mmif``."""

from mmif.cli import main

main(prog_name="mmif")
