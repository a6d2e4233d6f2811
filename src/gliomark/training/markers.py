"""Train a marker network on the MIX inputs of lesion slices, with the patient's label (method.md, section 4)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError, ConfigurationError
from gliomark.files import atomic_write
from gliomark.inference.slice_classifier import MIN_LESION_AREA_MM2
from gliomark.messages import message
from gliomark.models.entries import MarkerEntry, MarkerLoss, NetworkSettings, Recipe
from gliomark.models.network_io import SingleHeadNetwork, build_mix_input
from gliomark.models.published.kinet import KiNetSettings
from gliomark.models.registry import (
    build_marker_network,
    choose_marker_entry,
    find_marker_entry,
    load_pretrained_weights,
)
from gliomark.study import MRSequence
from gliomark.training.augmentation import GENTLE_AUGMENTATION, Augmentation, draw_random_view
from gliomark.training.checkpoints import (
    LAST_CHECKPOINT_NAME,
    find_last_checkpoint,
    is_checkpoint_complete,
    load_finished_state,
    serialise_checkpoint,
)
from gliomark.training.losses import LearntBMSLoss, build_marker_loss
from gliomark.training.network_vectors import compute_network_vectors
from gliomark.training.process_group import gather_batch, get_rank, share_object, synchronise_batch_norm
from gliomark.training.processes import (
    ONE_PROCESS,
    ProcessLayout,
    check_layout,
    get_node,
    run_in_processes,
)
from gliomark.training.random_seeds import create_epoch_generator
from gliomark.training.segmentation import create_trainer, create_training_loader, seed_process
from gliomark.training.slice_dataset import concatenate_and_release, parse_clinical_number
from gliomark.training.work_folder import check_work_folder


@dataclass(frozen=True)
class MarkerTrainingConfig:
    """Configuration of a marker training. The defaults are those of method.md, section 4.

    Adam with a cosine schedule, learning rate 4e-5, batches of 16.

    Attributes
    ----------
    network
        Settings of the network.
    augmentation
        Random views of the slices.
    loss
        See ``losses.build_marker_loss``.
    imagenet
        Start from the pretrained weights of the network's entry.
    rate
        Initial learning rate. Of a network with frozen features only a linear probe is fitted, without gradient
        descent, so that rate, batch and epochs have no effect.
    slices_per_patient
        Lesion slices drawn per patient and epoch, on average. The same number is drawn from either class, which
        balances the classes.
    largest_epoch
        Largest number of slices drawn per epoch, however many patients there are; None: no limit.
    """

    network: NetworkSettings = field(default_factory=KiNetSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: MarkerLoss = "bms"
    imagenet: bool = False
    rate: float = 4e-5
    batch: int = 16
    epochs: int = 100
    slices_per_patient: int = 8
    largest_epoch: int | None = None
    seed: int = 0


# learning rate of learnt loss weights: at the network's rate they would hardly leave their start
LOSS_WEIGHT_RATE = 0.01
LOSS_WEIGHTS_NAME = "loss_weights.json"

# published: as in method.md, section 4; small: two CPU cores train KiNet in minutes; pretrained (demo weights): two
# CPU cores need about a minute
RECIPE_CONFIGS: Mapping[Recipe, MarkerTrainingConfig] = {
    "published": MarkerTrainingConfig(),
    "small": MarkerTrainingConfig(augmentation=GENTLE_AUGMENTATION, rate=1e-3),
    "pretrained": MarkerTrainingConfig(augmentation=GENTLE_AUGMENTATION, imagenet=True),
}


def create_marker_config(
    recipe: Recipe, epochs: int = 100, entry: MarkerEntry[Any] | None = None
) -> MarkerTrainingConfig:
    """Create the configuration of a recipe for a network that has it; without an entry, the recipe's own network.

    The number of epochs has no effect on a network with frozen features.
    """
    entry = entry or choose_marker_entry(recipe)
    config = replace(RECIPE_CONFIGS[recipe], network=entry.recipes[recipe], loss=entry.loss)
    return config if entry.has_frozen_features else replace(config, epochs=epochs)


@dataclass(frozen=True, eq=False)
class LesionSliceDataset:
    """Lesion slices in memory.

    image float16 ``(N, 2, 240, 240)``; lesion mask uint8 ``(N, 240, 240)``; label ``(N,)`` and value ``(N,)``: the
    patient's label and the number from which it was derived; patient ``(N,)``: index in ``patient_ids``.
    """

    image: Tensor
    lesion: Tensor
    label: Tensor
    value: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]

    def select_patients(self, patients: Sequence[str]) -> LesionSliceDataset:
        """Return the data set with the slices of these patients only."""
        indices = [index for index, name in enumerate(self.patient_ids) if name in set(patients)]
        return self.select_rows(torch.isin(self.patient, torch.tensor(indices)))

    def select_rows(self, rows: Tensor) -> LesionSliceDataset:
        """Return the data set with these rows only; rows: indices ``(n,)`` or a boolean mask ``(N,)``."""
        names = ("image", "lesion", "label", "value", "patient")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def read_marker_values(cohort: Cohort, column: str, sequences: Sequence[MRSequence]) -> dict[str, float]:
    """Read a column's number by patient, for patients who have one and all the sequences."""
    values = {}
    for patient in cohort.patient_ids:
        value = parse_clinical_number(cohort.get_clinical(patient).columns.get(column, ""), column, patient)
        if value is not None and set(sequences) <= set(cohort.get_sequences(patient)):
            values[patient] = value
    return values


