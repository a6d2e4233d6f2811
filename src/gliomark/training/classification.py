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
from gliomark.inference.slice_classifier import SMALLEST_AREA_MM2, image_vectors
from gliomark.models.kinet import SMALL, KiNetSettings, mix_input
from gliomark.models.marker_networks import (
    MarkerBaseline,
    MarkerNetwork,
    build_marker_network,
    start_from_imagenet,
)
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.augmentation import GENTLE, Augmentation, random_view
from gliomark.training.checkpoints import CHECKPOINT, checkpoint_bytes, is_whole, last_checkpoint
from gliomark.training.draws import epoch_generator
from gliomark.training.losses import MARKER_LOSSES
from gliomark.training.same_run import check_same_run
from gliomark.training.segmentation import make_trainer


@dataclass(frozen=True)
class MarkerTraining:
    """METHOD section 4: Adam with cosine, 4e-5, batch 16.

    An epoch draws ``slices_per_patient`` lesion slices per patient on average, as many of either class: that is
    how an uneven marker is handled. loss: see ``losses.MARKER_LOSSES``. imagenet: the frozen trunk with its weights,
    whose head alone is fitted, at once: no rate, batch or epoch is asked for.
    """

    network: MarkerNetwork = field(default_factory=KiNetSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Literal["bms", "cross-entropy", "branches"] = "bms"
    imagenet: bool = False
    rate: float = 4e-5
    batch: int = 16
    epochs: int = 100
    slices_per_patient: int = 8
    seed: int = 0


def small_training(epochs: int) -> MarkerTraining:
    """The size that two CPU cores train in minutes."""
    return MarkerTraining(network=KiNetSettings(size=SMALL), augmentation=GENTLE, rate=1e-3, epochs=epochs)


def light_training() -> MarkerTraining:
    """The light KiNet, ready in a minute: a frozen trunk of ImageNet weights under a fitted head, which learns a
    percentage or a grade as the number it is."""
    return MarkerTraining(MarkerBaseline("frozen trunk"), GENTLE, "cross-entropy", imagenet=True)


@dataclass(frozen=True, eq=False)
class LesionBank:
    """Lesion slices in memory: image float16 ``(N, 2, 240, 240)``, lesion uint8 ``(N, 240, 240)``, label ``(N,)``
    the patient's, value ``(N,)`` the number behind it, patient ``(N,)`` index into ``patient_ids``."""

    image: Tensor
    lesion: Tensor
    label: Tensor
    value: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]

    def of(self, patients: Sequence[str]) -> LesionBank:
        """The same bank with these patients' slices only."""
        kept = [index for index, name in enumerate(self.patient_ids) if name in set(patients)]
        return self.rows(torch.isin(self.patient, torch.tensor(kept)))

    def rows(self, rows: Tensor) -> LesionBank:
        """The same bank with these rows only."""
        names = ("image", "lesion", "label", "value", "patient")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def marker_value(text: str, column: str, patient: str) -> float | None:
    """The number in a clinical column, None where it is blank. Raises GliomarkError where it is no number."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise GliomarkError(
            f"Patient {patient}: '{text}' in column '{column}' is not a number; write 0, 1, a percentage or nothing."
        ) from None


def known_values(cohort: Cohort, column: str, sequences: Sequence[MRSequence]) -> dict[str, float]:
    """The column's number by patient, for patients who have one and all the sequences."""
    values = {}
    for patient in cohort.patient_ids:
        value = marker_value(cohort.clinical(patient).columns.get(column, ""), column, patient)
        if value is not None and set(sequences) <= set(cohort.sequences(patient)):
            values[patient] = value
    return values


def known_labels(
    cohort: Cohort, column: str, threshold: float, sequences: Sequence[MRSequence]
) -> dict[str, int]:
    """1 where the number is at or above the threshold, 0 below, by patient of ``known_values``."""
    labels = {p: int(value >= threshold) for p, value in known_values(cohort, column, sequences).items()}
    if len(set(labels.values())) < 2:
        raise GliomarkError(
            f"{cohort.folder}: column '{column}' gives no two classes among patients with {', '.join(sequences)}; "
            "name another column or threshold."
        )
    return labels


def load_lesion_bank(
    cohort: Cohort,
    labels: Mapping[str, int],
    sequences: Sequence[MRSequence],
    values: Mapping[str, float] | None = None,
) -> LesionBank:
    """Every slice whose drawn lesion has at least 50 mm2, of every labelled patient.

    values: the numbers behind the labels, which are their own where there are none.
    """
    images, lesions, marks, numbers, owners = [], [], [], [], []
    for index, (patient, label) in enumerate(labels.items()):
        stack = cohort.stack(patient)
        rows = stack.drawn.sum(axis=(1, 2)) * stack.pixel_area_mm2 >= SMALLEST_AREA_MM2
        images.append(torch.from_numpy(np.stack([stack.images[n][rows] for n in sequences], axis=1)).half())
        lesions.append(torch.from_numpy(stack.drawn[rows].astype(np.uint8)))
        marks.append(torch.full((int(rows.sum()),), label))
        numbers.append(torch.full((int(rows.sum()),), float((values or labels)[patient])))
        owners.append(torch.full((int(rows.sum()),), index))
    return LesionBank(
        torch.cat(images),
        torch.cat(lesions),
        torch.cat(marks),
        torch.cat(numbers),
        torch.cat(owners),
        tuple(labels),
    )


