"""Re-encode the pixels of a DICOM file in every transfer syntax that gliomark reads."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# largest difference of a grey value after decoding
TOLERANCE_BY_SYNTAX = {
    ExplicitVRLittleEndian: 0,
    ImplicitVRLittleEndian: 0,
    DeflatedExplicitVRLittleEndian: 0,
    ExplicitVRBigEndian: 0,
    JPEGLSLossless: 0,
    JPEG2000Lossless: 0,
    HTJ2KLossless: 0,
    HTJ2KLosslessRPCL: 0,
    JPEGLosslessSV1: 0,
    JPEGLossless: 0,
    RLELossless: 0,
    JPEG2000: 2,
    HTJ2K: 0,  # the codestreams below are lossless; this transfer syntax permits both
    JPEGLSNearLossless: 2,
    JPEGBaseline8Bit: 2,
}
GDCM_NAMES = {
    JPEG2000Lossless: "JPEG2000Lossless",
    JPEG2000: "JPEG2000",
    JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    JPEGLossless: "JPEGLosslessProcess14",
}
# No installed library encodes High-Throughput JPEG 2000. Codestreams by OpenJPH 0.26 (imagecodecs) of the planes of
# `draw_plane` in test_dicom.py: 12 x 10 pixels of 5, and the same with a block of 500
HTJ2K_FLAT_PLANE = (
    "/0//UQApQAAAAAAKAAAADAAAAAAAAAAAAAAACgAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAABsAAf+TwAAl9QUHdAAAAAAAAP/Z"
)
HTJ2K_BRIGHT_BLOCK = (
    "/0//UQApQAAAAAAKAAAADAAAAAAAAAAAAAAACgAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
    "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAJsAAf+TwAAl0QUHdAAAwAASwAASwAASgK4B"
    "B3QA3wCHdAD1AYd0AMAAE0AAE0AAEoADLgGDdACy+wAiNADmAId0AMAAE8AAFTAABMDd0gGMQVUAx6CJxQFEdVUAIREAYVQAwAAt"
    "CAAFXAACrHru97p3/bwAgsAjILRiWgC8w77+vABj0AJ3APb6O/u8AGPRAncA/9k="
)


def recode_pixels(file: Path, syntax: UID) -> None:
    """Re-encode the pixels of an uncompressed file; JPEG of 8 bits truncates them to 8 bits."""
    dataset = pydicom.dcmread(file)
    pixels = dataset.pixel_array
    if syntax in (RLELossless, JPEGLSLossless, JPEGLSNearLossless):
        options = {"jls_error": TOLERANCE_BY_SYNTAX[syntax]} if syntax == JPEGLSNearLossless else {}
        dataset.compress(syntax, generate_instance_uid=False, **options)
    elif syntax.is_encapsulated:
        if syntax == JPEGBaseline8Bit:
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData, dataset["PixelData"].VR = encapsulate([encode_frame(file, pixels, syntax)]), "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.decode()
        list(dataset.iterall())  # every element is decoded before the byte order changes
        dataset.PixelData = pixels.astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
        dataset.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(
        file,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )


def encode_frame(file: Path, pixels: np.ndarray, syntax: UID) -> bytes:
    if syntax == JPEGBaseline8Bit:
        stream = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=100)
        return stream.getvalue()
    if syntax in GDCM_NAMES:
        return encode_with_gdcm(file, GDCM_NAMES[syntax])
    return b64decode(HTJ2K_BRIGHT_BLOCK if pixels.max() == 500 else HTJ2K_FLAT_PLANE)


def encode_with_gdcm(file: Path, name: str) -> bytes:
    """Return the encoded frame alone: GDCM's writer would change other attributes."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    coded_file = file.with_name(f"{file.name}.coded")
    writer.SetFileName(str(coded_file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    coded = pydicom.dcmread(coded_file)
    coded_file.unlink()
    (frame,) = pydicom.encaps.generate_frames(coded.PixelData, number_of_frames=1)
    return frame
