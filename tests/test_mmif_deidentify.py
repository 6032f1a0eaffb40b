"""Whatever a header, a folder or a file name says of a person: nothing that comes out holds it.

Series with an identity in every attribute that takes one (texts, names, dates, times, UIDs, bytes,
private elements, nested sequences, sequences stored as text) go through the commands; every byte
of the outputs, unpacked, and of what is said is searched for it.
"""

import base64
import gzip
import html
import json
import re
import subprocess
import sys
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.uid import UID

from mmif.cli import main
from mmif.io.dicom.read.headers import quiet
from mmif.io.dicom.write.elements import encode, write_elements
from mmif.io.dicom.write.header import keywords

STORAGE = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
ROWS, SLICES, MM = 48, 8, 4.0
NEEDED = keywords(
    "SpecificCharacterSet PhotometricInterpretation SOPClassUID Modality ConcatenationUID "
    "LossyImageCompression ImageType FrameType ComplexImageComponent StackID Units DecayCorrection "
    "ModalityLUTSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence "
    "ConvolutionKernel PixelPaddingValue RescaleType SUVType CorrectedImage"
)
"""Attributes without whose right value there is no image of one volume."""
TEXTS_AS_SEQUENCES = keywords(
    "ReferencedImageSequence RequestAttributesSequence RadiopharmaceuticalInformationSequence "
    "PatientOrientationCodeSequence ProcedureCodeSequence"
)
LONG, SHORT = ("LO", "LT", "ST", "UC", "UT"), ("AE", "CS", "SH", "UR")


@dataclass(frozen=True)
class Identity:
    """One person and visit; each part is long enough that it comes about by chance nowhere."""

    family: str
    given: str
    ideographic: str
    phonetic: str
    number: str
    day: str
    time: str

    @property
    def name(self) -> str:
        """PatientName with its three groups."""
        groups = (f"{self.family}^{self.given}", self.ideographic, self.phonetic)
        return "=".join(groups)

    @property
    def uid(self) -> str:
        """The root of every UID of the visit."""
        return f"1.2.826.0.1.77.{int(self.number)}"

    def value(self, vr: str, keyword: str) -> object:
        """An identity that an attribute of this kind can hold; None where it can hold none."""
        texts = {
            "PN": self.name,
            "DA": self.day,
            "TM": self.time,
            "DT": self.day + self.time,
            "UI": f"{self.uid}.{zlib.crc32(keyword.encode())}",
            "OB": f"{self.family} {self.number}".encode(),
            "UN": f"{self.given} {self.number}".encode(),
        }
        if vr in LONG:
            return f"head {self.given}'s 2 mm, {self.family} {self.number}"[:64]
        if vr in SHORT:  # of CS and AE in ASCII
            return "".join(letter for letter in self.family.upper() if letter.isascii())[:16]
        return texts.get(vr)

    def secrets(self) -> list[bytes]:
        """What must not come out, as bytes in the encodings that it may have."""
        whole = [self.family, self.given, *self.ideographic.split("^"), *self.phonetic.split("^")]
        parts = [p for word in whole for p in re.split(r"['’ -]", word) if len(p) > 6]
        days = [self.day, f"{self.day[:4]}-{self.day[4:6]}-{self.day[6:]}"]
        forms = {*whole, *parts, self.number, self.uid, self.time[:9], *days}
        forms |= {html.escape(text) for text in forms} | {json.dumps(text)[1:-1] for text in forms}
        forms |= {urllib.parse.quote(text) for text in forms}
        coded = {text.encode(code, "ignore") for text in forms for code in ("utf-8", "latin-1")}
        return sorted({text.lower() for text in coded if len(text) > 3})


LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéèñçøåß"


def identity(seed: int) -> Identity:
    """Names with apostrophes, hyphens, spaces and diacritics; three groups; digits of a visit."""
    draw = Random(seed)

    def word(letters: str, length: int) -> str:
        return "".join(draw.choices(letters, k=length)).capitalize()

    kanji, kana = "山田太郎鈴木佐藤高橋", "やまだたろうすずきさとう"
    return Identity(
        family=draw.choice(["O'", "d’", "van ", "al-", "Mc", ""]) + word(LETTERS, 8),
        given=word(LETTERS, 7),
        ideographic=f"{word(kanji, 4)}^{word(kanji, 4)}",
        phonetic=f"{word(kana, 5)}^{word(kana, 5)}",
        number=str(draw.randrange(10_000_000, 100_000_000)),
        day=(date(1930, 1, 1) + timedelta(draw.randrange(30_000))).strftime("%Y%m%d"),
        time=f"{draw.randrange(10, 24)}{draw.randrange(10, 60)}{draw.randrange(10, 60)}."
        f"{draw.randrange(1000, 10_000)}",
    )