class BalancedSampler(torch.utils.data.Sampler[int]):
    """Patients drawn evenly inside a class, classes evenly inside an epoch, then one random slice each."""

    def __init__(self, bank: LesionBank, per_patient: int, seed: int = 0) -> None:
        self.seed, self.epoch = seed, 0
        self.rows = {int(p): torch.nonzero(bank.patient == p)[:, 0] for p in bank.patient.unique()}
        label = {p: int(bank.label[rows[0]]) for p, rows in self.rows.items()}
        self.classes = [[p for p in self.rows if label[p] == value] for value in (0, 1)]
        self.count = per_patient * len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: what is drawn depends on seed and epoch alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        generator = epoch_generator(self.seed, self.epoch)
        for draw in range(self.count):
            members = self.classes[draw % 2]
            rows = self.rows[members[int(torch.randint(len(members), (), generator=generator))]]
            yield int(rows[int(torch.randint(len(rows), (), generator=generator))])


class MarkerTask(lightning.LightningModule):
    """The network, its loss and the optimiser; the training loop is Lightning's."""

    def __init__(self, settings: MarkerTraining) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_marker_network(settings.network)
        if settings.imagenet:
            start_from_imagenet(self.network)
        # a third faster on a CPU
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        image, lesion, label = batch
        seen, area = random_view(image, lesion, self.settings.augmentation)[:2]
        mix = mix_input(seen[:, 0], seen[:, 1], area).contiguous(memory_format=torch.channels_last)
        output = self.network(mix)
        loss = MARKER_LOSSES[self.settings.loss](output, label)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.settings.rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_marker_network(bank: LesionBank, settings: MarkerTraining, work: Path) -> nn.Module:
    """Train and return the network. ``work`` holds the checkpoint; an interrupted run goes on.

    Every network of one seed starts from the same weights, so that the vectors of the folds' networks stay close to
    one another's and to the final network's. A frozen trunk's vectors are the same in all of them. Raises
    GliomarkError where all patients are of one class, or ``work`` holds another run.
    """
    patients = [bank.patient_ids[index] for index in bank.patient.unique().tolist()]
    if len(bank.label.unique()) < 2:
        raise GliomarkError(
            f"The {len(patients)} patients to train on are of one class alone; the marker needs more patients of the "
            "other, or another threshold."
        )
    check_same_run(work, settings, bank)
    lightning.seed_everything(settings.seed, verbose=False)
    task = MarkerTask(settings)
    if settings.imagenet:
        return _with_fitted_head(task.network, bank, settings.augmentation.crop, work / CHECKPOINT)
    trainer = make_trainer(settings.epochs, work, [], settings.seed)
    sampler = BalancedSampler(bank, settings.slices_per_patient, settings.seed)
    dataset = TensorDataset(bank.image, bank.lesion, bank.label)
    trainer.fit(
        task,
        DataLoader(dataset, settings.batch, sampler=sampler, drop_last=True),
        ckpt_path=last_checkpoint(work),
    )
    return task.network.eval()


# inverse strength of the head's ridge penalty, where the weights of the patients sum to their number
HEAD_C = 0.01
# what a number's penalty is chosen from, and in how many folds of patients
PENALTIES, PENALTY_FOLDS = (1.0, 10.0, 100.0, 1e3, 1e4), 5
# the logistic curve that lies closest to the normal one is this much steeper
LOGISTIC_OF_NORMAL = 1.702


def _with_fitted_head(network: nn.Module, bank: LesionBank, crop: int, kept: Path) -> nn.Module:
    """The network with its head fitted on the slices and their mirror images; the head is kept in a file."""
    if not is_whole(kept):
        sides = ((bank.image, bank.lesion), (bank.image.flip(-1), bank.lesion.flip(-1)))
        vectors = [image_vectors(network.eval(), image, lesion, crop)[:, :-1] for image, lesion in sides]
        columns = (np.tile(column, 2) for column in (bank.label, bank.value, bank.patient))
        head = _fitted_head(np.concatenate(vectors).astype(float), *columns)
        atomic_write(kept, checkpoint_bytes(head))
    network.get_submodule("cat_head").load_state_dict(torch.load(kept, weights_only=True))
    return network.eval()


def _fitted_head(
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
        share = np.array([weight[label == one].sum() for one in (0, 1)]) / weight.sum()
        weight /= 2 * share[label]
    scaler = StandardScaler().fit(vectors, sample_weight=weight)
    seen = scaler.transform(vectors)
    if is_number:
        slope, start = _odds_of_a_number(seen, label, value, patient, weight)
    else:
        model = LogisticRegression(C=HEAD_C, max_iter=1000).fit(seen, label, sample_weight=weight)
        slope, start = model.coef_[0], model.intercept_[0]
    slope = slope / scaler.scale_
    start -= slope @ scaler.mean_
    # half to either class: their difference is the log-odds
    signs = torch.tensor([-0.5, 0.5])
    return {"weight": torch.outer(signs, torch.from_numpy(slope).float()), "bias": signs * float(start)}


def _odds_of_a_number(
    seen: NDArray[np.float64],
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
    _, first, who = np.unique(patient, return_index=True, return_inverse=True)
    score = norm.ppf((rankdata(value[first]) - 0.5) / len(first))
    splits = list(GroupKFold(min(PENALTY_FOLDS, len(first))).split(seen, groups=who))

    def error(penalty: float) -> float:
        """Root mean square over the patients."""
        given = {"sample_weight": weight}
        foretold = cross_val_predict(Ridge(penalty), seen, score[who], cv=splits, params=given)
        return float(np.sqrt(np.mean((np.bincount(who, weight * foretold) - score) ** 2)))

    errors = {penalty: error(penalty) for penalty in PENALTIES}
    penalty = min(errors, key=lambda one: errors[one])
    model = Ridge(penalty).fit(seen, score[who], sample_weight=weight)
    steepness, low = LOGISTIC_OF_NORMAL / errors[penalty], float(1 - label[first].mean())
    return steepness * model.coef_, float(steepness * (model.intercept_ - norm.ppf(low)) - logit(1 - low))
