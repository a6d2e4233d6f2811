"""Training of chapter 3's networks at their published size, five folds each, on one GPU within a few minutes.

    python -m gpu.segmentation_benchmark --pack cohort.zip --out OUT --seconds 540

Each network has a process, which compiles its training step while another network trains. Only one network trains at a
time, its five folds concurrently (``fold_training``). A piece is one network, seed and fold: once it is trained and
scored, a line is appended to ``OUT/pieces.jsonl``, and later calls skip it. The most important pieces come first;
pieces that do not fit into the remaining time are not started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from gpu.fold_training import (
    FoldTrainer,
    TrainingFold,
    build_slice_bank,
    build_training_fold,
    create_start,
    draw_schedule,
    predict_segmentations,
    remove_small_lesions,
)
from gpu.packed_cohort import PackedPatient, read_pack
from torch.utils.flop_counter import FlopCounterMode

from gliomark.evaluation.segmentation_metrics import compute_segmentation_scores
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.entries import SegmentationSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.registry import build_segmentation_network
from gliomark.training.segmentation import SegmentationTrainingConfig

SEQUENCE = "FLAIR"
FOLDS = 5
# steps between two synchronisations with the GPU
SYNCHRONISE_EVERY = 25
# per group, for the start and for the segmentations after the training
OVERHEAD_SECONDS = 25.0
# a smoke test uses every twelfth patient
SMOKE_STEP = 12
# ways to execute a step; if a worker dies in one mode, the network is tried in the next
EXECUTION_MODES = ("compiled", "eager", "plain")

PLAIN_SWIN_UNET = MIGNetSettings(fpg=False, guidance=False, iag=False)
FULL_MIGNET = MIGNetSettings()
# tables 3-1 and 3-2 at published size; the U-Net of width 24 has as many operations per slice as Swin-UNet
NETWORKS: dict[str, SegmentationSettings] = {
    "MIG-Net": FULL_MIGNET,
    "Swin-UNet": PLAIN_SWIN_UNET,
    "U-Net of Swin-UNet's size": UNetSettings(width=24),
    "U-Net": UNetSettings(width=64),
    "guidance": replace(PLAIN_SWIN_UNET, guidance=True),
    "IAG": replace(PLAIN_SWIN_UNET, iag=True),
    "FPG": replace(PLAIN_SWIN_UNET, fpg=True),
    "guidance + IAG": replace(FULL_MIGNET, fpg=False),
    "FPG + guidance": replace(FULL_MIGNET, iag=False),
    "FPG + IAG": replace(FULL_MIGNET, guidance=False),
    "MIG-Net, gates start open": replace(FULL_MIGNET, gates_start="open"),
    "MIG-Net, guidance starts passing through": replace(FULL_MIGNET, guidance_start="pass-through"),
    "MIG-Net, grading weight 0.05": FULL_MIGNET,
    "MIG-Net, grading weight 0": FULL_MIGNET,
}
GRADING_WEIGHTS = {"MIG-Net, grading weight 0.05": 0.05, "MIG-Net, grading weight 0": 0.0}
FIRST_NETWORKS = ("MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size", "U-Net")
# approximate duration of a step relative to Swin-UNet, used to choose the number of steps
RELATIVE_STEP_TIMES = {"MIG-Net": 1.15, "Swin-UNet": 1.0, "U-Net of Swin-UNet's size": 0.6, "U-Net": 2.0}
# share of the time for the first seed of the first four networks, and lower limit of the number of steps
FIRST_SEED_SHARE, MIN_STEPS = 0.6, 800
# a training with a higher ratio of last to first loss, or a lower Dice, has failed: stop to save GPU time
MAX_LOSS_RATIO, MIN_DICE = 0.8, 0.2
REPEATED_NETWORKS = ("MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size")


@dataclass(frozen=True)
class FoldGroup:
    """Five folds of one network and seed, trained concurrently."""

    network: str
    seed: int


def list_groups(order: str) -> list[FoldGroup]:
    """List groups by importance; order: whether further "seeds" or "parts" (the ablation) come second."""
    seeds = [FoldGroup(name, seed) for seed in (2, 3) for name in REPEATED_NETWORKS]
    parts = [FoldGroup(name, 1) for name in NETWORKS if name not in FIRST_NETWORKS]
    rest = seeds + parts if order == "seeds" else parts + seeds
    return [*(FoldGroup(name, 1) for name in FIRST_NETWORKS), *rest]


def create_training_settings(network: str, smoke: bool) -> SegmentationTrainingConfig:
    """Create the published training settings; smoke: networks of a few channels."""
    settings = NETWORKS[network]
    if smoke:
        tiny = SwinSize(8, (1, 1, 1), (1, 1, 2))
        settings = (
            replace(settings, width=4) if isinstance(settings, UNetSettings) else replace(settings, size=tiny)
        )
    batch = 2 if smoke else 16
    weight = GRADING_WEIGHTS.get(network, 0.5)
    return SegmentationTrainingConfig(network=settings, batch=batch, grading_weight=weight)


# ---- training process ---------------------------------------------------------------------------------


def run_worker(conn: Connection, network: str, options: argparse.Namespace) -> None:
    """Compile the training step of a network, send "ready", then execute the commands received."""
    torch.set_num_threads(2)
    # MONAI's U-Net tests for skip connections with torch.jit.isinstance, which the compiler does not support
    torch.jit.isinstance = isinstance  # type: ignore[assignment]
    torch.backends.cudnn.benchmark = True
    started, on_gpu = time.perf_counter(), torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    patients = read_pack(Path(options.pack), (SEQUENCE,), SMOKE_STEP if options.smoke else 1)
    bank = build_slice_bank(patients, SEQUENCE)
    device_bank = replace(
        bank, image=bank.image.to(device), lesion=bank.lesion.to(device), grade=bank.grade.to(device)
    )
    settings = create_training_settings(network, options.smoke)
    lanes = [
        FoldTrainer(device_bank, settings, options.most_steps, device, options.way == "compiled")
        for _ in range(FOLDS)
    ]
    for lane in lanes:
        lane.capture_graph(options.way != "plain")
    fold_of = {p.record.patient: p.record.fold for p in patients}
    training_folds = [
        build_training_fold(bank, [p for p, own in fold_of.items() if own != fold]) for fold in range(FOLDS)
    ]
    start_seconds = time.perf_counter() - started
    facts = {"network": network, "way": options.way, "start_seconds": start_seconds, **compute_cost(settings)}
    conn.send(("ready", facts))
    while True:
        command, value = conn.recv()
        if command == "stop":
            return
        if command == "measure":
            conn.send(("measured", {"network": network, **measure_step_time(lanes, value)}))
        else:
            for message in train_folds(lanes, training_folds, patients, settings, *value):
                conn.send(message)


def compute_cost(settings: SegmentationTrainingConfig) -> dict[str, float]:
    """Compute parameters (millions) and GFLOP (two per multiply-add) of one forward pass on one slice."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = build_segmentation_network(settings.network).eval()
        network(torch.zeros(1, 1, settings.view_size, settings.view_size), torch.zeros(1, 2, 3))
    parameters = sum(p.numel() for p in network.parameters())
    return {"million_parameters": parameters / 1e6, "gflop_per_slice": counter.get_total_flops() / 1e9}


