"""Pixels become physical values, however they are stored; hostile ones cost one line."""

import time
from base64 import b85decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_corpus import (
    CT,
    GROUND,
    MR,
    NM,
    PT,
    SC,
    base,
    part,
    save,
    scan,
    write_enhanced,
    write_nuclear,
    write_series,
)
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from mmif.errors import InputError, MmifError
from mmif.io import load
from mmif.io.dicom.read.codestreams import codestream_size

SMALL = part(scan(size=(20, 22), pixel_mm=(8.0, 8.0)), range(10, 16))
LARGER = part(scan(), range(12, 16))  # JPEG 2000 halves five times
TRUTH = np.round(SMALL.slices()).transpose(2, 1, 0)


def resaved(folder: Path, change: Callable[[pydicom.FileDataset], None]) -> None:
    """Every file of ``folder``, changed and written anew."""
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        change(ds)
        path.unlink()
        ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(tmp_path: Path, syntax: UID) -> None:
    write_series(tmp_path, LARGER, CT)
    resaved(tmp_path, lambda ds: ds.compress(syntax, generate_instance_uid=False))
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), np.round(LARGER.slices()).T)


def test_compressed_multi_frame(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "e", SMALL)
    resaved(tmp_path, lambda ds: ds.compress(RLELossless, generate_instance_uid=False))
    assert np.array_equal(load(tmp_path)[0].numpy(), TRUTH)


def swapped(ds: Dataset, k: int) -> None:
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_plain_encodings(tmp_path: Path, syntax: UID) -> None:
    write_series(tmp_path, SMALL, CT)
    resaved(tmp_path, lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", syntax))
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


@pytest.mark.parametrize("named_implicit", [False, True])
def test_a_transfer_syntax_that_is_wrong_about_representations(
    tmp_path: Path, named_implicit: bool
) -> None:
    """Some archives rewrite the data set and leave the meta information, or the reverse."""
    uids = (b"\x14\x001.2.840.10008.1.2.1\0", b"\x12\x001.2.840.10008.1.2\0")
    write_series(tmp_path, SMALL, CT)
    for path in tmp_path.iterdir():
        if not named_implicit:
            ds = pydicom.dcmread(path)
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            ds.save_as(path, implicit_vr=True, little_endian=True)
        content = path.read_bytes()
        path.write_bytes(content.replace(uids[not named_implicit], uids[named_implicit]))
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


def test_big_endian(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT, change=swapped)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


OPENJPH = b85decode(
    b"|4;u>04YEK0000G0000C00000000000000G0000C0000000000009pH0sl|{2mk^A000XAQUDA90ssL30t5s=0sm"
    b"Y83LuD(kdTOoi2q~&7XSfIaAj^vP)HzFWpW@eE;2SQGcNy-015yA0001M00IA#zyK}a|9{{7$Nwk!kN-FPr~eE7Q"
    b"~pK%8~+JEb3y<yw*bHZ6Tko!VDA2-Bf@n6z<~n?{=hMTzP13s04ksW7KkKC{^x+Fr$ToC#zv#jXfzu72ta%GApz{"
    b"V0RPz"
)
"""100 x row + 7 x column of 12 x 16 pixels, as OpenJPH encodes it."""


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_htj2k_is_read(tmp_path: Path, syntax: UID) -> None:
    def packed(ds: Dataset, k: int) -> None:
        ds.PixelData = encapsulate([OPENJPH])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax

    write_series(tmp_path, part(scan(size=(12, 16)), range(3)), MR, change=packed)
    row, column = np.indices((12, 16))
    expected = np.stack([(100 * row + 7 * column).T] * 3, axis=-1)
    assert np.array_equal(load(tmp_path)[0].numpy(), expected)


def test_every_compression_of_one_image_gives_the_same_values(shared_data: Path) -> None:
    """NEMA's set: lossless ones equal the uncompressed one, lossy ones come near."""
    from mmif.io.dicom.read.headers import read_header
    from mmif.io.dicom.read.pixels import frame_reader

    folder = shared_data / "dicom" / "nema_wg04_compressed"
    for image in ("CT1", "CT2", "MR1", "MR3", "MR4", "NM1"):
        plain = None
        for kind in ("UNC", "RLE", "JPLL", "JLSL", "J2KR", "JLSN", "J2KI", "JPLY"):
            path = folder / f"{image}_{kind}"
            if not path.exists():
                continue
            pixels = frame_reader(path, read_header(path), str(path), set())(0).astype(float)
            if plain is None:
                plain = pixels
            error = np.abs(pixels - plain).mean() / max(np.ptp(plain), 1)
            lossless = kind in {"UNC", "RLE", "JPLL", "JLSL", "J2KR"}
            assert error <= (0.0 if lossless else 0.02), f"{image}_{kind}"


def test_slopes_that_differ_per_slice(tmp_path: Path) -> None:
    """PET: each slice has its own slope."""

    def scaled(ds: Dataset, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<u2")
        ds.RescaleSlope = 0.5 * (k + 1)
        ds.PixelData = np.round(stored / (0.5 * (k + 1))).astype("<u2").tobytes()

    write_series(tmp_path, SMALL, PT, change=scaled)
    volume = load(tmp_path, role="pet")[0].numpy()
    assert np.abs(volume - TRUTH).max() <= 0.25 * 6


def test_signed_values_and_unused_bits(tmp_path: Path) -> None:
    """12 of 16 bits are used; an overlay lives in the others and is no part of the value."""

    def packed(ds: Dataset, k: int) -> None:
        stored = np.round(SMALL.slices()[k]).astype(int) - 1024
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 12, 11
        ds.RescaleIntercept = 0
        ds.PixelData = ((stored & 0x0FFF) | 0x5000).astype("<u2").tobytes()

    write_series(tmp_path, SMALL, CT, change=packed)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH - 1024)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (32, "<u4")])
