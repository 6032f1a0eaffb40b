"""DICOM series with one text in every field that takes text, as an attacker would send them."""

import warnings
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.datadict import DicomDictionary
from pydicom.uid import UID, ExplicitVRLittleEndian

STORAGE = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
ROOT = "1.2.826.0.1.77"
LONG, SHORT = ("LO", "LT", "PN", "ST", "UC", "UR", "UT"), ("AE", "CS", "SH")
KEYWORDS = {
    keyword: vr
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items()
    if vr in (*LONG, *SHORT) and keyword and not retired and tag > 0x00080000
}
"""The text fields of the standard, and how each is represented."""

READ = ("PhotometricInterpretation", "LossyImageCompression", "SUVType", "SpecificCharacterSet")
"""Those without which there is no image."""


def write_hostile_series(
    folder: Path, modality: str, voxels: np.ndarray, spacing_mm: float, long: str, short: str
) -> Path:
    """(X, Y, Z) voxels as one file a slice; ``short`` (16 characters) where no more fit."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # texts that break their representation are wanted
        for k in range(voxels.shape[2]):
            ds = hostile_header(modality, k, long, short)
            ds.Rows, ds.Columns = voxels.shape[1::-1]
            ds.PixelSpacing = [spacing_mm, spacing_mm]
            ds.PixelData = voxels[:, :, k].T.astype("<i2").tobytes()
            ds.save_as(folder / f"{k:03d}", enforce_file_format=True)
    return folder


def hostile_header(modality: str, k: int, long: str, short: str) -> Dataset:
    """The header of slice ``k``, without its size."""
    ds = Dataset()
    for keyword, vr in KEYWORDS.items():
        if keyword not in READ:
            setattr(ds, keyword, long if vr in LONG else short)
    series = f"{ROOT}.3.{list(STORAGE).index(modality)}"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(STORAGE[modality]), f"{series}.{k + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.1", series
    ds.FrameOfReferenceUID = f"{ROOT}.2"
    ds.Modality, ds.PhotometricInterpretation = modality, "MONOCHROME2"
    ds.PatientBirthDate, ds.StudyDate = "19600214", "20240305"
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 16, 16, 15
    ds.PixelRepresentation, ds.SliceThickness = 1, 4.0
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-100, -100, 4.0 * k]
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