def read_marker_labels(
    cohort: Cohort, column: str, threshold: float, sequences: Sequence[MRSequence]
) -> dict[str, int]:
    """Read labels by patient: 1 if the column's number is at least the threshold, otherwise 0.

    Raises
    ------
    CohortError
        If the cohort has no such column, or no patients of both classes.
    """
    labels = {
        p: int(value >= threshold) for p, value in read_marker_values(cohort, column, sequences).items()
    }
    if len(set(labels.values())) == 2:
        return labels
    columns = sorted(set().union(*(cohort.get_clinical(patient).columns for patient in cohort.patient_ids)))
    if column not in columns:
        closest = get_close_matches(column, columns, n=1, cutoff=0.4)
        suggestion = f"did you mean '{closest[0]}'?" if closest else f"it has {', '.join(columns) or 'none'}."
        raise CohortError(f"{cohort.folder} has no column '{column}' with values; {suggestion}")
    raise CohortError(
        f"{cohort.folder}: column '{column}' has only one class among the {len(labels)} patients with a value and "
        f"{', '.join(sequences)}; choose another column or threshold."
    )


def load_lesion_slice_dataset(
    cohort: Cohort,
    labels: Mapping[str, int],
    sequences: Sequence[MRSequence],
    values: Mapping[str, float] | None = None,
) -> LesionSliceDataset:
    """Load all slices with a manually segmented lesion of at least 50 mm2, of every labelled patient.

    values: the numbers from which the labels were derived; without them the labels themselves.
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
        concatenate_and_release(images),
        concatenate_and_release(lesions),
        torch.cat(slice_labels),
        torch.cat(slice_values),
        torch.cat(patient_indices),
        tuple(labels),
    )


class ClassBalancedSampler(torch.utils.data.Sampler[int]):
    """Draws both classes equally often, patients of a class equally often, and one random slice per draw.

    largest_epoch: as in ``MarkerTrainingConfig``.
    """

    def __init__(
        self,
        slice_dataset: LesionSliceDataset,
        slices_per_patient: int,
        seed: int = 0,
        largest_epoch: int | None = None,
    ) -> None:
        self.seed, self.epoch = seed, 0
        self.rows = {
            int(p): torch.nonzero(slice_dataset.patient == p)[:, 0] for p in slice_dataset.patient.unique()
        }
        label = {p: int(slice_dataset.label[rows[0]]) for p, rows in self.rows.items()}
        self.classes = [[p for p in self.rows if label[p] == value] for value in (0, 1)]
        count = slices_per_patient * len(self.rows)
        self.count = count if largest_epoch is None else min(count, largest_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer. The draws depend only on seed and epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = create_epoch_generator(self.seed, self.epoch)
        for draw in range(self.count):
            members = self.classes[draw % 2]
            rows = self.rows[members[int(torch.randint(len(members), (), generator=generator))]]
            yield int(rows[int(torch.randint(len(rows), (), generator=generator))])


class MarkerTrainingModule(lightning.LightningModule):
    """Lightning module with the marker network, its loss and its optimiser."""

    def __init__(self, config: MarkerTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_marker_network(config.network)
        if config.imagenet:
            load_pretrained_weights(self.network)
        # channels-last order is a third faster on a CPU
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = build_marker_loss(config.loss)

    def training_step(self, batch: Sequence[Tensor], batch_index: int) -> Tensor:
        """Return the loss of random views of a batch: image ``(B, 2, H, W)``, lesion ``(B, H, W)``, label ``(B,)``."""
        image, lesion, label = batch
        view, lesion_view = draw_random_view(image, lesion, self.config.augmentation)[:2]
        mix = build_mix_input(view[:, 0], view[:, 1], lesion_view).contiguous(
            memory_format=torch.channels_last
        )
        seed_process(self.config.seed, self.current_epoch, batch_index)
        output = gather_batch(self.network(mix))
        loss = self.loss(output, gather_batch(label))
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create Adam with a cosine schedule."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.config.rate)
        if isinstance(self.loss, LearntBMSLoss):
            optimiser.add_param_group({"params": self.loss.parameters(), "lr": LOSS_WEIGHT_RATE})
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_marker_network(
    slice_dataset: LesionSliceDataset,
    config: MarkerTrainingConfig,
    work_folder: Path,
    layout: ProcessLayout = ONE_PROCESS,
) -> nn.Module:
    """Train a marker network; an interrupted training is resumed.

    Networks with the same seed start from the same weights, so that the vectors of the folds' networks stay close to
    each other and to those of the final network. Lesion-pooled features are identical in all of them.

    Parameters
    ----------
    slice_dataset
        Lesion slices of the training patients.
    config
        Configuration of the training.
    work_folder
        Folder of the checkpoint, and of ``LOSS_WEIGHTS_NAME`` if the weights of the loss are learnt.
    layout
        Processes over which every batch is split, see ``segmentation.train_segmentation_network``.

    Returns
    -------
    nn.Module
        The network, in evaluation mode.

    Raises
    ------
    CohortError
        If all patients have the same class, or the folder belongs to another run.
    ConfigurationError
        If the training cannot be split over the processes.
    """
    patients = [slice_dataset.patient_ids[index] for index in slice_dataset.patient.unique().tolist()]
    if len(slice_dataset.label.unique()) < 2:
        raise CohortError(
            f"All {len(patients)} training patients have the same class; add patients of the other class or choose "
            "another threshold."
        )
    check_marker_layout(layout, config)
    if get_node(layout) == 0:
        check_work_folder(work_folder, config, slice_dataset)
    if layout.count == 1:
        return _fit_network(slice_dataset, config, work_folder, layout)
    state = run_in_processes(_fit_network_as_process, (slice_dataset, config, work_folder, layout), layout)
    network = build_marker_network(config.network)
    network.load_state_dict(state)
    return network.eval()


def check_marker_layout(layout: ProcessLayout, config: MarkerTrainingConfig) -> None:
    """Check that a training can be split over the processes.

    Raises
    ------
    ConfigurationError
        If it cannot, or the network has frozen features, which are fitted without batches.
    """
    if layout.count > 1 and find_marker_entry(config.network).has_frozen_features:
        raise ConfigurationError(message("training-nothing-to-split"))
    check_layout(layout, config.batch)


def _fit_network(
    slice_dataset: LesionSliceDataset, config: MarkerTrainingConfig, work_folder: Path, layout: ProcessLayout
) -> nn.Module:
    """Train a network in this process, alone or together with the other processes of its group."""
    lightning.seed_everything(config.seed, verbose=False)
    module = MarkerTrainingModule(config)
    if find_marker_entry(config.network).has_frozen_features:
        return _fit_linear_probe(
            module.network, slice_dataset, config.augmentation.crop, work_folder / LAST_CHECKPOINT_NAME
        )
    if layout.count == 1 and (state := load_finished_state(work_folder, config.epochs)) is not None:
        # a study needs every network several times
        module.load_state_dict(state)
        _write_loss_weights(module, work_folder)
        return module.network.eval()
    synchronise_batch_norm(module.network)
    trainer = create_trainer(config.epochs, work_folder, [], config.seed, layout=layout)
    sampler = ClassBalancedSampler(
        slice_dataset, config.slices_per_patient, config.seed, config.largest_epoch
    )
    dataset = TensorDataset(slice_dataset.image, slice_dataset.lesion, slice_dataset.label)
    trainer.fit(
        module,
        create_training_loader(dataset, sampler, config.batch),
        ckpt_path=share_object(find_last_checkpoint(work_folder)),
    )
    if get_rank() == 0:
        _write_loss_weights(module, work_folder)
    return module.network.eval()


def _write_loss_weights(module: MarkerTrainingModule, work_folder: Path) -> None:
    """Write the weights of a loss that learns them."""
    if isinstance(module.loss, LearntBMSLoss):
        atomic_write(work_folder / LOSS_WEIGHTS_NAME, json.dumps(module.loss.read_weights()))


def _fit_network_as_process(*arguments: Any) -> dict[str, Tensor]:
    """Train a network in a process group; its weights."""
    return _fit_network(*arguments).cpu().state_dict()


# inverse of the probe's regularisation strength; the weights of the patients sum to their number
HEAD_INVERSE_REGULARISATION = 0.01
# candidate ridge penalties for a numeric target, and the number of folds in which one is chosen
RIDGE_PENALTIES, RIDGE_PENALTY_FOLDS = (1.0, 10.0, 100.0, 1e3, 1e4), 5
# slope of the logistic function that best approximates the normal distribution function
LOGISTIC_TO_NORMAL_SLOPE = 1.702


def _fit_linear_probe(
    network: nn.Module, slice_dataset: LesionSliceDataset, crop_size: int, head_path: Path
) -> nn.Module:
    """Fit the network's last layer on the slices and their mirror images; it is stored in a file for resuming."""
    if not is_checkpoint_complete(head_path):
        mirrored_pairs = (
            (slice_dataset.image, slice_dataset.lesion),
            (slice_dataset.image.flip(-1), slice_dataset.lesion.flip(-1)),
        )
        vectors = [
            compute_network_vectors(network.eval(), image, lesion, crop_size)[:, :-1]
            for image, lesion in mirrored_pairs
        ]
        columns = (
            np.tile(column, 2) for column in (slice_dataset.label, slice_dataset.value, slice_dataset.patient)
        )
        head = _fit_head_weights(np.concatenate(vectors).astype(float), *columns)
        atomic_write(head_path, serialise_checkpoint(head))
    cast(SingleHeadNetwork, network).cat_head.load_state_dict(torch.load(head_path, weights_only=True))
    return network.eval()


