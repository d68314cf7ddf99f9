"""Uncompressed DICOM is read straight from its bytes: the same values as pydicom gives."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from headwater.data import dicom


def written(bits: int, stored: int, signed: bool, syntax: str, shape: tuple[int, int] = (7, 5)) -> bytes:
    """Random bits in every pixel, those that are not in use too."""
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, made.file_meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = bits, stored, stored - 1, int(signed)
    content = np.random.default_rng(bits + stored).bytes(shape[0] * shape[1] * bits // 8)
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OW"
    if syntax == RLELossless:
        made.compress(RLELossless)
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "stored"), [(8, 8), (8, 6), (16, 16), (16, 12)])
def test_the_values_are_pydicoms(bits: int, stored: int, signed: bool, syntax: str) -> None:
    data = written(bits, stored, signed, syntax)
    one, values = dicom.stored(data)
    told = pydicom.dcmread(io.BytesIO(data)).pixel_array
    assert values.dtype == told.dtype
    np.testing.assert_array_equal(values, told)
    assert (dicom._plain(one) is None) == (syntax == RLELossless)


def test_pixels_that_are_missing_are_not_invented() -> None:
    data = written(16, 16, False, ExplicitVRLittleEndian)
    one = pydicom.dcmread(io.BytesIO(data))
    one.PixelData = one.PixelData[:-4]
    cut = io.BytesIO()
    one.save_as(cut)
    with pytest.raises(ValueError, match="pixel data"):
        dicom.stored(cut.getvalue())
