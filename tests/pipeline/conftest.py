"""A complete small model and a skull-stripped patient for fast tests of the whole pipeline.

The networks are random except for the last layer of the segmentation network, a logistic regression that marks bright
voxels, so that a lesion can be followed through the whole pipeline.
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
from gliomark.inference.segmenter import compute_theta
from gliomark.inference.slice_classifier import (
    build_tree_columns,
    compute_image_vectors,
    extract_lesion_slices,
    select_training_slices,
)
from gliomark.io import read_study
from gliomark.isolation import ReaderPool
from gliomark.models.card import MarkerNetworkCard, SegmentationCard
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNet, MIGNetSettings, build_mignet
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.registry import build_marker_network, to_network_record
from gliomark.models.torch_inference import wrap_marker_network
from gliomark.models.weights import MarkerCard, MarkerValidation, ModelCard, load_weights, save_weights
from gliomark.preprocessing import PreparationConfig, prepare
from gliomark.study import MRSequence, SliceStack

PATIENT = "患者 01"
PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SLICES, SIZE = 20, 96  # as pictures: 2.5 mm pixels (the side is assumed to be 240 mm), 6 mm slice spacing
SPACING_MM = (2.5, 2.5, 6.0)
BRAIN_MM = (64.0, 80.0, 56.0)
LESION_MM = (32.0, -20.0, 12.0)  # LPS: on the patient's left, anterior, above the centre
LESION_RADIUS_MM = 20.0
TILE = 192
SEGMENTATION_SETTINGS = MIGNetSettings(2, size=SwinSize(embedding=32, depths=(1, 1), heads=(1, 2), patch=2))
POOL = 4
MARKER_SETTINGS = KiNetSettings(size=KiNetSize(stem=8, widths=(8, 8, 16, 16), blocks=(1, 1, 1, 1), pool=2))
Volume = NDArray[np.uint8]


@dataclass(frozen=True)
class CommandResult:
    """Exit status, standard output and standard error of a command."""

    status: int
    stdout: str
    stderr: str


class KeptReaderPool(ReaderPool):
    """Reader processes that are kept between commands, because starting one takes a second."""

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def reader_pool() -> Iterator[KeptReaderPool]:
    with KeptReaderPool() as pool:
        yield pool
    pool.close()


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], reader_pool: KeptReaderPool
) -> Callable[..., CommandResult]:
    """Return command("predict", folder, "--out", out), which runs the command line in this process."""
    monkeypatch.setattr("gliomark.isolation.ReaderPool", lambda *_: reader_pool)

    def run_with_arguments(*arguments: object, command: Callable[[], None] = cli.run) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["gliomark", *map(str, arguments)])
        capfd.readouterr()
        status: object = 0
        try:
            command()
        except SystemExit as end:
            status = end.code
        captured = capfd.readouterr()
        return CommandResult(
            status if isinstance(status, int) else int(status is not None), captured.out, captured.err
        )

    return run_with_arguments


# ---- patients ---------------------------------------------------------------------------------------


def draw_patient(seed: int = 0) -> dict[str, Volume]:
    """Create T1C, FLAIR and lesion mask ``(slice, row, column)``: a textured ellipsoid of 1.2 l on background."""
    z, y, x = (
        step * (np.arange(count) - (count - 1) / 2)
        for step, count in zip(SPACING_MM[::-1], (SLICES, SIZE, SIZE), strict=True)
    )
    coordinates = np.meshgrid(x, y, z, indexing="ij")
    coordinates = [axis.transpose(2, 1, 0) for axis in coordinates]
    brain = sum((axis / half) ** 2 for axis, half in zip(coordinates, BRAIN_MM, strict=True)) < 1
    lesion = (
        sum((axis - centre) ** 2 for axis, centre in zip(coordinates, LESION_MM, strict=True))
        < LESION_RADIUS_MM**2
    )
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
    """Write NIfTI volumes: FLAIR axes run to left, posterior, superior, T1C axes to superior, anterior, right."""
    folder.mkdir(parents=True)
    centre_offset = -0.5 * np.array(SPACING_MM) * (np.array([SIZE, SIZE, SLICES]) - 1)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = centre_offset
    for name, image in images.items():
        volume = nib.Nifti1Image(image.transpose(2, 1, 0).astype(np.int16), np.diag([-1, -1, 1, 1]) @ affine)
        if name == "T1C":
            target_orientation = nib.orientations.axcodes2ornt(("S", "A", "R"))
            orientation_transform = nib.orientations.ornt_transform(
                nib.orientations.io_orientation(volume.affine), target_orientation
            )
            volume = volume.as_reoriented(orientation_transform)
        nib.save(volume, folder / f"某人 {name}.nii.gz")
    return folder


def write_dicom(folder: Path, images: Mapping[str, Volume]) -> Path:
    """Write the patient as single-frame MR images, which are recognised by their acquisition parameters."""
    physics = {"T1C": (500, 10, None), "FLAIR": (9000, 110, 2500)}
    folder.mkdir()
    for name, image in images.items():
        uid = generate_uid()
        for number, plane in enumerate(image):
            dataset = Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.SpecificCharacterSet, dataset.PatientID, dataset.PatientName = (
                "ISO_IR 192",
                PATIENT,
                "某^人",
            )
            dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = (
                MRImageStorage,
                generate_uid(),
                "MR",
            )
            dataset.StudyInstanceUID, dataset.FrameOfReferenceUID, dataset.SeriesInstanceUID = (
                "1.2.3",
                "1.2.4",
                uid,
            )
            dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = physics[name]
            dataset.ContrastBolusAgent = "Gadovist" if name == "T1C" else ""
            dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], list(SPACING_MM[:2])
            dataset.ImagePositionPatient = [-SPACING_MM[0] * (SIZE - 1) / 2] * 2 + [
                SPACING_MM[2] * (number - (SLICES - 1) / 2)
            ]
            dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
                *plane.shape,
                1,
                "MONOCHROME2",
            )
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
                16,
                16,
                15,
                0,
            )
            dataset.PixelData = plane.astype(np.uint16).tobytes()
            dataset.save_as(folder / f"{name}{number}.dcm", enforce_file_format=True)
    return folder


def drop_mask(images: Mapping[str, Volume]) -> dict[str, Volume]:
    return {name: image for name, image in images.items() if name != "mask"}


@pytest.fixture(scope="session")
def drawn_images() -> dict[str, Volume]:
    """The patient's T1C, FLAIR and true lesion."""
    return draw_patient()


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory, drawn_images: dict[str, Volume]) -> Path:
    """The patient as picture folders; tests must not change them."""
    return write_pictures(tmp_path_factory.mktemp("图片 夹") / PATIENT, drop_mask(drawn_images))


