"""Whether the results of two batches are the same: NIfTI by bytes, DICOM by UIDs and pixels."""

from pathlib import Path

import pydicom


def differences(out: Path, reference: Path) -> tuple[int, int, int]:
    """Files of ``reference`` that ``out`` lacks, those that are not equal, and all there are."""
    files = [p.relative_to(reference) for p in (reference / "studies").rglob("*") if p.is_file()]
    missing = [name for name in files if not (out / name).is_file()]
    unequal = [n for n in files if n not in missing and not same(out / n, reference / n)]
    return len(missing), len(unequal), len(files)


def half_outputs(out: Path, reference: Path) -> int:
    """Outputs in ``out`` that are there, but not whole or not those of ``reference``."""
    there = [path.relative_to(out) for path in out.glob("studies/*/*-mri")]
    return sum(not same_folder(out / name, reference / name) for name in there)


def same_folder(one: Path, two: Path) -> bool:
    """Whether two outputs hold the same files, all of them equal."""
    names = sorted(path.relative_to(two) for path in two.rglob("*"))
    return names == sorted(path.relative_to(one) for path in one.rglob("*")) and all(
        same(one / name, two / name) for name in names
    )


def same(one: Path, two: Path) -> bool:
    """Whether two files say the same; times and paths stand in the summaries, so not those."""
    if one.suffix in (".gz", ".tfm"):
        return one.read_bytes() == two.read_bytes()
    if one.suffix != ".dcm":
        return one.is_dir() == two.is_dir()
    first, second = pydicom.dcmread(one), pydicom.dcmread(two)
    uids = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    return first.get("PixelData") == second.get("PixelData") and all(
        first.get(uid) == second.get(uid) for uid in uids
    )