def measure_step_time(lanes: Sequence[FoldTrainer], rounds: int) -> dict[str, float]:
    """Measure a step of one fold alone and of all folds, in milliseconds; the trainers must be reset afterwards."""
    times = []
    for chosen in (lanes[:1], lanes):
        for lane in chosen:
            lane.counter.zero_()
        _synchronise()
        started = time.perf_counter()
        for _ in range(rounds):
            for lane in chosen:
                lane.run_next_step()
        _synchronise()
        times.append(1000 * (time.perf_counter() - started) / rounds)
    return {"step_ms": times[0], "round_ms": times[1]}


def train_folds(
    lanes: Sequence[FoldTrainer],
    training_folds: Sequence[TrainingFold],
    patients: Sequence[PackedPatient],
    settings: SegmentationTrainingConfig,
    seed: int,
    steps: int,
) -> Iterator[tuple[str, dict]]:
    """Train all folds concurrently; yields a "piece" for each, with a file of its masks, then "done"."""
    began = time.perf_counter()
    fresh, fields = create_start(settings, seed)
    fold_of_slice = np.repeat([p.record.fold for p in patients], [p.record.slices for p in patients])
    for fold, lane in enumerate(lanes):
        course = draw_schedule(training_folds[fold], settings, steps, seed, fold)
        # check the slices that are actually fed to the network
        assert fold not in fold_of_slice[course.rows.unique().numpy()], (
            "the training set contains a test patient"
        )
        lane.reset_to(course, fresh, fields)
    _synchronise()
    started = time.perf_counter()
    for step in range(steps):
        for lane in lanes:
            lane.run_next_step()
        if step % SYNCHRONISE_EVERY == 0:
            _synchronise()
    _synchronise()
    seconds = time.perf_counter() - started
    for fold, lane in enumerate(lanes):
        losses = lane.losses.cpu().numpy()
        piece = {
            "seed": seed,
            "fold": fold + 1,
            "steps": steps,
            "train_seconds": seconds,
            "first_loss": float(losses[:20].mean()),
            "last_loss": float(losses[max(0, steps - 50) : steps].mean()),
        }
        outlines, grades = {}, {}
        for name, mask, grade in predict_segmentations(
            lane, [p for p in patients if p.record.fold == fold], SEQUENCE
        ):
            outlines[name], grades[name] = np.packbits(mask), grade
        path = Path(mkdtemp()) / "outlines.npz"
        np.savez(path, **outlines)
        yield "piece", {**piece, "grades": grades, "path": str(path)}
    yield "done", {"seconds": time.perf_counter() - began, "train_seconds": seconds}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---- scoring on the CPU -------------------------------------------------------------------------------