@pytest.fixture(scope="session")
def volume_folder(tmp_path_factory: pytest.TempPathFactory, drawn_images: dict[str, Volume]) -> Path:
    """The patient as NIfTI; tests must not change it."""
    return write_volumes(tmp_path_factory.mktemp("体积 夹") / PATIENT, drop_mask(drawn_images))


@pytest.fixture
def working_folder(tmp_path: Path) -> Path:
    """A folder with Chinese characters and a space in its name."""
    folder = tmp_path / "工作 夹"
    folder.mkdir()
    return folder


@pytest.fixture
def copied_pictures(working_folder: Path, picture_folder: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(picture_folder, working_folder / PATIENT))


@pytest.fixture
def copied_volumes(working_folder: Path, volume_folder: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(volume_folder, working_folder / PATIENT))


@pytest.fixture
def write_clinical_table(working_folder: Path) -> Callable[..., Path]:
    """Return write_table([("患者 01", "50", "男")]), which writes a clinical table with columns id, age, sex."""

    def write(
        rows: Sequence[Sequence[str]] = ((PATIENT, "50", "男"),),
        header: Sequence[str] = ("id", "age", "sex"),
        encoding: str = "utf-8",
    ) -> Path:
        path = working_folder / "临床 表.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def clinical_table(write_clinical_table: Callable[..., Path]) -> Path:
    """A table with one patient, 50 years, male."""
    return write_clinical_table()


