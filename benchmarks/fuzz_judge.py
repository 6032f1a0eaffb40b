"""What a damaged file says otherwise than the untouched one, for `fuzz_reader.py`."""

import gzip
import io
from collections.abc import Iterator

import pydicom

PIXELS = "PixelData"
SHAPING = frozenset(
    {
        *("BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"),
        *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"),
        *("PixelPaddingRangeLimit", "Rows", "Columns", "NumberOfFrames", "TransferSyntaxUID"),
        *("Modality", "SOPClassUID", "ModalityLUTSequence"),
    }
)
"""What makes values of stored pixels; the other attributes leave them as they are."""
PLACING = frozenset(
    {
        *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
        *("SpacingBetweenSlices", "SliceVector"),
    }
)
SCALING = frozenset({"RescaleSlope", "RescaleIntercept"})
ONE_HEADER = PLACING | SCALING
"""What a multi-frame object says once, in one place: another value contradicts nothing."""

NIFTI_FIELDS = {
    **dict.fromkeys(range(40, 56), "dim"),
    **dict.fromkeys(range(70, 74), "datatype"),
    **dict.fromkeys(range(76, 108), "pixdim"),
    **dict.fromkeys(range(108, 112), "vox_offset"),
    **dict.fromkeys(range(112, 120), "scl_slope, scl_inter"),
    **dict.fromkeys(range(123, 124), "xyzt_units"),
    **dict.fromkeys(range(252, 328), "qform and sform"),
}
NIFTI_2_FIELDS = {
    **dict.fromkeys(range(12, 16), "datatype"),
    **dict.fromkeys(range(16, 80), "dim"),
    **dict.fromkeys(range(104, 168), "pixdim"),
    **dict.fromkeys(range(168, 176), "vox_offset"),
    **dict.fromkeys(range(176, 192), "scl_slope, scl_inter"),
    **dict.fromkeys(range(344, 496), "qform and sform"),
    **dict.fromkeys(range(500, 504), "xyzt_units"),
}
MGH_BYTES = 284
FILE_FIELDS = frozenset(
    {
        *NIFTI_FIELDS.values(),
        *("MGH header", "ElementSpacing", "TransformMatrix", "Offset", "DimSize", "ElementType"),
        *("BinaryData", "BinaryDataByteOrderMSB", "CompressedData", "CompressedDataSize"),
        *("ElementDataFile", "CenterOfRotation", "NDims", "ObjectType", "ElementNumberOfChannels"),
        *("space", "space directions", "space origin", "sizes", "type", "endian", "encoding"),
        *("dimension", "kinds"),
    }
)
"""Fields that decide what is read, of the formats with one header a volume."""


def what_changed(before: bytes, after: bytes, *, alone: bool, same_grid: bool) -> str:
    """An outcome in words: only the pixels, another statement that nothing contradicts, or UNTOLD.

    Args:
        before: the file as it was.
        after: and as it is now.
        alone: whether the file is the only header of its volume.
        same_grid: whether shape and affine are still those of the untouched volume.
    """
    if before[128:132] != b"DICM":
        names = differing_fields(unpacked(before), unpacked(after))
        stated = free = names & FILE_FIELDS
    else:
        names = {name.split("/")[-1] for name in differing_attributes(before, after)}
        stated = names & SHAPING if same_grid else names - {PIXELS}
        stated = stated & (SHAPING | PLACING) if alone else stated
        free = ONE_HEADER if alone else SCALING if b"BQML" in before and same_grid else frozenset()
    if not stated and PIXELS in names and same_grid:
        return "only its own pixels"
    if stated and stated <= free:
        return f"says another {', '.join(sorted(stated))}"
    if not after and not alone:
        return "says another extent: a slice at an end is gone"
    return f"UNTOLD {', '.join(sorted(stated or names)) or 'nothing differs'}"


def differing_attributes(before: bytes, after: bytes) -> set[str]:
    """The attributes that differ, by their path of keywords."""
    try:
        old, new = (
            dict(elements(pydicom.dcmread(io.BytesIO(d), force=True), "")) for d in (before, after)
        )
    except Exception as error:
        return {f"unreadable ({type(error).__name__})"}
    return {
        name.rstrip("0123456789")
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name)
    }


def elements(dataset: pydicom.Dataset, path: str) -> Iterator[tuple[str, object]]:
    """Each element of a data set, at any depth, with its path."""
    for tag in dataset.keys():  # noqa: SIM118 - items() would decode
        keyword = pydicom.datadict.keyword_for_tag(tag) or str(tag)
        raw = dataset.get_item(tag)
        if raw is not None and raw.VR == "SQ":
            for number, item in enumerate(dataset[tag].value):
                yield from elements(item, f"{path}{keyword}/{number}/")
        else:
            yield f"{path}{keyword}", getattr(raw, "value", None)
    meta = getattr(dataset, "file_meta", pydicom.Dataset())
    yield "TransferSyntaxUID", str(meta.get("TransferSyntaxUID", ""))


def unpacked(data: bytes) -> bytes:
    """``data``, out of its gzip where it is packed."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except Exception:
        return b""


def differing_fields(before: bytes, after: bytes) -> set[str]:
    """The fields of a NIfTI, FreeSurfer, MetaImage or NRRD file that differ."""
    for mark, separator in ((b"ObjectType", b"ElementDataFile = LOCAL\n"), (b"NRRD", b"\n\n")):
        if before.startswith(mark):
            old, new = (data.partition(separator) for data in (before, after))
            lines = set(old[0].splitlines()) ^ set(new[0].splitlines())
            names = {line.split(b"=")[0].split(b":")[0].decode("latin-1").strip() for line in lines}
            return names | ({PIXELS} if old[2] != new[2] else set())
    if before[:4] in {b"\x5c\x01\0\0", b"\x1c\x02\0\0"}:
        head = 348 if before[:4] == b"\x5c\x01\0\0" else 540
        changed = [at for at in range(head) if before[at : at + 1] != after[at : at + 1]]
        fields = NIFTI_FIELDS if head == 348 else NIFTI_2_FIELDS
        names = {fields.get(at, "header") for at in changed}
        return names | ({PIXELS} if before[head:] != after[head:] else set())
    if before[:4] == b"\0\0\0\1":
        names = {"MGH header"} if before[:MGH_BYTES] != after[:MGH_BYTES] else set()
        return names | ({PIXELS} if before[MGH_BYTES:] != after[MGH_BYTES:] else set())
    return {PIXELS}