_PATIENT_BY_ID: dict[str, PackedPatient] = {}


def prepare_scoring(pack: str) -> None:
    """Read the patients' masks once in each scoring process."""
    torch.set_num_threads(1)
    _PATIENT_BY_ID.update({p.record.patient: p for p in read_pack(Path(pack), ())})


def score_piece(piece: dict) -> dict:
    """Replace the masks of a piece by the scores of its patients."""
    rows = []
    with np.load(piece["path"]) as outlines:
        for name in outlines:
            patient = _PATIENT_BY_ID[name]
            count = patient.lesion.size
            mask = np.unpackbits(outlines[name], count=count).astype(bool).reshape(patient.lesion.shape)
            mask = remove_small_lesions(mask, patient)
            scores = asdict(
                compute_segmentation_scores(patient.lesion, mask, patient.brain, patient.record.spacing_mm)
            )
            scores = {k: None if isinstance(v, float) and v != v else v for k, v in scores.items()}
            grade = piece["grades"][name]
            rows.append(
                {
                    "patient": name,
                    **scores,
                    "lesion_free": list(scores["lesion_free"]),
                    "high_grade": patient.record.high_grade,
                    "high_grade_probability": None if grade != grade else grade,
                }
            )
    Path(piece["path"]).unlink()
    piece_fields = {k: v for k, v in piece.items() if k not in ("path", "grades")}
    return {**piece_fields, "patients": rows}


# ---- main process -------------------------------------------------------------------------------------


