"""Chapter 3's networks at their published size, five folds each, on one GPU within a few minutes.

    python -m gpu.study --pack cohort.zip --out OUT --seconds 540

A process per network compiles its step while another trains; one at a time has the GPU, its five folds side by side
(``lanes``). A piece is one network, fold and seed: as soon as it is trained and its outlines are scored, its line is
added to ``OUT/pieces.jsonl``, and a later call leaves it out. The most valuable pieces come first; what does not fit
into the seconds is not begun.
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
from gpu.lanes import (
    Lane,
    Learning,
    bank_of,
    draw_course,
    learning_of,
    read,
    start_of,
    without_small_pieces,
)
from gpu.pack import PackedPatient, read_pack
from torch.utils.flop_counter import FlopCounterMode

from gliomark.evaluation.outlines import compare
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.segmentation_baselines import BaselineSettings
from gliomark.models.segmentation_networks import NetworkSettings, build_segmentation_network
from gliomark.models.swin_unet import SwinSize
from gliomark.training.segmentation import SegmentationTraining

SEQUENCE = "FLAIR"
FOLDS = 5
# steps between two looks at the clock
LOOK_EVERY = 25
# of a group, for its start and for the outlines after the training
READING_SECONDS = 25.0
# every so many patients make a smoke test's cohort
SMOKE_STEP = 12
# how a step is run; a network that dies one way is tried the next
WAYS = ("compiled", "eager", "plain")

OFF = MIGNetSettings(fpg=False, guidance=False, iag=False)
FULL = MIGNetSettings()
# tables 3-1 and 3-2 at the published size; the U-Net of width 24 has as many operations per slice as Swin-UNet
NETWORKS: dict[str, NetworkSettings] = {
    "MIG-Net": FULL,
    "Swin-UNet": OFF,
    "U-Net of Swin-UNet's size": BaselineSettings("U-Net", 1, 24),
    "U-Net": BaselineSettings("U-Net", 1, 64),
    "guidance": replace(OFF, guidance=True),
    "IAG": replace(OFF, iag=True),
    "FPG": replace(OFF, fpg=True),
    "guidance + IAG": replace(FULL, fpg=False),
    "FPG + guidance": replace(FULL, iag=False),
    "FPG + IAG": replace(FULL, guidance=False),
    "MIG-Net, gates start open": replace(FULL, gates_start="open"),
    "MIG-Net, guidance starts passing through": replace(FULL, guidance_start="pass-through"),
    "MIG-Net, grading weight 0.05": FULL,
    "MIG-Net, grading weight 0": FULL,
}
GRADING_WEIGHTS = {"MIG-Net, grading weight 0.05": 0.05, "MIG-Net, grading weight 0": 0.0}
FIRST = ("MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size", "U-Net")
# how long a step takes, roughly, in units of Swin-UNet's: by these the number of steps is chosen
UNITS = {"MIG-Net": 1.15, "Swin-UNet": 1.0, "U-Net of Swin-UNet's size": 0.6, "U-Net": 2.0}
# share of the time for the first seed of the four; steps are a multiple of a hundred, between the two
FIRST_SHARE, LEAST_STEPS = 0.6, 800
# a training that ends no better than so is broken: stop, and keep the machine's time
HIGHEST_END, LOWEST_DICE = 0.8, 0.2
AGAIN = ("MIG-Net", "Swin-UNet", "U-Net of Swin-UNet's size")


@dataclass(frozen=True)
class Group:
    """Five folds of one network and seed, trained side by side."""

    network: str
    seed: int


def groups(order: str) -> list[Group]:
    """The most valuable first. order: "seeds" or "parts", which comes second."""
    seeds = [Group(name, seed) for seed in (2, 3) for name in AGAIN]
    parts = [Group(name, 1) for name in NETWORKS if name not in FIRST]
    rest = seeds + parts if order == "seeds" else parts + seeds
    return [*(Group(name, 1) for name in FIRST), *rest]


def training(network: str, smoke: bool) -> SegmentationTraining:
    """The published recipe; smoke: the same steps on networks of a few channels."""
    settings = NETWORKS[network]
    if smoke:
        tiny = SwinSize(8, (1, 1, 1), (1, 1, 2))
        settings = (
            replace(settings, width=4)
            if isinstance(settings, BaselineSettings)
            else replace(settings, size=tiny)
        )
    batch = 2 if smoke else 16
    weight = GRADING_WEIGHTS.get(network, 0.5)
    return SegmentationTraining(network=settings, batch=batch, grading_weight=weight)


# ---- the process that trains one network --------------------------------------------------------------


def work(conn: Connection, network: str, options: argparse.Namespace) -> None:
    """Compile, say ready, then train each seed that is asked for."""
    torch.set_num_threads(2)
    # MONAI's U-Net asks so whether there is a skip connection, which the compiler cannot follow
    torch.jit.isinstance = isinstance  # type: ignore[assignment]
    torch.backends.cudnn.benchmark = True
    started, on_gpu = time.perf_counter(), torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    patients = read_pack(Path(options.pack), (SEQUENCE,), SMOKE_STEP if options.smoke else 1)
    bank = bank_of(patients, SEQUENCE)
    here = replace(
        bank, image=bank.image.to(device), lesion=bank.lesion.to(device), grade=bank.grade.to(device)
    )
    settings = training(network, options.smoke)
    lanes = [
        Lane(here, settings, options.most_steps, device, options.way == "compiled") for _ in range(FOLDS)
    ]
    for lane in lanes:
        lane.capture(options.way != "plain")
    fold_of = {p.facts.patient: p.facts.fold for p in patients}
    learning = [learning_of(bank, [p for p, own in fold_of.items() if own != fold]) for fold in range(FOLDS)]
    start_seconds = time.perf_counter() - started
    facts = {"network": network, "way": options.way, "start_seconds": start_seconds, **cost(settings)}
    conn.send(("ready", facts))
    while True:
        command, value = conn.recv()
        if command == "stop":
            return
        if command == "measure":
            conn.send(("measured", {"network": network, **measure(lanes, value)}))
        else:
            for message in train(lanes, learning, patients, settings, *value):
                conn.send(message)


def cost(settings: SegmentationTraining) -> dict[str, float]:
    """Parameters (millions) and operations (GFLOP, a multiply-add is two) of one slice forward."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = build_segmentation_network(settings.network).eval()
        network(torch.zeros(1, 1, settings.side, settings.side), torch.zeros(1, 2, 3))
    parameters = sum(p.numel() for p in network.parameters())
    return {"million_parameters": parameters / 1e6, "gflop_per_slice": counter.get_total_flops() / 1e9}


