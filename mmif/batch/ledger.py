"""The append-only record of what happened to every job.

A ledger is a file of JSON lines. The first line holds the parameters that decide the results; each
further line is a change of state of one job: ``planned``, ``started``, then ``done``, ``failed`` or
``died`` (its worker ended before it did; it is tried again). Each line is flushed to the disk
before the work goes on. Runs of shards write a ledger each; reading merges all ledgers of an OUT. A
line torn by a kill or a full disk is skipped: what it would have said is simply not known, and done
again.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from mmif.batch.locks import Claims
from mmif.errors import ConfigError, InputError
from mmif.io.atomic import sync

# Of the layout of a ledger's lines; counts up when they change
VERSION = 1
TRIES = ("started", "died")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass
class Entry:
    """What the ledgers say of one job.

    Attributes:
        state: ``planned``, ``started``, ``done``, ``failed``, ``died`` or ``withdrawn``.
        line: the last line, whole.
        ledger: the name of the file it stands in.
        tries: (run, "started" or "died") to how often that was said since the job's last end.
    """

    state: str
    line: Mapping[str, Any]
    ledger: str
    tries: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def reason(self) -> str:
        """Why it is not done; "" if it is."""
        return str(self.line.get("reason", ""))


class Ledger:
    """All ledgers of one OUT for reading, one of them for writing."""

    def __init__(
        self,
        out: Path,
        claims: Claims,
        name: str = "ledger.jsonl",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the record of ``out``; nothing is read or written yet."""
        self.out = out
        self.path = out / name
        self.entries: dict[str, Entry] = {}
        self.headers: dict[str, Mapping[str, Any]] = {}
        self.torn = 0
        self.claims = claims
        self._clock = clock
        self._offsets: dict[str, int] = {}
        self._latest = 0.0

    def now(self) -> float:
        """Seconds of the epoch, never before a line that was read: a clock may be set back."""
        return max(round(self._clock(), 3), self._latest)

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Read what there is and start a ledger of ``parameters`` if there is none.

        Raises:
            ConfigError: a ledger of this OUT was written with other parameters.
        """
        self.check(parameters)
        if self.path.name not in self.headers:
            self.extend([{"ledger": VERSION, "parameters": dict(parameters)}])
            self.refresh()

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Read what there is.

        Raises:
            ConfigError: a ledger of this OUT was written with other parameters.
        """
        self.refresh()
        for name, header in self.headers.items():
            refuse_other(self.out / name, header.get("parameters", {}), parameters)

    def refresh(self) -> None:
        """Take in the lines that were added to any ledger since the last look."""
        for path in ledgers_of(self.out):
            for line in self._new_lines(path):
                self._take(path.name, line)

    def is_done(self, job_id: str, stamp: str, content: Callable[[], str]) -> bool:
        """Whether the job was done on the same input.

        Args:
            job_id: the job.
            stamp: fingerprint of its files by size and time; equal is enough.
            content: fingerprint by the bytes, asked only if the stamp differs.
        """
        entry = self.entries.get(job_id)
        if entry is None or entry.state != "done":
            return False
        return entry.line.get("stamp") == stamp or entry.line.get("content") == content()

    def tries(self, job_id: str, run: str) -> int:
        """How often ``run`` has tried the job since the job last came to an end."""
        entry = self.entries.get(job_id)
        return max(entry.tries[run, state] for state in TRIES) if entry else 0

    def append(self, job_id: str, state: str, **fields: Any) -> None:
        """Add one line, on the disk when this returns.

        Raises:
            OSError: it cannot be written (a full disk).
        """
        self.extend([{"job": job_id, "state": state, **fields}])

    def extend(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add several lines at once, on the disk when this returns.

        Raises:
            OSError: they cannot be written (a full disk).
        """
        if not lines:
            return
        now = self.now()
        text = "".join(json.dumps({**line, "time": now}, allow_nan=False) + "\n" for line in lines)
        with self.claims.write_lock(self.path.name):
            new = not self.path.exists()
            file = os.open(self.path, _FLAGS, 0o666)
            try:
                data = (b"\n" if _is_torn(file) else b"") + text.encode()
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            finally:
                os.close(file)
            if new:
                sync(self.out)

    def _new_lines(self, path: Path) -> Iterator[Mapping[str, Any]]:
        """The complete lines behind the place reached so far."""
        offset = self._offsets.get(path.name, 0)
        try:
            if path.stat().st_size <= offset:
                return
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[path.name] = offset + len(whole)
        for text in whole.splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if _is_line(line):
                yield line
            elif text.strip():
                self.torn += 1

    def _take(self, name: str, line: Mapping[str, Any]) -> None:
        if "ledger" in line:
            self.headers[name] = line
            return
        self._latest = max(self._latest, float(line["time"]))
        job_id, state = str(line.get("job", "")), str(line.get("state", ""))
        old = self.entries.get(job_id)
        if state == "planned" and old and old.state != "withdrawn":
            return  # another run has come further with it
        tries = old.tries if old else Counter()
        if state in TRIES:
            tries[str(line.get("run", "")), state] += 1
        else:
            tries = Counter()
        # Within one ledger the order of its lines counts, not the clock of who wrote them.
        if old and old.ledger != name and old.line["time"] > line["time"]:
            return
        self.entries[job_id] = Entry(state, line, name, tries)


def ledgers_of(out: Path) -> list[Path]:
    """The ledgers that lie in ``out``."""
    return sorted(out.glob("ledger*.jsonl"))


def refuse_other(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to mix results of two sets of parameters in one OUT.

    Raises:
        ConfigError: names the parameters that differ.
    """
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if keys:
        pairs = ", ".join(f"{k} {_short(old.get(k))} now {_short(new.get(k))}" for k in keys)
        raise ConfigError(
            f"{path}: written with other parameters ({pairs}); expected the same, "
            "or --restart to move the old ledger and its results aside and begin anew"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _is_line(line: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is a line as `Ledger.extend` writes them; any other is as good as torn."""
    if not isinstance(line, dict):
        return False
    if "ledger" in line:
        return isinstance(line.get("parameters"), dict)
    time_s, row, job = line.get("time"), line.get("row", {}), line.get("job")
    return (
        isinstance(job, str)
        and is_safe(job)
        and isinstance(line.get("state"), str)
        and isinstance(time_s, int | float)
        and math.isfinite(time_s)
        and isinstance(row, dict)
        and isinstance(row.get("metrics") or {}, dict)
        and isinstance(line.get("files", {}), dict)
    )


def is_safe(job_id: str) -> bool:
    """Whether a job's id stays inside of ``OUT/studies``: a tampered ledger leads nowhere else."""
    return not job_id.startswith("/") and not {"", ".", ".."} & set(job_id.split("/"))


def _is_torn(file: int) -> bool:
    """Whether the file ends in the middle of a line."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