class BenchmarkRunner:
    """Scheduler of the training processes: starts them, assigns the GPU and writes results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + options.seconds
        self.out = Path(options.out)
        self.pieces = self.out / "pieces.jsonl"
        self.context = get_context("spawn")
        self.workers: dict[str, tuple] = {}
        self.record_by_network: dict[str, dict] = {}
        self.mode_by_network: dict[str, str] = {}
        self.steps = options.steps
        self.scoring: list[Future] = []
        self.pool = ProcessPoolExecutor(
            options.scorers, self.context, initializer=prepare_scoring, initargs=(options.pack,)
        )

    def compute_seconds_left(self) -> float:
        """Compute the seconds until the end."""
        return self.deadline - time.monotonic()

    def log(self, *words: object) -> None:
        """Print a line with the elapsed time."""
        print(f"[{self.options.seconds - self.compute_seconds_left():6.1f} s]", *words, flush=True)

    def find_unfinished_groups(self) -> list[FoldGroup]:
        """Find the groups with a piece that is not in ``pieces.jsonl``."""
        chosen = [
            g
            for g in list_groups(self.options.order)
            if not self.options.only or g.network in self.options.only
        ]
        done: dict[tuple[str, int], set[int]] = {}
        if self.pieces.exists():
            for line in self.pieces.read_text("utf-8").splitlines():
                piece = json.loads(line)
                done.setdefault((piece["network"], piece["seed"]), set()).add(piece["fold"])
        return [g for g in chosen if len(done.get((g.network, g.seed), ())) < FOLDS][: self.options.groups]

    def spawn_workers(self, waiting_groups: Sequence[FoldGroup]) -> None:
        """Start workers for the next groups, up to the limit, and stop those no longer needed."""
        wanted_networks = list(dict.fromkeys(g.network for g in waiting_groups))
        for name in [n for n in self.workers if n not in wanted_networks]:
            self.stop_worker(name)
        for name in wanted_networks:
            if len(self.workers) >= self.options.workers:
                return
            if name not in self.workers:
                parent_connection, child_connection = self.context.Pipe()
                worker_options = argparse.Namespace(
                    **{**vars(self.options), "way": self.mode_by_network.get(name, self.options.way)}
                )
                process = self.context.Process(
                    target=run_worker, args=(child_connection, name, worker_options)
                )
                process.start()
                child_connection.close()
                self.workers[name] = (process, parent_connection)

    def stop_worker(self, name: str) -> None:
        """Stop the worker of a network."""
        process, conn = self.workers.pop(name)
        self.record_by_network.pop(name, None)
        with contextlib.suppress(OSError):
            conn.send(("stop", None))
        process.join(5)
        if process.is_alive():
            process.terminate()

    def receive_messages(self, busy: str | None) -> Iterator[tuple[str, str, dict]]:
        """Yield the next messages of the workers as (network, kind, value); "died" for a worker that has ended."""
        connections = {conn: name for name, (_, conn) in self.workers.items()}
        for conn in wait(list(connections), timeout=1.0):
            name = connections[conn]
            try:
                yield (name, *conn.recv())
            except EOFError:
                yield name, "died", {"busy": name == busy}

    def estimate_seconds(self, group: FoldGroup) -> float:
        """Estimate the duration of a group in seconds from the measured speed of its network."""
        return self.record_by_network[group.network]["round_ms"] / 1000 * self.steps + OVERHEAD_SECONDS

    def choose_steps(self, network: str) -> None:
        """Choose the number of steps, the same for all networks, from the time reserved for the first seed."""
        unit = self.record_by_network[network]["round_ms"] / 1000 / RELATIVE_STEP_TIMES.get(network, 1.0)
        steps = FIRST_SEED_SHARE * self.compute_seconds_left() / (sum(RELATIVE_STEP_TIMES.values()) * unit)
        self.steps = max(MIN_STEPS, min(self.options.most_steps, int(steps // 100) * 100))
        self.log(f"{self.steps} steps for every network")

    def write_scored_pieces(self, wait_for_all: bool = False) -> None:
        """Append scored pieces to ``pieces.jsonl``; stop if a training has failed."""
        for future in [f for f in self.scoring if wait_for_all or f.done()]:
            piece = future.result()
            with self.pieces.open("a", encoding="utf-8") as file:
                file.write(json.dumps(piece) + "\n")
            dice = np.mean([row["dice"] for row in piece["patients"] if row["dice"] is not None])
            self.log(f"{piece['network']}, seed {piece['seed']}, fold {piece['fold']}: Dice {dice:.3f}")
            self.scoring.remove(future)
            broken = not piece["last_loss"] < MAX_LOSS_RATIO * piece["first_loss"] or dice < MIN_DICE
            if broken and not self.options.smoke:
                self.log(f"training failed: loss {piece['first_loss']:.3f} to {piece['last_loss']:.3f}")
                self.deadline = time.monotonic()

    def run(self) -> None:
        """Train all groups that are unfinished and fit into the time."""
        waiting_groups, running_group = self.find_unfinished_groups(), None
        self.spawn_workers(waiting_groups)
        # networks whose workers died in every mode are no longer in ``waiting_groups``
        while (waiting_groups or running_group) and self.compute_seconds_left() > 0:
            for name, kind, value in self.receive_messages(running_group and running_group.network):
                running_group, waiting_groups = self.handle_message(
                    name, kind, value, running_group, waiting_groups
                )
            self.write_scored_pieces()
            running_group = running_group or self.start_next_group(waiting_groups)
        self.write_scored_pieces(wait_for_all=True)
        for name in list(self.workers):
            self.stop_worker(name)
        self.pool.shutdown()

    def start_next_group(self, waiting_groups: list[FoldGroup]) -> FoldGroup | None:
        """Start the first group whose network is ready and that fits into the remaining time; None if there is none.

        The group is removed from ``waiting_groups``; groups that no longer fit are dropped.
        """
        for group in [g for g in waiting_groups if g.network in self.record_by_network]:
            known = "round_ms" in self.record_by_network[group.network]
            waiting_groups.remove(group)
            if known and not self.steps:
                self.choose_steps(group.network)
            if known and self.estimate_seconds(group) > self.compute_seconds_left():
                self.log(f"{group.network}, seed {group.seed}: not enough time left")
                continue
            # speed is measured while no other network uses the GPU
            command = ("train", (group.seed, self.steps)) if known else ("measure", self.options.rounds)
            self.workers[group.network][1].send(command)
            return group
        return None

    def handle_message(
        self,
        name: str,
        message_kind: str,
        value: dict,
        running_group: FoldGroup | None,
        waiting_groups: list[FoldGroup],
    ):
        """Handle a worker's message; the busy group and the waiting groups afterwards."""
        if message_kind == "ready":
            self.log(name, "ready", json.dumps(value))
            self.record_by_network[name] = dict(value)
        elif message_kind == "measured":
            self.record_by_network[name] |= value
            self.log(name, "measured", json.dumps(value))
            with (self.out / "speeds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.record_by_network[name]) + "\n")
            waiting_groups, running_group = [running_group, *waiting_groups], None
        elif message_kind == "piece":
            piece = {"network": name, **value}
            self.scoring.append(self.pool.submit(score_piece, piece))
        elif message_kind == "done":
            self.log(name, f"trained and segmented in {value['seconds']:.1f} s")
            running_group = None
            self.spawn_workers(waiting_groups)
        else:
            way = self.mode_by_network.get(name, self.options.way)
            self.log(name, f"DIED ({way})")
            self.workers.pop(name)
            self.record_by_network.pop(name, None)
            if value["busy"]:
                waiting_groups, running_group = [running_group, *waiting_groups], None
            if way == EXECUTION_MODES[-1]:
                waiting_groups = [g for g in waiting_groups if g.network != name]
            else:
                self.mode_by_network[name] = EXECUTION_MODES[EXECUTION_MODES.index(way) + 1]
            self.spawn_workers(waiting_groups)
        return running_group, waiting_groups


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--steps", type=int, default=0, help="0: chosen from speed and --seconds")
    parser.add_argument("--most-steps", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--scorers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--groups", type=int, default=100, help="maximum number of groups")
    parser.add_argument("--order", choices=["seeds", "parts"], default="seeds")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--way", choices=EXECUTION_MODES, default=EXECUTION_MODES[0])
    parser.add_argument("--smoke", action="store_true", help="networks of a few channels")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_arguments()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    BenchmarkRunner(options).run()