def measure(lanes: Sequence[Lane], rounds: int) -> dict[str, float]:
    """Milliseconds of one step of one lane alone, and of a round of all lanes; lanes are to be reset afterwards."""
    times = []
    for chosen in (lanes[:1], lanes):
        for lane in chosen:
            lane.counter.zero_()
        _wait()
        started = time.perf_counter()
        for _ in range(rounds):
            for lane in chosen:
                lane.go()
        _wait()
        times.append(1000 * (time.perf_counter() - started) / rounds)
    return {"step_ms": times[0], "round_ms": times[1]}


def train(
    lanes: Sequence[Lane],
    learning: Sequence[Learning],
    patients: Sequence[PackedPatient],
    settings: SegmentationTraining,
    seed: int,
    steps: int,
) -> Iterator[tuple[str, dict]]:
    """Five folds at once; a "piece" for each, with a file of its outlines, then "done"."""
    began = time.perf_counter()
    fresh, fields = start_of(settings, seed)
    whose = np.repeat([p.facts.fold for p in patients], [p.facts.slices for p in patients])
    for fold, lane in enumerate(lanes):
        course = draw_course(learning[fold], settings, steps, seed, fold)
        # asked of the slices that are really fed
        assert fold not in whose[course.rows.unique().numpy()], "a test patient is trained on"
        lane.reset(course, fresh, fields)
    _wait()
    started = time.perf_counter()
    for step in range(steps):
        for lane in lanes:
            lane.go()
        if step % LOOK_EVERY == 0:
            _wait()
    _wait()
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
        for name, mask, grade in read(lane, [p for p in patients if p.facts.fold == fold], SEQUENCE):
            outlines[name], grades[name] = np.packbits(mask), grade
        path = Path(mkdtemp()) / "outlines.npz"
        np.savez(path, **outlines)
        yield "piece", {**piece, "grades": grades, "path": str(path)}
    yield "done", {"seconds": time.perf_counter() - began, "train_seconds": seconds}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---- scoring, on the processor --------------------------------------------------------------------------

