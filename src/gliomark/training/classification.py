"""Training a marker network on the MIX inputs of lesion slices; the label is the patient's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gliomark.cohort.store import Cohort
from gliomark.files import atomic_write
from gliomark.inference.slice_classifier import MIN_LESION_AREA_MM2, compute_image_vectors
from gliomark.models.kinet import SMALL_KINET_SIZE, KiNetSettings, build_mix_input
from gliomark.models.marker_networks import (
    ComparisonMarkerSettings,
    MarkerNetworkSettings,
    build_marker_network,
    load_pretrained_features,
)
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.augmentation import GENTLE_AUGMENTATION, Augmentation, draw_random_view
from gliomark.training.checkpoints import (
    LAST_CHECKPOINT_NAME,
    find_last_checkpoint,
    is_checkpoint_complete,
    serialise_checkpoint,
)
from gliomark.training.draws import create_epoch_generator
from gliomark.training.losses import MARKER_LOSSES
from gliomark.training.same_run import check_work_folder
from gliomark.training.segmentation import create_trainer


@dataclass(frozen=True)
class MarkerTrainingConfig:
    """METHOD section 4: Adam with cosine, 4e-5, batch 16.

    An epoch draws ``slices_per_patient`` lesion slices per patient on average, as many of either class: that is
    how an uneven marker is handled. loss: see ``losses.MARKER_LOSSES``. imagenet: the frozen trunk with its weights,
    whose head alone is fitted, at once: no rate, batch or epoch is asked for.
    """

    network: MarkerNetworkSettings = field(default_factory=KiNetSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Literal["bms", "cross-entropy", "branches"] = "bms"
    imagenet: bool = False
    rate: float = 4e-5
    batch: int = 16
    epochs: int = 100
    slices_per_patient: int = 8
    seed: int = 0


def create_small_marker_config(epochs: int) -> MarkerTrainingConfig:
    """The size that two CPU cores train in minutes."""
    return MarkerTrainingConfig(
        network=KiNetSettings(size=SMALL_KINET_SIZE),
        augmentation=GENTLE_AUGMENTATION,
        rate=1e-3,
        epochs=epochs,
    )


def create_pretrained_marker_config() -> MarkerTrainingConfig:
    """The light KiNet, ready in a minute: a frozen trunk of ImageNet weights under a fitted head, which learns a
    percentage or a grade as the number it is."""
    return MarkerTrainingConfig(
        ComparisonMarkerSettings("frozen trunk"), GENTLE_AUGMENTATION, "cross-entropy", imagenet=True
    )


@dataclass(frozen=True, eq=False)
class LesionSliceDataset:
    """Lesion slices in memory: image float16 ``(N, 2, 240, 240)``, lesion uint8 ``(N, 240, 240)``, label ``(N,)``
    the patient's, value ``(N,)`` the number behind it, patient ``(N,)`` index into ``patient_ids``."""

    image: Tensor
    lesion: Tensor
    label: Tensor
    value: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]

    def select_patients(self, patients: Sequence[str]) -> LesionSliceDataset:
        """The same bank with these patients' slices only."""
        indices = [index for index, name in enumerate(self.patient_ids) if name in set(patients)]
        return self.select_rows(torch.isin(self.patient, torch.tensor(indices)))

    def select_rows(self, rows: Tensor) -> LesionSliceDataset:
        """The same bank with these rows only."""
        names = ("image", "lesion", "label", "value", "patient")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def parse_marker_value(text: str, column: str, patient: str) -> float | None:
    """The number in a clinical column, None where it is blank. Raises GliomarkError where it is no number."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise GliomarkError(
            f"Patient {patient}: '{text}' in column '{column}' is not a number; write 0, 1, a percentage or nothing."
        ) from None


def read_marker_values(cohort: Cohort, column: str, sequences: Sequence[MRSequence]) -> dict[str, float]:
    """The column's number by patient, for patients who have one and all the sequences."""
    values = {}
    for patient in cohort.patient_ids:
        value = parse_marker_value(cohort.get_clinical(patient).columns.get(column, ""), column, patient)
        if value is not None and set(sequences) <= set(cohort.get_sequences(patient)):
            values[patient] = value
    return values


def read_marker_labels(
    cohort: Cohort, column: str, threshold: float, sequences: Sequence[MRSequence]
) -> dict[str, int]:
    """1 where the number is at or above the threshold, 0 below, by patient of ``known_values``."""
    labels = {
        p: int(value >= threshold) for p, value in read_marker_values(cohort, column, sequences).items()
    }
    if len(set(labels.values())) < 2:
        raise GliomarkError(
            f"{cohort.folder}: column '{column}' gives no two classes among patients with {', '.join(sequences)}; "
            "name another column or threshold."
        )
    return labels