def header(who: Identity, modality: str) -> Dataset:
    """The identity in every attribute of the standard that can hold it."""
    ds, inside = Dataset(), Sequence([_nested(who, 1)])
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        vr = vr.split(" or ")[0]
        if not 0x00080000 < tag < 0x7F000000 or keyword in NEEDED or retired:
            continue
        value = inside if vr == "SQ" else who.value(vr, keyword)
        if value is not None:
            ds.add(DataElement(tag, vr, value))
    for keyword in TEXTS_AS_SEQUENCES if modality == "MR" else ():
        ds.add(DataElement(tag_for_keyword(keyword), "LO", who.value("LO", keyword)))
    block = ds.private_block(0x0009, f"{who.family} PRIVATE"[:64], create=True)
    block.add_new(1, "PN", who.name)
    block.add_new(2, "UN", f"{who.given} {who.number}".encode())
    block.add_new(3, "SQ", Sequence([_nested(who, 3)]))
    series = f"{who.uid}.{list(STORAGE).index(modality) + 2}"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = UID(STORAGE[modality])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{who.uid}.1", series
    ds.FrameOfReferenceUID, ds.PatientID = f"{who.uid}.9", who.number
    ds.Modality, ds.PhotometricInterpretation = modality, "MONOCHROME2"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 16, 16, 15
    ds.PixelRepresentation, ds.SliceThickness = 1, MM
    ds.Rows = ds.Columns = ROWS
    ds.PixelSpacing = [MM, MM]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.RescaleSlope, ds.RescaleIntercept, ds.Units = 1, 0, "BQML"
    ds.DecayCorrection, ds.CorrectedImage = "START", ["ATTN", "DECY"]
    return ds


def _nested(who: Identity, depth: int) -> Dataset:
    ds = Dataset()
    for keyword in ("PatientName", "CodeMeaning", "StudyDate", "StudyTime", "StudyInstanceUID"):
        vr = DicomDictionary[tag_for_keyword(keyword)][0]
        ds.add(DataElement(tag_for_keyword(keyword), vr, who.value(vr, keyword)))
    ds.CodeValue, ds.CodingSchemeDesignator = who.number, "99" + who.family.upper()[:8]
    if depth:
        ds.ReferencedImageSequence = Sequence([_nested(who, depth - 1)])
    return ds