_PATIENTS: dict[str, PackedPatient] = {}


def prepare_scoring(pack: str) -> None:
    """Read the masks once in each scoring process."""
    torch.set_num_threads(1)
    _PATIENTS.update({p.facts.patient: p for p in read_pack(Path(pack), ())})


def score(piece: dict) -> dict:
    """The piece with its patients' scores in place of its outlines."""
    rows = []
    with np.load(piece["path"]) as outlines:
        for name in outlines:
            patient = _PATIENTS[name]
            count = patient.lesion.size
            mask = np.unpackbits(outlines[name], count=count).astype(bool).reshape(patient.lesion.shape)
            mask = without_small_pieces(mask, patient)
            scores = asdict(compare(patient.lesion, mask, patient.brain, patient.facts.spacing_mm))
            scores = {k: None if isinstance(v, float) and v != v else v for k, v in scores.items()}
            grade = piece["grades"][name]
            rows.append(
                {
                    "patient": name,
                    **scores,
                    "lesion_free": list(scores["lesion_free"]),
                    "high_grade": patient.facts.high_grade,
                    "high_grade_probability": None if grade != grade else grade,
                }
            )
    Path(piece["path"]).unlink()
    kept = {k: v for k, v in piece.items() if k not in ("path", "grades")}
    return {**kept, "patients": rows}


# ---- the process that says whose turn it is -------------------------------------------------------------