def load_lesion_slice_dataset(
    cohort: Cohort,
    labels: Mapping[str, int],
    sequences: Sequence[MRSequence],
    values: Mapping[str, float] | None = None,
) -> LesionSliceDataset:
    """Every slice whose drawn lesion has at least 50 mm2, of every labelled patient.

    values: the numbers behind the labels, which are their own where there are none.
    """
    images, lesions, slice_labels, slice_values, patient_indices = [], [], [], [], []
    for index, (patient, label) in enumerate(labels.items()):
        stack = cohort.read_stack(patient)
        rows = stack.reader_mask.sum(axis=(1, 2)) * stack.pixel_area_mm2 >= MIN_LESION_AREA_MM2
        images.append(torch.from_numpy(np.stack([stack.images[n][rows] for n in sequences], axis=1)).half())
        lesions.append(torch.from_numpy(stack.reader_mask[rows].astype(np.uint8)))
        slice_labels.append(torch.full((int(rows.sum()),), label))
        slice_values.append(torch.full((int(rows.sum()),), float((values or labels)[patient])))
        patient_indices.append(torch.full((int(rows.sum()),), index))
    return LesionSliceDataset(
        torch.cat(images),
        torch.cat(lesions),
        torch.cat(slice_labels),
        torch.cat(slice_values),
        torch.cat(patient_indices),
        tuple(labels),
    )


class ClassBalancedSampler(torch.utils.data.Sampler[int]):
    """Patients drawn evenly inside a class, classes evenly inside an epoch, then one random slice each."""

    def __init__(self, slice_dataset: LesionSliceDataset, slices_per_patient: int, seed: int = 0) -> None:
        self.seed, self.epoch = seed, 0
        self.rows = {
            int(p): torch.nonzero(slice_dataset.patient == p)[:, 0] for p in slice_dataset.patient.unique()
        }
        label = {p: int(slice_dataset.label[rows[0]]) for p, rows in self.rows.items()}
        self.classes = [[p for p in self.rows if label[p] == value] for value in (0, 1)]
        self.count = slices_per_patient * len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: what is drawn depends on seed and epoch alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        generator = create_epoch_generator(self.seed, self.epoch)
        for draw in range(self.count):
            members = self.classes[draw % 2]
            rows = self.rows[members[int(torch.randint(len(members), (), generator=generator))]]
            yield int(rows[int(torch.randint(len(rows), (), generator=generator))])