def head(modality: str) -> np.ndarray:
    """(X, Y, Z) values of one drawn head."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (ROWS, ROWS, SLICES)), indexing="ij")
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.6) ** 2)
    ripple = np.sin(7 * x) * np.cos(9 * y)
    inside, bone = radius < 1, (radius > 0.85) & (radius < 1)
    if modality == "CT":
        return np.where(bone, 900, np.where(inside, 35 + 5 * ripple, -1000))
    return np.where(inside & ~bone, 400 + 150 * ripple, 0)


def write_series(folder: Path, who: Identity, modality: str, **attributes: object) -> Path:
    """One file a slice, named after the person."""
    folder.mkdir(parents=True)
    voxels = head(modality) * (2 if modality == "PT" else 1)  # no copy of the MR
    with quiet:  # values that break their representation are wanted
        ds = header(who, modality)
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        shared = encode(ds)
        for k in range(SLICES):
            own = Dataset()
            own.SOPInstanceUID = f"{ds.SeriesInstanceUID or who.uid}.{k + 1}"
            own.ImagePositionPatient = [-ROWS * MM / 2, -ROWS * MM / 2, MM * k]
            own.add_new(0x7FE00010, "OW", voxels[:, :, k].T.astype("<i2").tobytes())
            write_elements({**shared, **encode(own)}, folder / f"{who.given} {k:03d}.dcm")
    return folder


def write_nifti(folder: Path, who: Identity) -> Path:
    folder.mkdir(parents=True)
    affine = np.diag([-MM, -MM, MM, 1.0])
    affine[:3, 3] = [ROWS * MM / 2, ROWS * MM / 2, 0]
    image = nibabel.Nifti1Image(head("MR").astype(np.float32), affine)
    image.header["descrip"] = who.family.encode()[:79]
    image.header["intent_name"] = who.number.encode()
    nibabel.save(image, folder / f"{who.given} {who.day}.nii.gz")
    return folder


def unpack(data: bytes, depth: int = 3) -> Iterator[bytes]:
    """``data`` and whatever is packed in it: gzip, zlib (PNG, packed volumes), base64."""
    yield data
    if not depth:
        return
    if data[:2] == b"\x1f\x8b":
        yield from unpack(gzip.decompress(data), depth - 1)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        for kind in (b"IDAT", b"zTXt", b"iTXt"):
            for at in (found.end() for found in re.finditer(kind, data)):
                inflate = zlib.decompressobj()
                try:
                    yield inflate.decompress(data[at:])
                except zlib.error:
                    continue
    for found in re.finditer(rb"[A-Za-z0-9+/]{40,}={0,2}", data):
        text = found.group()
        yield from unpack(base64.b64decode(text[: len(text) // 4 * 4]), depth - 1)


def leaks(who: Identity, out: Path, *said: str) -> list[str]:
    """Where something of ``who`` stands: a name of a file, its bytes, or what was said."""
    pieces = [("said", text.encode()) for text in said]
    for path in [out] if out.is_file() else out.rglob("*"):
        name = str(path.relative_to(out.parent))
        pieces.append((f"name {name!r}", name.encode()))
        pieces += [(name, piece) for piece in unpack(path.read_bytes() if path.is_file() else b"")]
    lowered = ((name, piece.lower()) for name, piece in pieces)
    return [f"{name}: {s!r}" for name, piece in lowered for s in who.secrets() if s in piece]


def run(*words: object) -> str:
    """Runs a command in this process; what it said."""
    result = CliRunner().invoke(main, ["-v", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def fuse(out: Path, *words: object) -> str:
    said = run("fuse", *words, "-o", out, "--deidentify", "--format", "both", "--no-register")
    assert (out / "fused.nii.gz").exists(), said
    return said


@settings(max_examples=3, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32), moving=st.sampled_from(["CT", "PT"]))
def test_nothing_of_an_identity_comes_out_of_fuse(
    tmp_path_factory: pytest.TempPathFactory, seed: int, moving: str
) -> None:
    who = identity(seed)
    tmp = tmp_path_factory.mktemp("study")
    place = tmp / f"{who.family} {who.given} {who.number}"
    option = {"CT": "--ct", "PT": "--pet"}[moving]
    first = write_series(place / "a", who, moving)
    second = write_series(place / f"mri {who.day}", who, "MR")
    said = fuse(tmp / "out", option, first, "--mri", second, "--save-registered", "--preview",
                tmp / "out.png")  # fmt: skip
    assert leaks(who, tmp / "out", said) == []
    assert leaks(who, tmp / "out.png") == []
    for path in (tmp / "out").rglob("*.dcm"):
        assert not [e.keyword for e in dcmread(path).iterall() if e.VR == "AS" and e.value]


WHO = Identity(
    "O'Quarrington", "Zébulon", "山田郎太^太郎鈴木", "やまだろう^たろうすず", "47114711",
    "19600214", "112233.4455",
)  # fmt: skip


def test_the_search_finds_what_is_not_removed(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", WHO, "CT")
    second = write_series(tmp_path / "b", WHO, "MR")
    out = tmp_path / "out"
    run("fuse", "--ct", first, "--mri", second, "-o", out, "--format", "both", "--no-register")
    found = " ".join(leaks(WHO, out))
    for word in ("quarrington", "47114711", "19600214", "1.2.826", "112233"):
        assert word in found


def test_nothing_of_a_folder_or_an_archive_comes_out(tmp_path: Path) -> None:
    """A NIfTI in a folder of the person's name, and a zip whose members are called so."""
    place = tmp_path / f"{WHO.family} {WHO.given}"
    volume = write_nifti(place / "mri", WHO)
    series = write_series(place / "ct", WHO, "CT", SeriesInstanceUID="")
    with zipfile.ZipFile(place / f"{WHO.number}.zip", "w") as archive:
        for path in series.iterdir():
            archive.write(path, f"{WHO.family} {WHO.given}/{WHO.day} x/{path.name}")
    said = fuse(tmp_path / "out", "--ct", place / f"{WHO.number}.zip", "--mri", volume)
    assert leaks(WHO, tmp_path / "out", said) == []