def _fit_head_weights(
    vectors: NDArray[np.float64],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    patient: NDArray[np.int64],
) -> dict[str, Tensor]:
    """Fit weight and bias of a linear layer on standardised vectors ``(N, D)``; label, value and patient ``(N,)``.

    All patients have the same weight, and so have both classes. A numeric target (percentage, grade) is fitted as a
    number.
    """
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
    # half to each of the two logits, whose difference is the log-odds
    signs = torch.tensor([-0.5, 0.5])
    return {"weight": torch.outer(signs, torch.from_numpy(slope).float()), "bias": signs * float(intercept)}


def _fit_numeric_log_odds(
    standardised: NDArray[np.float64],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    patient: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """Fit slope ``(D,)`` and intercept of the log-odds of reaching the threshold, for equally frequent classes.

    The target is the patients' ranks as normal scores (van der Waerden), fitted by ridge regression. The penalty is
    chosen by cross-validation over patients, on the mean prediction of a patient's slices; the error of that prediction
    scales the log-odds.
    """
    _, first_row, patient_index = np.unique(patient, return_index=True, return_inverse=True)
    score = norm.ppf((rankdata(value[first_row]) - 0.5) / len(first_row))
    splits = list(
        GroupKFold(min(RIDGE_PENALTY_FOLDS, len(first_row))).split(standardised, groups=patient_index)
    )

    def compute_error(penalty: float) -> float:
        """Return the cross-validated root mean square error over the patients."""
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