class MarkerTrainingModule(lightning.LightningModule):
    """The network, its loss and the optimiser; the training loop is Lightning's."""

    def __init__(self, config: MarkerTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_marker_network(config.network)
        if config.imagenet:
            load_pretrained_features(self.network)
        # a third faster on a CPU
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        image, lesion, label = batch
        view, lesion_view = draw_random_view(image, lesion, self.config.augmentation)[:2]
        mix = build_mix_input(view[:, 0], view[:, 1], lesion_view).contiguous(
            memory_format=torch.channels_last
        )
        output = self.network(mix)
        loss = MARKER_LOSSES[self.config.loss](output, label)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.config.rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_marker_network(
    slice_dataset: LesionSliceDataset, config: MarkerTrainingConfig, work_folder: Path
) -> nn.Module:
    """Train and return the network. ``work`` holds the checkpoint; an interrupted run goes on.

    Every network of one seed starts from the same weights, so that the vectors of the folds' networks stay close to
    one another's and to the final network's. A frozen trunk's vectors are the same in all of them. Raises
    GliomarkError where all patients are of one class, or ``work`` holds another run.
    """
    patients = [slice_dataset.patient_ids[index] for index in slice_dataset.patient.unique().tolist()]
    if len(slice_dataset.label.unique()) < 2:
        raise GliomarkError(
            f"The {len(patients)} patients to train on are of one class alone; the marker needs more patients of the "
            "other, or another threshold."
        )
    check_work_folder(work_folder, config, slice_dataset)
    lightning.seed_everything(config.seed, verbose=False)
    module = MarkerTrainingModule(config)
    if config.imagenet:
        return _fit_linear_probe(
            module.network, slice_dataset, config.augmentation.crop, work_folder / LAST_CHECKPOINT_NAME
        )
    trainer = create_trainer(config.epochs, work_folder, [], config.seed)
    sampler = ClassBalancedSampler(slice_dataset, config.slices_per_patient, config.seed)
    dataset = TensorDataset(slice_dataset.image, slice_dataset.lesion, slice_dataset.label)
    trainer.fit(
        module,
        DataLoader(dataset, config.batch, sampler=sampler, drop_last=True),
        ckpt_path=find_last_checkpoint(work_folder),
    )
    return module.network.eval()


# inverse strength of the head's ridge penalty, where the weights of the patients sum to their number
HEAD_INVERSE_REGULARISATION = 0.01
# what a number's penalty is chosen from, and in how many folds of patients
RIDGE_PENALTIES, RIDGE_PENALTY_FOLDS = (1.0, 10.0, 100.0, 1e3, 1e4), 5
# the logistic curve that lies closest to the normal one is this much steeper
LOGISTIC_TO_NORMAL_SLOPE = 1.702


def _fit_linear_probe(
    network: nn.Module, slice_dataset: LesionSliceDataset, crop_size: int, head_path: Path
) -> nn.Module:
    """The network with its head fitted on the slices and their mirror images; the head is kept in a file."""
    if not is_checkpoint_complete(head_path):
        mirrored_pairs = (
            (slice_dataset.image, slice_dataset.lesion),
            (slice_dataset.image.flip(-1), slice_dataset.lesion.flip(-1)),
        )
        vectors = [
            compute_image_vectors(network.eval(), image, lesion, crop_size)[:, :-1]
            for image, lesion in mirrored_pairs
        ]
        columns = (
            np.tile(column, 2) for column in (slice_dataset.label, slice_dataset.value, slice_dataset.patient)
        )
        head = _fit_head_weights(np.concatenate(vectors).astype(float), *columns)
        atomic_write(head_path, serialise_checkpoint(head))
    network.get_submodule("cat_head").load_state_dict(torch.load(head_path, weights_only=True))
    return network.eval()


def _fit_head_weights(
    vectors: NDArray[np.float64],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    patient: NDArray[np.int64],
) -> dict[str, Tensor]:
    """A linear layer's weight and bias, fitted on standardised vectors ``(N, D)``; a patient weighs the same however
    many the slices, a class as much as the other. A number (a percentage, a grade) is learnt as one."""
    weight = 1 / np.bincount(patient)[patient]
    is_number = len(np.unique(value)) > 2
    if not is_number:
        class_share = np.array([weight[label == one].sum() for one in (0, 1)]) / weight.sum()
        weight /= 2 * class_share[label]
    scaler = StandardScaler().fit(vectors, sample_weight=weight)
    standardised = scaler.transform(vectors)
    if is_number:
        slope, intercept = _fit_numeric_log_odds(standardised, label, value, patient, weight)
    else:
        model = LogisticRegression(C=HEAD_INVERSE_REGULARISATION, max_iter=1000).fit(
            standardised, label, sample_weight=weight
        )
        slope, intercept = model.coef_[0], model.intercept_[0]
    slope = slope / scaler.scale_
    intercept -= slope @ scaler.mean_
    # half to either class: their difference is the log-odds
    signs = torch.tensor([-0.5, 0.5])
    return {"weight": torch.outer(signs, torch.from_numpy(slope).float()), "bias": signs * float(intercept)}


def _fit_numeric_log_odds(
    standardised: NDArray[np.float64],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    patient: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Slope ``(D,)`` and start of the log-odds of being at or above the threshold, as if both classes were as frequent.

    The patients' ranks as normal scores (van der Waerden), by ridge regression. Its penalty is the one by which the
    mean over a patient's slices is nearest in patients it was not fitted on; how near says how sure a distance from the
    threshold is.
    """
    _, first_row, patient_index = np.unique(patient, return_index=True, return_inverse=True)
    score = norm.ppf((rankdata(value[first_row]) - 0.5) / len(first_row))
    splits = list(
        GroupKFold(min(RIDGE_PENALTY_FOLDS, len(first_row))).split(standardised, groups=patient_index)
    )

    def compute_error(penalty: float) -> float:
        """Root mean square over the patients."""
        fit_parameters = {"sample_weight": weight}
        predicted = cross_val_predict(
            Ridge(penalty), standardised, score[patient_index], cv=splits, params=fit_parameters
        )
        return float(np.sqrt(np.mean((np.bincount(patient_index, weight * predicted) - score) ** 2)))

    errors = {penalty: compute_error(penalty) for penalty in RIDGE_PENALTIES}
    penalty = min(errors, key=lambda one: errors[one])
    model = Ridge(penalty).fit(standardised, score[patient_index], sample_weight=weight)
    steepness, negative_share = LOGISTIC_TO_NORMAL_SLOPE / errors[penalty], float(1 - label[first_row].mean())
    return steepness * model.coef_, float(
        steepness * (model.intercept_ - norm.ppf(negative_share)) - logit(1 - negative_share)
    )
