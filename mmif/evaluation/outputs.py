"""The files of an evaluation, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmif.io.atomic import commit, staging_folder


@contextmanager
def new_folder(output: Path | None) -> Iterator[Path | None]:
    """A folder to fill, which stands at ``output`` after the block; None for no output.

    Raises:
        OutputError: the system refuses.
    """
    if output is None:
        yield None
        return
    with staging_folder(output) as temporary:
        folder = temporary / output.name
        folder.mkdir()
        yield folder
        commit(folder, output)


def write_text(text: str, output: Path) -> None:
    """Write ``text`` to the file ``output``.

    Raises:
        OutputError: the system refuses.
    """
    with staging_folder(output) as temporary:
        finished = temporary / output.name
        finished.write_text(text, encoding="utf-8")
        commit(finished, output)
