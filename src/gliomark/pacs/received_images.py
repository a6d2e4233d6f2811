"""Images received from a PACS, written under names of our own."""

from __future__ import annotations

import threading
from pathlib import Path

from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from gliomark.errors import InputError
from gliomark.io.dicom import read_instance
from gliomark.io.dicom.instances import MR_SOP_CLASSES

# what gliomark reads: MR images, and lesions outlined on them
FETCHED_SOP_CLASSES = (*MR_SOP_CLASSES, SegmentationStorage, RTStructureSetStorage)


class ReceivedImages:
    """Writes the images of one study into a folder: ``image-00001.dcm`` and so on.

    Attributes
    ----------
    image_uids
        SOP instance UIDs of what was written.
    """

    def __init__(self, folder: Path, study_uid: str) -> None:
        self.image_uids: set[str] = set()
        self._folder, self._study_uid = folder, study_uid
        self._lock = threading.Lock()  # an archive may send over several associations at the same time

    def add(self, content: bytes) -> bool:
        """Write an image, given as a DICOM file; return False if it is damaged or not of this study.

        An image that was received before is kept as it is.
        """
        with self._lock:
            file = self._folder / f"image-{len(self.image_uids) + 1:05d}.dcm"
            file.write_bytes(content)
            uid = self._read_image_uid(file)
            if uid and uid not in self.image_uids:
                self.image_uids.add(uid)
            else:
                file.unlink()
            return bool(uid)

    def _read_image_uid(self, file: Path) -> str:
        """Return the SOP instance UID of an image of this study; "" of any other file."""
        try:
            instance = read_instance(file)
        except InputError:
            return ""
        return instance.sop_instance_uid if instance.study_instance_uid == self._study_uid else ""
