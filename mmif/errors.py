"""The errors that mmif raises on purpose.

    MmifError
     ├── InputError          a file or folder that is missing, unreadable, unsupported or ambiguous
     ├── GeometryError       positions, orientations or spacings that do not describe one volume
     ├── RegistrationError   two volumes that cannot be brought into one frame, or not reliably
     ├── ConfigError         a pipeline file or option that says something unknown
     ├── WeightsError        weights that are missing, altered, or of another network or task
     ├── TrainingError       training that cannot start or cannot go on
     └── OutputError         an output that exists already or cannot be written

Each message is one line: what was found, what was expected, and where.
The command line prints it behind ``Error:`` and exits with code 1.
"""

import re


class MmifError(Exception):
    """Something mmif refuses, said in one line."""


class InputError(MmifError):
    """A file or folder is missing, unreadable, unsupported or ambiguous."""


class GeometryError(MmifError):
    """Positions, orientations or spacings do not describe one volume."""


class RegistrationError(MmifError):
    """Two volumes cannot be brought into one frame, or not reliably."""


class ConfigError(MmifError):
    """A pipeline file or an option says something unknown or impossible."""


class WeightsError(MmifError):
    """Weights are missing, altered, or belong to another network or task."""


class TrainingError(MmifError):
    """Training cannot start or cannot go on."""


class OutputError(MmifError):
    """An output exists already or cannot be written."""


def printable(line: str) -> str:
    """``line`` without what steers a terminal or cannot be shown: file names are others' input."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def on_one_line(text: str) -> str:
    """``text`` on one line, `printable`.

    >>> on_one_line("two\\nlines \\x1b[31m")
    'two lines �[31m'
    """
    return printable(" ".join(text.split()))


def quote(text: str) -> str:
    """``text`` of a file, marked as such within a message: ‘head 2 mm’.

    What stands between the marks never holds one, so that `without_quotes` finds all of it, and is
    one line.

    >>> quote("O’Neil"), without_quotes("series " + quote("O’Neil") + ", 12 slices")
    ("‘O'Neil’", 'series ‘...’, 12 slices')
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return "‘" + line.translate({ord("‘"): "'", ord("’"): "'"}) + "’"


def without_quotes(message: str) -> str:
    """``message`` without what `quote` has marked, which can name a patient."""
    return re.sub("‘[^’]*(’|$)", "‘...’", message)
