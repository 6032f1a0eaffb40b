"""Small valid inputs of every kind that is read, for `fuzz_reader.py`.

A kind is a folder: of one file, of a series with a file a slice, or of a header and its pixels.
"""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "io"))
from dicom_corpus import CT, MR, PT, part, scan, write_enhanced, write_nuclear, write_series

HEAD = part(scan(size=(34, 36), pixel_mm=(5.0, 5.0)), range(6, 22, 2))
AFFINE = np.array([[-4.0, 0, 0, 30], [0, -4.0, 0, 40], [0, 0, 5.0, -20], [0, 0, 0, 1]])
SCANNED = {
    CT: {"KVP": 120, "ConvolutionKernel": "B30f"},
    MR: {"EchoTime": 12.0, "RepetitionTime": 600.0, "FlipAngle": 90.0},
    PT: {"CorrectedImage": ["DECY", "ATTN"], "DecayCorrection": "START"},
}
SYNTAXES = {
    "rle": RLELossless,
    "jls": JPEGLSLossless,
    "j2k": JPEG2000Lossless,
    "implicit": ImplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}


def write_kinds(folder: Path) -> list[Path]:
    """A folder of every kind below ``folder``."""
    for name, sop_class in {"ct": CT, "mr": MR, "pt": PT}.items():
        write_series(folder / name, HEAD, sop_class, SliceThickness=10.0, **SCANNED[sop_class])
    for name in ("rle", "jls", "j2k", "implicit", "big"):
        kind = f"mr_{name}"
        write_series(folder / kind, HEAD, MR, SliceThickness=10.0, **SCANNED[MR])
        rewrite(folder / kind, SYNTAXES[name])
    write_series(folder / "mr_jpeg", HEAD, MR, SliceThickness=10.0, **SCANNED[MR])
    as_jpeg(folder / "mr_jpeg")
    for name, write in {"nm": write_nuclear, "enhanced": write_enhanced}.items():
        write_alone(folder / name, write)
        for syntax in ("rle", "jls", "deflated"):
            write_alone(folder / f"{name}_{syntax}", write)
            rewrite(folder / f"{name}_{syntax}", SYNTAXES[syntax])
    write_others(folder)
    return sorted(path for path in folder.iterdir() if path.is_dir())


def write_alone(folder: Path, write: Callable[..., str]) -> None:
    """One multi-frame object, as scanners fill it in."""
    folder.mkdir()
    write(folder / "image", HEAD)
    ds = pydicom.dcmread(folder / "image")
    if ds.Modality == "NM":
        ds.SliceThickness = 10.0
    else:
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 10.0
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 10.0
    ds.save_as(folder / "image", enforce_file_format=True)


def rewrite(folder: Path, syntax: pydicom.uid.UID) -> None:
    """The files of ``folder`` in another transfer syntax."""
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        if syntax.is_encapsulated:
            ds.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            pixels, meta = ds.pixel_array.astype(">u2").tobytes(), ds.file_meta
            ds = pydicom.Dataset(ds)  # without the byte order that it was read in
            ds.PixelData, ds.file_meta = pixels, meta
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)


def as_jpeg(folder: Path) -> None:
    """The files of ``folder`` as baseline JPEG of 8 bits."""
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        out = io.BytesIO()
        Image.fromarray((ds.pixel_array / 5).astype(np.uint8)).save(out, "JPEG", quality=95)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = encapsulate([out.getvalue()])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.save_as(path, enforce_file_format=True)


def write_others(folder: Path) -> None:
    """NIfTI, MetaImage, NRRD, FreeSurfer and a zip, each in a folder of its own."""
    names = ("nii", "nii2", "pair", "mha", "mha_plain", "mhd", "nrrd", "nrrd_plain", "mgz", "zip")
    for name in names:
        (folder / name).mkdir()
    grey = np.random.default_rng(1).integers(0, 999, (10, 9, 8), dtype=np.int16)
    for name, kind in {"nii/v.nii": nib.Nifti1Image, "nii2/v.nii.gz": nib.Nifti2Image}.items():
        image = kind(grey, AFFINE)
        image.set_qform(AFFINE, 1)
        image.set_sform(AFFINE, 1)
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / name)
    nib.Nifti1Pair(grey, AFFINE).to_filename(folder / "pair" / "v.hdr")
    nib.MGHImage(grey.astype(np.float32), AFFINE).to_filename(folder / "mgz" / "v.mgz")
    image = sitk.GetImageFromArray(grey)
    image.SetSpacing((4.0, 4.0, 5.0))
    image.SetOrigin((-30.0, -40.0, -20.0))
    sitk.WriteImage(image, str(folder / "mha" / "v.mha"), True)
    sitk.WriteImage(image, str(folder / "mha_plain" / "v.mha"), False)
    sitk.WriteImage(image, str(folder / "mhd" / "v.mhd"), False)
    sitk.WriteImage(image, str(folder / "nrrd" / "v.nrrd"), True)
    sitk.WriteImage(image, str(folder / "nrrd_plain" / "v.nrrd"), False)
    with zipfile.ZipFile(folder / "zip" / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (folder / "ct").iterdir():
            archive.write(path, path.name)
