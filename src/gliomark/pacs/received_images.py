"""Images received from a PACS, written under names of our own."""

from __future__ import annotations

import threading
from pathlib import Path

from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from gliomark.errors import InputError
from gliomark.io.dicom import read_instance
from gliomark.io.dicom.instances import MR_SOP_CLASSES, Instance
from gliomark.io.naming import normalise_patient_id

# what gliomark reads: MR images, and lesions outlined on them
FETCHED_SOP_CLASSES = (*MR_SOP_CLASSES, SegmentationStorage, RTStructureSetStorage)


class ReceivedImages:
    """Writes the images of one study into a folder: ``image-00001.dcm`` and so on.

    Attributes
    ----------
    image_uids
        SOP instance UIDs of what was written.
    patient_ids
        Patient ids that they state.
    """

    def __init__(self, folder: Path, study_uid: str) -> None:
        self.image_uids: set[str] = set()
        self.patient_ids: set[str] = set()
        self._folder, self._study_uid = folder, study_uid
        self._lock = threading.Lock()  # an archive may send over several associations at the same time

    def add(self, content: bytes) -> bool:
        """Write an image, given as a DICOM file; return False if it is damaged or not of this study.

        An image that was received before is kept as it is.
        """
        with self._lock:
            file = self._folder / f"image-{len(self.image_uids) + 1:05d}.dcm"
            file.write_bytes(content)
            instance = self._read_image(file)
            if instance and instance.sop_instance_uid not in self.image_uids:
                self.image_uids.add(instance.sop_instance_uid)
                self.patient_ids.add(instance.patient_id)
            else:
                file.unlink()
            return instance is not None

    def find_other_patient_ids(self, patient_id: str) -> list[str]:
        """Find the patient ids in the images that are not this one; images without an id are not compared."""
        known = {normalise_patient_id(one) for one in ("", patient_id)}
        return sorted(one for one in self.patient_ids if normalise_patient_id(one) not in known)

    def _read_image(self, file: Path) -> Instance | None:
        """Read the header of an image of this study; None for any other file."""
        try:
            instance = read_instance(file)
        except InputError:
            return None
        is_of_study = instance.study_instance_uid == self._study_uid
        return instance if is_of_study and instance.sop_instance_uid else None