def test_8_and_32_bits(tmp_path: Path, bits: int, dtype: str) -> None:
    def stored(ds: Dataset, k: int) -> None:
        ds.BitsAllocated = ds.BitsStored = bits
        ds.HighBit = bits - 1
        ds.PixelData = np.round(SMALL.slices()[k] / 5).astype(dtype).tobytes()

    write_series(tmp_path, SMALL, MR, change=stored)
    assert np.array_equal(load(tmp_path)[0].numpy(), np.round(SMALL.slices() / 5).T)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_becomes_air_and_is_said(tmp_path: Path, padding: int) -> None:
    """GE writes -2000 in signed pixels, sometimes as the unsigned 63536."""

    def padded(ds: Dataset, k: int) -> None:
        stored = np.round(SMALL.slices()[k]).astype("<i2") - 1024
        stored[:, :3] = -2000
        ds.PixelRepresentation, ds.RescaleIntercept = 1, 0
        ds.PixelData = stored.astype("<i2").tobytes()
        ds.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)

    write_series(tmp_path, SMALL, CT, change=padded)
    volume = load(tmp_path, role="ct")
    assert volume.min() == -1024
    assert (volume[0, :3] == -1024).all()
    assert any("padding" in w and "-1024" in w for w in volume.meta["source"].warnings)