# ---- the model --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory, drawn_images: dict[str, Volume]) -> Path:
    """A complete weights file with both markers; tests must not change it."""
    training_stack = prepare(
        read_study(write_pictures(tmp_path_factory.mktemp("learn") / "a", drawn_images)), PAIR
    )
    torch.manual_seed(0)
    segmentation_network = _create_segmentation_network(training_stack)
    tensors = {f"segmentation/{name}": tensor for name, tensor in segmentation_network.state_dict().items()}
    tensors["prior"] = torch.ones(240, 240)
    titles = {"idh": ("IDH", "mutant", "wild type"), "ki67": ("Ki-67", "high", "low")}
    markers = {}
    for number, (name, (title, positive, negative)) in enumerate(titles.items()):
        network = build_marker_network(MARKER_SETTINGS).eval()
        text = _train_trees(network, training_stack, number).model_to_string()
        tensors |= {f"{name}/{key}": tensor for key, tensor in network.state_dict().items()}
        tensors[f"{name}/lightgbm"] = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        markers[name] = MarkerCard(
            column=name,
            title=title,
            positive=positive,
            negative=negative,
            label=f"what {name} 标签 means",
            threshold=0.5,
            age_cut=45.0,
            architecture=MarkerNetworkCard(network=asdict(MARKER_SETTINGS), crop=TILE),
            validation=MarkerValidation(0.8, 0.7, 0.9, 40, 20, "synthetic"),
        )
    card = ModelCard(
        name="tiny",
        sequences=tuple(PAIR),
        rule="joint",
        segmentation=SegmentationCard(
            network=to_network_record(SEGMENTATION_SETTINGS),
            tile=TILE,
            pool=POOL,
            context=0,
            flips=False,
            smallest_share=0.0,
        ),
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
        preparation=asdict(PreparationConfig()),
    )
    path = tmp_path_factory.mktemp("模型 夹") / "小 模型.safetensors"
    save_weights(path, card, tensors)
    return path


@pytest.fixture(scope="session")
def lesion_free_weights(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The same model with a last layer that never detects a lesion."""
    loaded = load_weights(tiny_weights)
    path = tmp_path_factory.mktemp("模型 夹") / "no_lesion.safetensors"
    last = {"segmentation/decoder.classify.bias": torch.tensor([0.0, -1e4])}
    save_weights(path, loaded.card, {**loaded.tensors, **last})
    return path


def _create_segmentation_network(stack: SliceStack) -> MIGNet:
    """Build a random MIG-Net whose last layer is fitted to the true lesion of the synthetic patient."""
    network = build_mignet(SEGMENTATION_SETTINGS).eval()
    margin = (240 - TILE) // 2
    inner = (..., slice(margin, margin + TILE), slice(margin, margin + TILE))
    images = torch.from_numpy(np.stack([stack.images[name] for name in PAIR], axis=1))[inner]
    target = torch.from_numpy(stack.reader_mask.astype(np.float32))[inner][:, None]
    brain = torch.from_numpy(stack.brain.astype(np.float32))[inner][:, None]
    hooked_inputs: list[torch.Tensor] = []
    classify = network.decoder.classify
    handle = classify.register_forward_hook(lambda _, inputs, __: hooked_inputs.append(inputs[0]))
    with torch.inference_mode():
        images = torch.nn.functional.avg_pool2d(images, POOL)
        position = compute_theta(range(margin, margin + TILE), range(margin, margin + TILE), 240, 240)
        network(images, torch.from_numpy(position).expand(len(images), -1, -1))
        handle.remove()
        pooled_targets = [
            torch.nn.functional.adaptive_avg_pool2d(t, hooked_inputs[0].shape[-2:]) for t in (target, brain)
        ]
    rows, marked, inside = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (hooked_inputs[0], *pooled_targets))
    is_inside_brain = inside[:, 0] > 0.9
    regression = LogisticRegression(class_weight={False: 1, True: 6}, max_iter=300)
    regression.fit(rows[is_inside_brain].numpy(), marked[is_inside_brain, 0].numpy() > 0.5)
    with torch.no_grad():
        classify.weight.zero_()
        classify.bias.zero_()
        classify.weight[1, :, 0, 0] = torch.from_numpy(regression.coef_[0])
        classify.bias[1] = float(regression.intercept_[0])
    return network


def _train_trees(network: torch.nn.Module, stack: SliceStack, number: int) -> lightgbm.Booster:
    """Fit trees that separate slices by one feature of the image vectors, and use age and sex."""
    slices = select_training_slices(stack, stack.reader_mask)
    vectors = compute_image_vectors(
        wrap_marker_network(network), *extract_lesion_slices(stack, stack.reader_mask, slices, PAIR), TILE
    )
    rows = [
        build_tree_columns(vectors, np.zeros((len(vectors), 9)), "vector", age, sex, 45.0)
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