def test_nothing_of_the_volumes_of_one_series_comes_out(tmp_path: Path) -> None:
    """Two time points of one series are told apart by their times, and one is named."""
    series = write_series(tmp_path / WHO.family / "pet", WHO, "PT")
    again = write_series(tmp_path / "again", WHO, "PT", AcquisitionTime="112533.4455")
    for k, path in enumerate(sorted(again.iterdir())):
        ds = dcmread(path)
        ds.SOPInstanceUID = f"{WHO.uid}.77.{k}"
        ds.save_as(series / f"later {k}.dcm")
    second = write_series(tmp_path / WHO.given / "b", WHO, "MR")
    said = fuse(tmp_path / "out", "--pet", series, "--mri", second, "--frame", "pet=1")
    assert leaks(WHO, tmp_path / "out", said) == []
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert any("frame 1 (" in warning for warning in summary["warnings"])


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("fault", ["missing", "two series", "two patients", "damaged"])
def test_a_refusal_names_nobody(tmp_path: Path, fault: str, dry: tuple[str, ...]) -> None:
    place = tmp_path / f"{WHO.family} {WHO.given}"
    ct, mri = place / f"ct {WHO.day}", place / "mri"
    write_series(mri, WHO, "MR", **({"PatientID": "another"} if fault == "two patients" else {}))
    if fault != "missing":
        write_series(ct, WHO, "CT")
    if fault == "two series":
        write_series(ct / "again", WHO, "CT", SeriesInstanceUID=f"{WHO.uid}.88")
    if fault == "damaged":
        for path in list(ct.iterdir())[:5]:
            path.write_bytes(path.read_bytes()[:-1000])
    said = run("fuse", "--ct", ct, "--mri", mri, "-o", tmp_path / "out", "--deidentify", *dry)
    assert said.startswith("Error: ")
    assert leaks(WHO, tmp_path / "out", said) == []


def test_nothing_of_an_identity_comes_out_of_a_batch(tmp_path: Path) -> None:
    """Done, failed and rejected studies, named after a person; the key alone tells who they are."""
    studies, out, key = tmp_path / "studies", tmp_path / "out", tmp_path / "key.csv"
    done = studies / f"{WHO.family} {WHO.given}"
    failed = studies / f"{WHO.number} {WHO.day}"
    for study in (done, failed):
        write_series(study / "ct", WHO, "CT")
        write_series(study / "mri", WHO, "MR")
    for path in list((failed / "ct").iterdir()):
        path.write_bytes(path.read_bytes()[:-1000])
    write_series(studies / WHO.given / "ct", WHO, "CT")
    command = [sys.executable, "-m", "mmif", "-v", "batch", studies, "-o", out, "--deidentify"]
    shared = ["--jobs", "1", "--key", key, "--no-register", "--format", "both"]
    result = subprocess.run([*map(str, command), *map(str, shared)], capture_output=True, text=True)
    assert result.returncode == 3, result.stderr
    assert leaks(WHO, out, result.stdout, result.stderr) == []
    assert len(list(out.glob("studies/*/*/summary.json"))) == 1
    assert WHO.given in key.read_text(encoding="utf-8")
    planned = run("batch", studies, "-o", out, "--deidentify", "--dry-run", "--no-register",
                  "--format", "both")  # fmt: skip
    assert "done already" in planned
    assert leaks(WHO, out, planned) == []


@pytest.mark.parametrize("fault", ["", "missing", "two patients", "damaged"])
def test_nothing_of_an_identity_comes_out_of_register(tmp_path: Path, fault: str) -> None:
    """Paths and file names are of the person; a series of a gzipped NIfTI as well."""
    place = tmp_path / f"{WHO.family} {WHO.given}"
    first = write_series(place / "a", WHO, "CT")
    another = {"PatientID": "another"} if fault == "two patients" else {}
    second = write_series(place / f"mri {WHO.day}", WHO, "MR", **another)
    if fault == "damaged":
        for path in list(first.iterdir())[:5]:
            path.write_bytes(path.read_bytes()[:-1000])
    out = tmp_path / "out"
    out.mkdir()
    moving = first / "missing" if fault == "missing" else first
    said = run("register", "--fixed", second, "--moving", moving, "-o", out / "t.tfm",
               "--accept-registration", "--deidentify")  # fmt: skip
    assert (out / "t.tfm").exists() == (fault == ""), said
    assert said.startswith("Error: ") == (fault != "")
    assert leaks(WHO, out, said) == []
