"""Small files that unfold: refused within 1 GB and 10 s, whatever they claim."""

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

MIB = 1 << 20
ITEM, END = struct.pack("<HHL", 0xFFFE, 0xE000, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
META += "Offset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 1024 1024 1000\n"
META += "ElementType = MET_SHORT\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
NRRD += "sizes: 1024 1024 750\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: gzip\n"
NRRD += "space origin: (0,0,0)\n\n"


def zeros(mib: int, window: int) -> bytes:
    packer = zlib.compressobj(9, wbits=window)
    return b"".join(packer.compress(b"\0" * MIB) for _ in range(mib)) + packer.flush()


def dicom(path: Path, extra: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    """A CT slice with ``extra`` in front of its Modality."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3"
    ds.SeriesInstanceUID, ds.Modality = "1.2.4", "CT"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x0008, 0x0060))
    start = data.index(struct.pack("<HH", 0x0008, 0x0016))
    body = data[start:at] + extra + data[at:]
    if syntax == DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)
        head = path.read_bytes()
        packer = zlib.compressobj(9, wbits=-15)
        packed = packer.compress(body) + packer.flush()
        meta = 144 + int.from_bytes(head[140:144], "little")
        path.write_bytes(head[:meta] + packed)
        return path
    path.write_bytes(data[:start] + body)
    return path


def sequence(content: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHL", 0x0008, 0x0032, b"SQ", 0, length) + content


def empty_items(folder: Path) -> Path:
    return dicom(folder / "a.dcm", sequence(ITEM * (31 * MIB // 8) + END, 0xFFFFFFFF))


def empty_elements_in_an_item(folder: Path) -> Path:
    groups, elements = range(0x51, 0x51 + 2 * 64, 2), range(0x1000, 0xFFF0)
    content = b"".join(struct.pack("<HH2sH", g, e, b"LO", 0) for g in groups for e in elements)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return dicom(folder / "a.dcm", sequence(item + content + END, 0xFFFFFFFF))


def sequences_in_sequences(folder: Path) -> Path:
    begin = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + ITEM[:4] + b"\xff" * 4
    return dicom(folder / "a.dcm", begin * 500_000)


def deflated_items(folder: Path) -> Path:
    extra = sequence(ITEM * (40 * MIB // 8) + END, 0xFFFFFFFF)
    return dicom(folder / "a.dcm", extra, DeflatedExplicitVRLittleEndian)


def deflated_zeros(folder: Path) -> Path:
    extra = struct.pack("<HH2sHL", 0x0008, 0x0040, b"OB", 0, 100 * MIB) + bytes(100 * MIB)
    return dicom(folder / "a.dcm", extra, DeflatedExplicitVRLittleEndian)


def zip_of_zeros(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(150 * MIB))
        data = archive
    return Path(str(data.filename))


def zip_that_lies(folder: Path) -> Path:
    """The directory at its end says 10 bytes of what unpacks to 200 MiB."""
    path = zip_of_zeros(folder)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 150 * MIB), struct.pack("<L", 10)))
    return path


def nifti_header(offset: float = 352) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, 1000))
    header.set_data_dtype(np.float32)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", offset
    return header.binaryblock + bytes(4)


def packed_nifti(folder: Path) -> Path:
    path = folder / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_header()) + zeros(60, 31))
    return path


def nifti_that_begins_late(folder: Path) -> Path:
    path = folder / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_header(float(1 << 33))) + zeros(60, 31))
    return path


def packed_metaimage(folder: Path) -> Path:
    data = zeros(100, 15)
    head = META + f"CompressedData = True\nCompressedDataSize = {len(data)}\n"
    (folder / "a.mha").write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + data)
    return folder / "a.mha"


def metaimage_that_claims(folder: Path) -> Path:
    (folder / "a.mha").write_bytes(f"{META}ElementDataFile = LOCAL\n".encode() + os.urandom(MIB))
    return folder / "a.mha"


def packed_nrrd(folder: Path) -> Path:
    (folder / "a.nrrd").write_bytes(NRRD.encode() + zeros(100, 31))
    return folder / "a.nrrd"


def text_of_a_metaimage(folder: Path) -> Path:
    (folder / "a.mha").write_bytes(META.encode() + b"X = 1\n" * (5 * MIB))
    return folder / "a.mha"


REPORT = """
import json, sys, time
from mmif.errors import MmifError
from mmif.io import load
said = []
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        load(path); text = "read"
    except MmifError as error:
        text = str(error)
    said.append([text, time.process_time() - start])
peak = [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]
print(json.dumps([said, int(peak) / 1024]))
"""
BOMBS: dict[Callable[[Path], Path], str] = {
    empty_items: "items of sequences",
    empty_elements_in_an_item: "elements and",
    sequences_in_sequences: "elements and|nested too deeply",
    deflated_items: "items of sequences|unpack",
    deflated_zeros: "unpack|deflated",
    zip_of_zeros: "claim to unpack",
    zip_that_lies: "not readable as a zip|no DICOM",
    packed_nifti: "claim to unpack",
    nifti_that_begins_late: "claim to unpack",
    packed_metaimage: "claim to unpack",
    metaimage_that_claims: "claim",
    packed_nrrd: "claim to unpack|no volume",
    text_of_a_metaimage: "expected",
}
"""Each, and what is said of it."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says the peak of memory")
def test_bombs_are_refused_within_their_limits(tmp_path: Path) -> None:
    paths = []
    for number, bomb in enumerate(BOMBS):
        (tmp_path / str(number)).mkdir()
        paths.append(str(bomb(tmp_path / str(number))))
    command = [sys.executable, "-c", REPORT, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, peak_mib = json.loads(done.stdout)
    for (bomb, expected), (message, seconds) in zip(BOMBS.items(), said, strict=True):
        assert re.search(expected, message), f"{bomb.__name__}: {message}"
        assert seconds < 10, f"{bomb.__name__}: {seconds} s"
    assert peak_mib < 1000
