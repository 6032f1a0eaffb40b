"""DICOM files from elements that are encoded once and used in many files.

A derived slice may refer to hundreds of source images. Writing each reference anew for each slice
would take most of the time, so elements and sequence items are kept as bytes (explicit VR, little
endian; PS3.5 7.1.2 and 7.5).
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from mmif.io.dicom.read.headers import quiet
from mmif.io.dicom.write.derived import mmif_version
from mmif.io.nifti.writer import disk_errors

IMPLEMENTATION_UID = UID("1.2.826.0.1.3680043.8.498.4609140207")
Elements = Mapping[int, bytes]


def encode(ds: Dataset) -> dict[int, bytes]:
    """The elements of ``ds`` by tag, each as bytes; text is UTF-8 (ISO_IR 192)."""
    with quiet:  # a source's own odd values, carried on purpose
        return {int(element.tag): _bytes(element) for element in ds}


def item(elements: Elements) -> bytes:
    """One item of a sequence with encoded ``elements``."""
    content = b"".join(value for _, value in sorted(elements.items()))
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """The sequence element ``tag`` with encoded ``items``."""
    content = b"".join(items)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(content)) + content


def _bytes(element: DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ["utf8"])
    return buffer.getvalue()


def write_elements(elements: Elements, path: Path, syntax: UID = ExplicitVRLittleEndian) -> None:
    """The DICOM file ``path`` with encoded ``elements``.

    Args:
        elements: by tag.
        path: the file.
        syntax: that of the pixels; an explicit little endian one.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _uid(elements, "SOPClassUID")
    meta.MediaStorageSOPInstanceUID = _uid(elements, "SOPInstanceUID")
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"MMIF {mmif_version()}"[:16]
    write_file_meta_info(buffer, meta)
    with disk_errors(path), path.open("wb") as file:
        file.writelines((b"\0" * 128, b"DICM", buffer.getvalue()))
        file.writelines(value for _, value in sorted(elements.items()))


def _uid(elements: Elements, keyword: str) -> UID:
    """The value of an encoded UI element: 8 bytes of tag, VR and length stand before it."""
    return UID(elements[int(Tag(keyword))][8:].rstrip(b"\0").decode("ascii"))
