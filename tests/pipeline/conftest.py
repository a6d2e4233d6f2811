"""A whole model small enough for every test, and a patient without a skull, so that nothing slow runs.

The networks are random but for the outline's last layer, a logistic regression that marks what is bright:
enough to follow a lesion through the whole chain.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightgbm
import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from gliomark import cli
from gliomark.inference.segmenter import tile_theta
from gliomark.inference.slice_classifier import image_vectors, lesion_slices, mix_parts, tree_columns
from gliomark.io import read_study
from gliomark.isolation import ReadingProcesses
from gliomark.models.kinet import KiNet, KiNetSettings, KiNetSize, build_kinet
from gliomark.models.mignet import MIGNet, MIGNetSettings, build_mignet
from gliomark.models.segmentation_networks import network_record
from gliomark.models.swin_unet import SwinSize
from gliomark.models.weights import MarkerCard, MarkerValidation, ModelCard, load_weights, save_weights
from gliomark.preprocessing import PreparationSettings, prepare
from gliomark.study import MRSequence, SliceStack

PATIENT = "患者 01"
PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SLICES, SIZE = 20, 96  # as pictures: 2.5 mm pixels (the side is taken for 240 mm), 6 mm steps
STEPS = (2.5, 2.5, 6.0)
BRAIN_MM = (64.0, 80.0, 56.0)
LESION_MM = (32.0, -20.0, 12.0)  # LPS: on the patient's left, in front, above the middle
LESION_RADIUS_MM = 20.0
TILE = 192
OUTLINER = MIGNetSettings(2, size=SwinSize(embedding=32, depths=(1, 1), heads=(1, 2), patch=2))
POOL = 4
READER = KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1), pool=2))
Volume = NDArray[np.uint8]


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    status: int
    out: str
    err: str


class KeptReading(ReadingProcesses):
    """Reading processes that outlive the command, since one takes a second to start."""

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def kept_reading() -> Iterator[KeptReading]:
    with KeptReading() as reading:
        yield reading
    reading.close()


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kept_reading: KeptReading
) -> Callable[..., Outcome]:
    """command("predict", folder, "--out", out): the console entry point in this process."""
    monkeypatch.setattr("gliomark.isolation.ReadingProcesses", lambda: kept_reading)

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["gliomark", *map(str, words)])
        capfd.readouterr()
        status: object = 0
        try:
            cli.run()
        except SystemExit as end:
            status = end.code
        said = capfd.readouterr()
        return Outcome(status if isinstance(status, int) else int(status is not None), said.out, said.err)

    return run


# ---- patients ---------------------------------------------------------------------------------------


def draw(seed: int = 0) -> dict[str, Volume]:
    """T1C, FLAIR and the lesion ``(slice, row, column)``: a textured ellipsoid of 1.2 l on nothing."""
    z, y, x = (
        step * (np.arange(count) - (count - 1) / 2)
        for step, count in zip(STEPS[::-1], (SLICES, SIZE, SIZE), strict=True)
    )
    place = np.meshgrid(x, y, z, indexing="ij")
    place = [axis.transpose(2, 1, 0) for axis in place]
    brain = sum((axis / half) ** 2 for axis, half in zip(place, BRAIN_MM, strict=True)) < 1
    lesion = sum((axis - at) ** 2 for axis, at in zip(place, LESION_MM, strict=True)) < LESION_RADIUS_MM**2
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=brain.shape), (0.4, 2, 2))
    texture *= 12 / texture.std()
    flair = np.where(brain, np.clip(90 + texture + 110 * lesion, 20, 255), 0)
    t1c = np.where(brain, np.clip(120 - texture + 60 * lesion, 20, 255), 0)
    return {name: v.astype(np.uint8) for name, v in {"T1C": t1c, "FLAIR": flair, "mask": lesion}.items()}


def write_pictures(folder: Path, images: Mapping[str, Volume]) -> Path:
    for name, image in images.items():
        (folder / name).mkdir(parents=True)
        for number, plane in enumerate(image, start=1):
            Image.fromarray(plane).save(folder / name / f"切片 {number:02d}.png")
    return folder


def write_volumes(folder: Path, images: Mapping[str, Volume]) -> Path:
    """FLAIR runs to left, back, head; T1C is stored otherwise: to head, front, right."""
    folder.mkdir(parents=True)
    middle = -0.5 * np.array(STEPS) * (np.array([SIZE, SIZE, SLICES]) - 1)
    affine = np.diag([*STEPS, 1.0])
    affine[:3, 3] = middle
    for name, image in images.items():
        volume = nib.Nifti1Image(image.transpose(2, 1, 0).astype(np.int16), np.diag([-1, -1, 1, 1]) @ affine)
        if name == "T1C":
            to = nib.orientations.axcodes2ornt(("S", "A", "R"))
            turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), to)
            volume = volume.as_reoriented(turn)
        nib.save(volume, folder / f"某人 {name}.nii.gz")
    return folder


def write_dicom(folder: Path, images: Mapping[str, Volume]) -> Path:
    """The patient as single-frame MR images, recognised by their physics."""
    physics = {"T1C": (500, 10, None), "FLAIR": (9000, 110, 2500)}
    folder.mkdir()
    for name, image in images.items():
        uid = generate_uid()
        for number, plane in enumerate(image):
            one = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.SpecificCharacterSet, one.PatientID, one.PatientName = "ISO_IR 192", PATIENT, "某^人"
            one.SOPClassUID, one.SOPInstanceUID, one.Modality = MRImageStorage, generate_uid(), "MR"
            one.StudyInstanceUID, one.FrameOfReferenceUID, one.SeriesInstanceUID = "1.2.3", "1.2.4", uid
            one.RepetitionTime, one.EchoTime, one.InversionTime = physics[name]
            one.ContrastBolusAgent = "Gadovist" if name == "T1C" else ""
            one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], list(STEPS[:2])
            one.ImagePositionPatient = [-STEPS[0] * (SIZE - 1) / 2] * 2 + [
                STEPS[2] * (number - (SLICES - 1) / 2)
            ]
            one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = (
                *plane.shape,
                1,
                "MONOCHROME2",
            )
            one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
            one.PixelData = plane.astype(np.uint16).tobytes()
            one.save_as(folder / f"{name}{number}.dcm", enforce_file_format=True)
    return folder


def without_mask(images: Mapping[str, Volume]) -> dict[str, Volume]:
    return {name: image for name, image in images.items() if name != "mask"}


@pytest.fixture(scope="session")
def drawn() -> dict[str, Volume]:
    """The patient's T1C, FLAIR and true lesion."""
    return draw()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Volume]) -> Path:
    """The patient as picture folders; not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("图片 夹") / PATIENT, without_mask(drawn))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Volume]) -> Path:
    """The patient as NIfTI; not to be changed."""
    return write_volumes(tmp_path_factory.mktemp("体积 夹") / PATIENT, without_mask(drawn))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A working folder with Chinese and a space in its name."""
    folder = tmp_path / "工作 夹"
    folder.mkdir()
    return folder