def test_undeclared_padding_in_a_ct_becomes_air(tmp_path: Path) -> None:
    def padded(ds: Dataset, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<u2").astype("<i2")
        stored[:9] = -2000
        ds.PixelRepresentation = 1
        ds.PixelData = stored.tobytes()

    write_series(tmp_path, SMALL, CT, change=padded)
    assert load(tmp_path, role="ct").min() == -1024


def test_padding_of_an_mr_becomes_its_lowest_value(tmp_path: Path) -> None:
    def padded(ds: Dataset, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<u2").copy()
        stored[:9] = 65535
        ds.PixelData = stored.tobytes()
        ds.PixelPaddingValue = 65535

    write_series(tmp_path, SMALL, MR, change=padded)
    volume = load(tmp_path, role="mri")
    assert volume.min() == GROUND
    assert volume.max() < 2000


def test_a_modality_lut(tmp_path: Path) -> None:
    def with_table(ds: Dataset, k: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [2000, 1100, 16], "HU"
        lut.LUTData = (3 * np.arange(2000)).astype("<u2").tobytes()
        ds.ModalityLUTSequence = [lut]

    write_series(tmp_path, SMALL, CT, change=with_table)
    expected = 3 * (TRUTH + 1024 - 1100).clip(0, 1999)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), expected)


@pytest.mark.parametrize(("vr", "first"), [("SS", -1024), ("US", 65536 - 1024)])
def test_a_modality_lut_of_signed_samples(tmp_path: Path, vr: str, first: int) -> None:
    """Its first stored value is signed too, also where the file calls it unsigned."""

    def with_table(ds: Dataset, k: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept
        stored = np.round(SMALL.slices()[k]) - 1024
        ds.PixelRepresentation, ds.PixelData = 1, stored.astype("<i2").tobytes()
        lut = Dataset()
        lut.ModalityLUTType, lut.LUTData = "HU", np.arange(4096).astype("<u2").tobytes()
        lut.add_new("LUTDescriptor", vr, [4096, first, 16])
        ds.ModalityLUTSequence = [lut]

    write_series(tmp_path, SMALL, CT, change=with_table)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


def test_a_modality_lut_of_a_big_endian_file(tmp_path: Path) -> None:
    def with_table(ds: Dataset, k: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept
        swapped(ds, k)
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [4096, 1024, 16], "HU"
        lut.add_new("LUTData", "OW", np.arange(4096).astype(">u2").tobytes())
        ds.ModalityLUTSequence = [lut]

    write_series(tmp_path, SMALL, CT, change=with_table)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


def test_monochrome1_is_turned_where_values_have_no_unit(tmp_path: Path) -> None:
    inverse = {"PhotometricInterpretation": "MONOCHROME1"}
    write_series(tmp_path / "mr", SMALL, MR, **inverse)
    write_series(tmp_path / "ct", SMALL, CT, **inverse)
    write_nuclear(tmp_path / "nm", SMALL, **inverse)
    assert np.array_equal(load(tmp_path / "mr")[0].numpy(), 65535 - TRUTH)
    assert np.array_equal(load(tmp_path / "ct")[0].numpy(), TRUTH)
    assert np.array_equal(load(tmp_path / "nm")[0].numpy(), TRUTH)


def test_colour_with_a_place_is_read_but_is_no_source(tmp_path: Path) -> None:
    def coloured(ds: Dataset, k: int) -> None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        grey = np.round(SMALL.slices()[k] / 5).astype("u1")
        ds.PixelData = np.stack([grey, grey // 2, 0 * grey], axis=-1).tobytes()

    write_series(tmp_path, SMALL, SC, change=coloured, Modality="MR")
    volume = load(tmp_path)
    assert volume.shape == (3, 22, 20, 6)
    assert np.allclose(volume[0].numpy() * 255, np.round(SMALL.slices() / 5).T)
    assert float(volume[2].max()) == 0
    with pytest.raises(InputError, match="colour"):
        load(tmp_path, role="mri")


def test_palette_colour_is_read_as_colours(tmp_path: Path) -> None:
    def indexed(ds: Dataset, k: int) -> None:
        ds.PhotometricInterpretation = "PALETTE COLOR"
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = np.round(SMALL.slices()[k] / 5).astype("u1").tobytes()
        for number, name in enumerate(["Red", "Green", "Blue"]):
            table = (np.arange(256) * (number == 1)).astype("<u2") * 257
            setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(ds, f"{name}PaletteColorLookupTableData", table.tobytes())

    write_series(tmp_path, SMALL, SC, change=indexed)
    volume = load(tmp_path)
    assert volume.shape[0] == 3
    assert float(volume[0].max()) == 0
    assert np.allclose(volume[1].numpy() * 255, np.round(SMALL.slices() / 5).T, atol=0.01)


def test_a_siemens_mosaic_is_refused_by_name(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, MR, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(InputError, match="mosaic"):
        load(tmp_path)


def test_a_truncated_slice_is_refused_with_its_numbers(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT)
    path = sorted(tmp_path.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"780 bytes of pixels; expected 880 \(truncated\)"):
        load(tmp_path)


def test_more_pixels_than_claimed_are_refused(tmp_path: Path) -> None:
    """Rows, columns or frames are then wrong, and each slice would be a scrambled one."""
    write_series(tmp_path, SMALL, CT, Rows=10)
    with pytest.raises(InputError, match="880 bytes of pixels; expected 440"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("samples", "photometric"), [(3, "MONOCHROME2"), (1, "RGB"), (3, "PALETTE COLOR")]
)
def test_samples_that_do_not_fit_their_colours_are_refused(
    tmp_path: Path, samples: int, photometric: str
) -> None:
    def sampled(ds: Dataset, k: int) -> None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, photometric
        ds.PixelData *= samples

    write_series(tmp_path, SMALL, MR, change=sampled)
    with pytest.raises(InputError, match=f"{samples} samples a pixel in {photometric}"):
        load(tmp_path)


def test_floating_point_pixels_are_not_read_as_integers(tmp_path: Path) -> None:
    def floating(ds: Dataset, k: int) -> None:
        ds.FloatPixelData = np.frombuffer(ds.PixelData, "<u2").astype("<f4").tobytes()
        ds.BitsAllocated = ds.BitsStored = 32
        ds.HighBit = 31
        del ds.PixelData

    write_series(tmp_path, SMALL, MR, change=floating)
    with pytest.raises(InputError, match="pixels as floating point numbers"):
        load(tmp_path)


def test_negative_values_declared_as_unsigned_are_refused(tmp_path: Path) -> None:
    def unsigned(ds: Dataset, k: int) -> None:
        hounsfield = np.frombuffer(ds.PixelData, "<u2").astype("<i4") - 2024
        ds.PixelData, ds.RescaleIntercept = hounsfield.astype("<i2").tobytes(), 0

    write_series(tmp_path, SMALL, CT, change=unsigned)
    with pytest.raises(InputError, match="negative values declared as unsigned"):
        load(tmp_path)


@pytest.mark.parametrize("unit", ["MGML", "Z_EFF", "PCT"])
def test_maps_made_from_a_ct_are_no_hounsfield_units(tmp_path: Path, unit: str) -> None:
    """Iodine, effective atomic number: of spectral scanners, in CT Image Storage."""
    write_series(tmp_path, SMALL, CT, RescaleType=unit, RescaleIntercept=-3000)
    with pytest.raises(InputError, match=f"a map of {unit} made from a CT, not HU"):
        load(tmp_path, role="ct")
    volume = load(tmp_path)
    assert volume.meta["source"].units == unit
    assert volume.min() < -1024  # not taken for air


@pytest.mark.parametrize("unit", ["HU", "US", "HU_MOD", "Hounsfield"])
def test_other_words_for_the_values_of_a_ct_are_hounsfield_units(tmp_path: Path, unit: str) -> None:
    write_series(tmp_path, SMALL, CT, RescaleType=unit)
    assert load(tmp_path, role="ct").meta["source"].units == "HU"


def test_bytes_after_the_pixels_are_no_pixels(tmp_path: Path) -> None:
    def padded(ds: Dataset, k: int) -> None:
        ds.PixelData += bytes(112)
        ds.add_new(0xFFFCFFFC, "OB", bytes(200))

    write_series(tmp_path, SMALL, CT, change=padded)
    assert np.array_equal(load(tmp_path, role="ct")[0].numpy(), TRUTH)


def test_samples_that_do_not_end_at_the_lowest_bit_are_refused(tmp_path: Path) -> None:
    """Retired since 2014: 12 of 16 bits, at the top."""
    write_series(tmp_path, SMALL, CT, BitsStored=12, HighBit=15)
    with pytest.raises(InputError, match="HighBit is 15 with BitsStored 12; expected 11"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        (b"\x14\x001.2.840.10008.1.2.1\0", "transfer syntax says uncompressed"),
        (b"\x16\x001.2.840.10008.1.2.4.94", r"pixels in JPIP Referenced.* are not read"),
    ],
    ids=["uncompressed", "an encoding that nothing here reads"],
)
def test_compressed_pixels_under_another_syntax_are_refused(
    tmp_path: Path, claimed: bytes, said: str
) -> None:
    write_series(tmp_path, SMALL, MR)
    resaved(tmp_path, lambda ds: ds.compress(RLELossless, generate_instance_uid=False))
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x14\x001.2.840.10008.1.2.5\0", claimed))
    with pytest.raises(InputError, match=said):
        load(tmp_path)


@pytest.mark.parametrize(("slope", "units"), [(1.0, "BQML"), (2.5, "")])
def test_an_enhanced_pet_is_in_becquerels_where_its_own_slope_makes_them(
    tmp_path: Path, slope: float, units: str
) -> None:
    write_enhanced(tmp_path / "e", SMALL, "PT")
    ds = pydicom.dcmread(tmp_path / "e")
    mapping, unit = Dataset(), Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, 0.0
    unit.CodeValue, unit.CodingSchemeDesignator = "Bq/ml", "UCUM"
    mapping.MeasurementUnitsCodeSequence = [unit]
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping]
    ds.save_as(tmp_path / "e")
    assert load(tmp_path / "e", role="pet").meta["source"].units == units


@pytest.mark.parametrize("size", [46341, 16000])
def test_a_claim_of_more_pixels_than_there_are(tmp_path: Path, size: int) -> None:
    write_series(tmp_path, SMALL, CT, Rows=size, Columns=size)
    start = time.process_time()
    with pytest.raises(InputError, match=r"expected"):
        load(tmp_path)
    assert time.process_time() - start < 5


def test_a_codestream_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    """The decoder would believe the codestream, and take memory for 60000 x 60000 pixels."""

    def bomb(ds: Dataset) -> None:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        frame = bytearray(next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)))
        at = frame.find(b"\xff\x4f\xff\x51") + 8
        frame[at : at + 8] = (60000).to_bytes(4, "big") * 2
        ds.PixelData = encapsulate([bytes(frame)])

    write_series(tmp_path, LARGER, CT)
    resaved(tmp_path, bomb)
    with pytest.raises(InputError, match="compressed pixels of 60000 x 60000; expected 44 x 40"):
        load(tmp_path)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\x00", b"\xff\x4f\xff\x51\x00", b"\0" * 99]
)
def test_a_broken_codestream_has_no_size(frame: bytes) -> None:
    assert codestream_size(frame) is None


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmif.io.dicom.read.headers.MAX_DEFLATED_BYTES", 1 << 20)
    ds = base(CT, generate_uid(), generate_uid())
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.PixelData = bytes(8 << 20)
    save(ds, tmp_path / "bomb")
    with pytest.raises(InputError, match="deflated data of more than"):
        load(tmp_path / "bomb")


def test_a_header_larger_than_any_scanner_writes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmif.io.dicom.read.headers.MAX_HEADER_BYTES", 1 << 20)
    ds = base(CT, generate_uid(), generate_uid())
    ds.add_new(0x00091010, "OB", bytes(2 << 20))
    save(ds, tmp_path / "large")
    with pytest.raises(InputError, match="MiB in front of the pixels"):
        load(tmp_path / "large")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"BitsAllocated": 12}, "bits a pixel"),
        ({"RescaleSlope": 0}, "RescaleSlope"),
        ({"SamplesPerPixel": 2}, "samples a pixel"),
        ({"NumberOfFrames": 99999}, "frames"),
        ({"Rows": None}, "pixels; expected"),
    ],
)
def test_impossible_pixels_are_named(
    tmp_path: Path, attributes: dict[str, object], message: str
) -> None:
    write_series(tmp_path, SMALL, CT, **attributes)
    with pytest.raises(MmifError, match=message):
        load(tmp_path)


def test_a_constant_volume_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL, CT, PixelData=bytes(880))
    with pytest.raises(InputError, match="every voxel is -1024"):
        load(tmp_path)


def test_nuclear_counts_have_their_unit(tmp_path: Path) -> None:
    write_nuclear(tmp_path / "nm", SMALL)
    source = load(tmp_path / "nm", role="spect").meta["source"]
    assert (source.units, source.modality) == ("counts", "NM")
    assert source.headers[0].SOPClassUID == NM
