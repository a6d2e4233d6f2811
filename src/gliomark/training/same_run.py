"""A work folder belongs to one run: what decides a network's weights stands beside its checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from gliomark.files import atomic_write
from gliomark.messages import message
from gliomark.study import GliomarkError
from gliomark.training.checkpoints import has_checkpoint

RECORD = "run.json"


class Settings(Protocol):
    """A training's settings, any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Bank(Protocol):
    """What a training is fed, a dataclass of tensors. patient: each slice's index into patient_ids."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def patient(self) -> Tensor: ...

    @property
    def patient_ids(self) -> tuple[str, ...]: ...


def check_same_run(
    work: Path,
    settings: Settings,
    bank: Bank,
    validation: Bank | None = None,
    teacher: nn.Module | None = None,
) -> None:
    """Write into ``work`` which run it holds: settings with their seed, patients, and a hash of all that is fed.

    Raises GliomarkError where a checkpoint of another run is there, or one of which nobody can say whose it is: going
    on from it would mix the two.
    """
    run = {
        "settings": json.loads(json.dumps(asdict(settings))),
        "patients": sorted(_owners(bank)),
        "data": _digest(bank, validation, teacher),
    }
    record = work / RECORD
    if not has_checkpoint(work):
        atomic_write(record, json.dumps(run))
        return
    if differs := _first_difference(record, run):
        raise GliomarkError(message(f"work-of-other-{differs}", folder=work))


def _first_difference(record: Path, run: Mapping[str, Any]) -> str:
    """ "settings", "patients" or "data"; "unknown" where nothing is recorded; blank where all is the same."""
    try:
        before = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        return "unknown"
    return next((name for name in ("patients", "settings", "data") if before.get(name) != run[name]), "")


def _owners(bank: Bank) -> set[str]:
    return {bank.patient_ids[index] for index in bank.patient.unique().tolist()}


def _digest(bank: Bank, validation: Bank | None, teacher: nn.Module | None) -> str:
    """Of every slice with whose it is, and of the teacher's weights."""
    digest = hashlib.sha256()
    for one in (bank, validation):
        if one is not None:
            digest.update(json.dumps([one.patient_ids[index] for index in one.patient.tolist()]).encode())
            names = (field.name for field in fields(one))
            _add(digest, ((n, getattr(one, n)) for n in names if n not in ("patient", "patient_ids")))
    if teacher is not None:
        _add(digest, sorted(teacher.state_dict().items()))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {plain.dtype} {plain.shape}".encode())
        digest.update(plain.reshape(-1).view(np.uint8).data)