@pytest.fixture
def own_pictures(home: Path, pictures: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(pictures, home / PATIENT))


@pytest.fixture
def own_volumes(home: Path, volumes: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(volumes, home / PATIENT))


@pytest.fixture
def write_table(home: Path) -> Callable[..., Path]:
    """write_table([("患者 01", "50", "男")]): a clinical table of such rows under id, age, sex."""

    def write(
        rows: Sequence[Sequence[str]] = ((PATIENT, "50", "男"),),
        header: Sequence[str] = ("id", "age", "sex"),
        encoding: str = "utf-8",
    ) -> Path:
        path = home / "临床 表.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def table(write_table: Callable[..., Path]) -> Path:
    """A table with the one patient, 50 years, male."""
    return write_table()


# ---- the model --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Volume]) -> Path:
    """A complete weights file with both markers; not to be changed."""
    learnt = prepare(read_study(write_pictures(tmp_path_factory.mktemp("learn") / "a", drawn)), PAIR)
    torch.manual_seed(0)
    outliner = _outliner(learnt)
    tensors = {f"segmentation/{name}": tensor for name, tensor in outliner.state_dict().items()}
    tensors["prior"] = torch.ones(240, 240)
    titles = {"idh": ("IDH", "mutant", "wild type"), "ki67": ("Ki-67", "high", "low")}
    markers = {}
    for number, (name, (title, positive, negative)) in enumerate(titles.items()):
        network = build_kinet(READER).eval()
        text = _trees(network, learnt, number).model_to_string()
        tensors |= {f"{name}/{key}": tensor for key, tensor in network.state_dict().items()}
        tensors[f"{name}/lightgbm"] = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        markers[name] = MarkerCard(
            column=name, title=title, positive=positive, negative=negative, label=f"what {name} 标签 means",
            threshold=0.5, age_cut=45.0, architecture={"network": asdict(READER), "crop": TILE},
            validation=MarkerValidation(0.8, 0.7, 0.9, 40, 20, "synthetic"),
        )  # fmt: skip
    card = ModelCard(
        name="tiny",
        sequences=tuple(PAIR),
        rule="joint",
        segmentation={
            "network": network_record(OUTLINER),
            "tile": TILE,
            "pool": POOL,
            "context": 0,
            "flips": False,
            "smallest_share": 0.0,
        },
        segmentation_threshold=0.5,
        smallest_lesion_ml=0.5,
        training_cohort="one synthetic patient",
        training_patients=("a",),
        folds_sha256="0" * 64,
        licence="CC0",
        intended_use="tests; research use only",
        segmentation_performance="not measured",
        versions={"gliomark": "0"},
        markers=markers,
        stand_ins={"FLAIR": "T2"},
        preparation=asdict(PreparationSettings()),
    )
    path = tmp_path_factory.mktemp("模型 夹") / "小 模型.safetensors"
    save_weights(path, card, tensors)
    return path