class Study:
    """Workers, what they are ready for, and what is finished."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ends = time.monotonic() + options.seconds
        self.out = Path(options.out)
        self.pieces = self.out / "pieces.jsonl"
        self.context = get_context("spawn")
        self.workers: dict[str, tuple] = {}
        self.facts: dict[str, dict] = {}
        self.ways: dict[str, str] = {}
        self.steps = options.steps
        self.scoring: list[Future] = []
        self.pool = ProcessPoolExecutor(
            options.scorers, self.context, initializer=prepare_scoring, initargs=(options.pack,)
        )

    def left(self) -> float:
        """Seconds until the end."""
        return self.ends - time.monotonic()

    def say(self, *words: object) -> None:
        print(f"[{self.options.seconds - self.left():6.1f} s]", *words, flush=True)

    def unfinished(self) -> list[Group]:
        """The groups with a piece that is not in ``pieces.jsonl``."""
        chosen = [
            g for g in groups(self.options.order) if not self.options.only or g.network in self.options.only
        ]
        done: dict[tuple[str, int], set[int]] = {}
        if self.pieces.exists():
            for line in self.pieces.read_text("utf-8").splitlines():
                piece = json.loads(line)
                done.setdefault((piece["network"], piece["seed"]), set()).add(piece["fold"])
        return [g for g in chosen if len(done.get((g.network, g.seed), ())) < FOLDS][: self.options.groups]

    def hire(self, waiting: Sequence[Group]) -> None:
        """Keep as many workers alive as may be, for the groups that come next."""
        wanted = list(dict.fromkeys(g.network for g in waiting))
        for name in [n for n in self.workers if n not in wanted]:
            self.dismiss(name)
        for name in wanted:
            if len(self.workers) >= self.options.workers:
                return
            if name not in self.workers:
                ours, theirs = self.context.Pipe()
                asked = argparse.Namespace(
                    **{**vars(self.options), "way": self.ways.get(name, self.options.way)}
                )
                process = self.context.Process(target=work, args=(theirs, name, asked))
                process.start()
                theirs.close()
                self.workers[name] = (process, ours)

    def dismiss(self, name: str) -> None:
        process, conn = self.workers.pop(name)
        self.facts.pop(name, None)
        with contextlib.suppress(OSError):
            conn.send(("stop", None))
        process.join(5)
        if process.is_alive():
            process.terminate()

    def listen(self, busy: str | None) -> Iterator[tuple[str, str, dict]]:
        """(network, kind, value) of what the workers say next."""
        connections = {conn: name for name, (_, conn) in self.workers.items()}
        for conn in wait(list(connections), timeout=1.0):
            name = connections[conn]
            try:
                yield (name, *conn.recv())
            except EOFError:
                yield name, "died", {"busy": name == busy}

    def seconds_of(self, group: Group) -> float:
        """What a group will take, by its network's measured speed."""
        return self.facts[group.network]["round_ms"] / 1000 * self.steps + READING_SECONDS

    def choose_steps(self, network: str) -> None:
        """So many for every network that the first seed of the four takes its share of what is left."""
        unit = self.facts[network]["round_ms"] / 1000 / UNITS.get(network, 1.0)
        steps = FIRST_SHARE * self.left() / (sum(UNITS.values()) * unit)
        self.steps = max(LEAST_STEPS, min(self.options.most_steps, int(steps // 100) * 100))
        self.say(f"{self.steps} steps for every network")

    def write(self, wait_for_all: bool = False) -> None:
        """Add what has been scored to ``pieces.jsonl``."""
        for future in [f for f in self.scoring if wait_for_all or f.done()]:
            piece = future.result()
            with self.pieces.open("a", encoding="utf-8") as file:
                file.write(json.dumps(piece) + "\n")
            dice = np.mean([row["dice"] for row in piece["patients"] if row["dice"] is not None])
            self.say(f"{piece['network']}, seed {piece['seed']}, fold {piece['fold']}: Dice {dice:.3f}")
            self.scoring.remove(future)
            broken = not piece["last_loss"] < HIGHEST_END * piece["first_loss"] or dice < LOWEST_DICE
            if broken and not self.options.smoke:
                self.say(f"a broken training: loss {piece['first_loss']:.3f} to {piece['last_loss']:.3f}")
                self.ends = time.monotonic()

    def run(self) -> None:
        waiting, busy = self.unfinished(), None
        self.hire(waiting)
        # whoever has failed to start is not waited for
        while (waiting or busy) and self.left() > 0:
            for name, kind, value in self.listen(busy and busy.network):
                busy, waiting = self.hear(name, kind, value, busy, waiting)
            self.write()
            busy = busy or self.begin(waiting)
        self.write(wait_for_all=True)
        for name in list(self.workers):
            self.dismiss(name)
        self.pool.shutdown()

    def begin(self, waiting: list[Group]) -> Group | None:
        """Give the GPU to the first group whose network is ready, where it still fits; it is waited for no longer."""
        for group in [g for g in waiting if g.network in self.facts]:
            known = "round_ms" in self.facts[group.network]
            waiting.remove(group)
            if known and not self.steps:
                self.choose_steps(group.network)
            if known and self.seconds_of(group) > self.left():
                self.say(f"{group.network}, seed {group.seed}: does not fit any more")
                continue
            # with the GPU to itself
            command = ("train", (group.seed, self.steps)) if known else ("measure", self.options.rounds)
            self.workers[group.network][1].send(command)
            return group
        return None

    def hear(self, name: str, kind: str, value: dict, busy: Group | None, waiting: list[Group]):
        """What follows from a worker's message: who is busy, and who waits."""
        if kind == "ready":
            self.say(name, "ready", json.dumps(value))
            self.facts[name] = dict(value)
        elif kind == "measured":
            self.facts[name] |= value
            self.say(name, "measured", json.dumps(value))
            with (self.out / "speeds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.facts[name]) + "\n")
            waiting, busy = [busy, *waiting], None
        elif kind == "piece":
            piece = {"network": name, **value}
            self.scoring.append(self.pool.submit(score, piece))
        elif kind == "done":
            self.say(name, f"trained and read in {value['seconds']:.1f} s")
            busy = None
            self.hire(waiting)
        else:
            way = self.ways.get(name, self.options.way)
            self.say(name, f"DIED ({way})")
            self.workers.pop(name)
            self.facts.pop(name, None)
            if value["busy"]:
                waiting, busy = [busy, *waiting], None
            if way == WAYS[-1]:
                waiting = [g for g in waiting if g.network != name]
            else:
                self.ways[name] = WAYS[WAYS.index(way) + 1]
            self.hire(waiting)
        return busy, waiting


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--steps", type=int, default=0, help="0: by the speed and the seconds")
    parser.add_argument("--most-steps", type=int, default=2400)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--scorers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--groups", type=int, default=100, help="at most so many")
    parser.add_argument("--order", choices=["seeds", "parts"], default="seeds")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--way", choices=WAYS, default=WAYS[0])
    parser.add_argument("--smoke", action="store_true", help="networks of a few channels")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    Study(options).run()