@pytest.fixture(scope="session")
def blind_weights(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The same model, whose last layer calls nothing a lesion."""
    loaded = load_weights(tiny_weights)
    path = tmp_path_factory.mktemp("模型 夹") / "blind.safetensors"
    last = {"segmentation/decoder.classify.bias": torch.tensor([0.0, -1e4])}
    save_weights(path, loaded.card, {**loaded.tensors, **last})
    return path


def _outliner(stack: SliceStack) -> MIGNet:
    """A random MIG-Net whose last layer is solved, on the drawn patient, for its true lesion."""
    network = build_mignet(OUTLINER).eval()
    margin = (240 - TILE) // 2
    inner = (..., slice(margin, margin + TILE), slice(margin, margin + TILE))
    images = torch.from_numpy(np.stack([stack.images[name] for name in PAIR], axis=1))[inner]
    target = torch.from_numpy(stack.drawn.astype(np.float32))[inner][:, None]
    brain = torch.from_numpy(stack.brain.astype(np.float32))[inner][:, None]
    seen: list[torch.Tensor] = []
    classify = network.decoder.classify
    handle = classify.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.inference_mode():
        images = torch.nn.functional.avg_pool2d(images, POOL)
        network(images, tile_theta(margin, margin, TILE, 240, 240).expand(len(images), -1, -1))
        handle.remove()
        small = [torch.nn.functional.adaptive_avg_pool2d(t, seen[0].shape[-2:]) for t in (target, brain)]
    rows, marked, inside = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (seen[0], *small))
    use = inside[:, 0] > 0.9
    solved = LogisticRegression(class_weight={False: 1, True: 6}, max_iter=300)
    solved.fit(rows[use].numpy(), marked[use, 0].numpy() > 0.5)
    with torch.no_grad():
        classify.weight.zero_()
        classify.bias.zero_()
        classify.weight[1, :, 0, 0] = torch.from_numpy(solved.coef_[0])
        classify.bias[1] = float(solved.intercept_[0])
    return network


def _trees(network: KiNet, stack: SliceStack, number: int) -> lightgbm.Booster:
    """Trees that tell slices apart by one feature of the real vectors, and know age and sex."""
    slices = lesion_slices(stack, stack.drawn)
    vectors = image_vectors(network, *mix_parts(stack, stack.drawn, slices, PAIR), TILE)
    rows = [
        tree_columns(vectors, np.zeros((len(vectors), 9)), "vector", age, sex, 45.0)
        for age in (30, 60)
        for sex in (0, 1)
    ]
    feature = vectors[:, int(vectors.std(axis=0).argmax())]
    label = np.concatenate([feature > np.median(feature)] * 3 + [np.full(len(feature), number)])
    settings = {
        "objective": "binary",
        "num_leaves": 4,
        "min_data_in_leaf": 1,
        "num_threads": 1,
        "verbose": -1,
    }
    settings |= {"deterministic": True, "seed": 0, "min_data_in_bin": 1}
    return lightgbm.train(settings, lightgbm.Dataset(np.vstack(rows), label.astype(float)), 8)
