"""Trains one model once: an operator, a data set, a seed, a recipe in; an accuracy out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lisabench import registry
from lisabench.errors import LisaBenchError
from lisabench.journal import BUDGET
from lisabench.train import augment, checkpoint
from lisabench.train.data import Part, Split
from lisabench.train.optimisation import parameter_groups, rate
from lisabench.train.point import Epoch, Outcome, Point
from lisabench.train.team import Team
from lisabench.train.vit import ViT, branch_shares, parameter_count

EVALUATION_BATCH = 256
TOLD_EVERY_S = 0.5
RECOMPILES = 256  # all models share one forward: torch's own limit of 8 would let later operators run uncompiled, in silence
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Within:
    """How far an epoch is: its number, the share of its images that are done, their mean loss, images a second."""

    epoch: int
    share: float
    loss: float
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training, and the model where it came to its end."""

    outcome: Outcome
    model: ViT | None = None


def train(
    point: Point,
    split: Split,
    *,
    device: str = "cpu",
    deadline: float | None = None,
    kept_at: Path | None = None,
    team: Team | None = None,
) -> Generator[Epoch | Within, None, Trained]:
    """Trains and yields each epoch, and between them how far it is; whatever an operator raises is an outcome.

    Sets torch's global seed. On a CPU a seed gives the same numbers again with the same number of threads; on a GPU
    kernels that add in any order may differ in the last digits. `deadline`, of time.monotonic(), ends the training, and
    does so early where its fastest epoch shows that it cannot be done by then. `kept_at`: a file for what an interrupted
    training goes on from, after each epoch; what stands there is gone on with.

    Raises:
        RunError: the checkpoint cannot be written. InputError: it is one of another training.
    """
    team = team or Team()
    try:
        return (yield from _train(point, split, device, math.inf if deadline is None else deadline, kept_at, team))
    except LisaBenchError:
        raise
    except (Exception, SystemExit) as error:  # an operator may be the user's own
        out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        status = "oom" if out_of_memory else "error"
        reason = _first_line(error) if out_of_memory else f"{type(error).__name__}: {_first_line(error)}"
        if team.size > 1:  # the others wait for this process: it has to end, and they with it
            raise team.failed(point.op, status=status, reason=reason, error=error) from error
        return Trained(outcome=Outcome(status=status, reason=reason))


def _train(
    point: Point, split: Split, device: str, until: float, kept_at: Path | None, team: Team
) -> Generator[Epoch | Within, None, Trained]:
    training = Training(point, split, device, team)
    kept = team.told(checkpoint.load(kept_at, point.key) if kept_at is not None and team.leads else None)
    if kept is not None:
        training.load_state(kept)
    started, before, fastest = time.monotonic(), training.seconds, math.inf

    def ended(status: str, **more: Any) -> Outcome:
        parameters, curve = parameter_count(training.model), tuple(training.curve)
        return Outcome(status=status, parameters=parameters, curve=curve, seconds=training.seconds, **more)

    for number in range(len(training.curve) + 1, point.epochs + 1):
        began = time.monotonic()
        loss = yield from training.epoch(number, until)
        stepping = time.monotonic() - began
        if loss is None:
            return Trained(outcome=ended("skipped", reason=f"{BUDGET}: cut off within epoch {number} of {point.epochs}; a larger --budget"))
        what = "loss is" if not math.isfinite(loss) else "weights are" if not training.is_finite() else ""
        if what:
            return Trained(outcome=ended("error", reason=f"diverged at epoch {number}: {what} not finite"))
        training.curve.append(
            Epoch(epoch=number, loss=loss, top1=training.accuracy(training.tested), images_per_s=len(training.places) / stepping)
        )
        training.seconds = before + time.monotonic() - started
        if kept_at is not None and team.leads:
            checkpoint.save(kept_at, point.key, training.state())
        yield training.curve[-1]
        fastest = min(fastest, time.monotonic() - began)
        # With a checkpoint each epoch counts: it is gone on with.
        if kept_at is None and team.told(number < point.epochs and fastest * (point.epochs - number) > until - time.monotonic()):
            reason = f"{BUDGET}: ended after epoch {number} of {point.epochs}, the others do not fit; a larger --budget"
            return Trained(outcome=ended("skipped", reason=reason))
    last = training.curve[-1]
    elsewhere, why = training.elsewhere()
    warm = training.curve[1:] or training.curve  # a first epoch warms up, and compiles
    throughput = len(warm) / sum(1 / epoch.images_per_s for epoch in warm)
    absent = {"elsewhere": why} if why else {}
    outcome = ended("ok", top1=last.top1, loss=last.loss, elsewhere=elsewhere, throughput_images_per_s=throughput, absent=absent)
    return Trained(outcome=outcome, model=training.tested_model)


class Training:
    """A model on its device with what trains and tests it, and how far it is."""

    def __init__(self, point: Point, split: Split, device: str, team: Team) -> None:
        torch.manual_seed(point.seed)
        self.point, self.recipe, self.device, self.team = point, point.recipe, device, team
        self.model = point.model().to(device)  # weights are drawn on the CPU, so that a seed means the same on every device
        self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema)) if self.recipe.ema else None
        self.parallel = team.wrapped(self.model, whole=point.op in registry.built_in())
        if point.compiled:
            torch._dynamo.reset()  # what was compiled for other operators
        self.run = runnable(self.parallel, compiled=point.compiled)
        self.split = split
        self.places = torch.arange(len(split.train))
        tested = split.test
        if point.validating:
            self.places, held = split.held_out()
            tested = Part(images=split.train.images[held], labels=split.train.labels[held])
        self.train, self.tested = (Part(images=part.images.to(device), labels=part.labels.to(device)) for part in (split.train, tested))
        self.random = torch.Generator().manual_seed(point.seed)
        fused = device.startswith("cuda") or device == "cpu"
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.recipe.weight_decay), lr=self.recipe.learning_rate, fused=fused
        )
        self.scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=point.dtype == "fp16")
        self.steps = point.epochs * math.ceil(len(self.places) / self.recipe.batch)
        self.step, self.seconds = 0, 0.0
        self.curve: list[Epoch] = []

    @property
    def tested_model(self) -> ViT:
        """The model that accuracies are of: that with averaged weights where the recipe averages."""
        found = self.model if self.averaged is None else self.averaged.module
        assert isinstance(found, ViT)
        return found

    def epoch(self, number: int, until: float) -> Generator[Within, None, float | None]:
        """Trains on each image once, in random order: the mean loss, or None where time.monotonic() passed `until`."""
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)  # read seldom: a GPU is not waited for at each step
        order = self.places[torch.randperm(len(self.places), generator=self.random)]
        began = told = time.monotonic()
        done = 0
        for chosen in order.split(self.recipe.batch):
            now = time.monotonic()
            if until < math.inf and self.team.told(now > until):
                return None
            if now - told > TOLD_EVERY_S:
                told = now
                if self.team.leads and done:
                    loss = float(total) * self.team.size / done
                    yield Within(epoch=number, share=done / len(order), loss=loss, images_per_s=done / (now - began))
            total += self.take_step(chosen)
            done += len(chosen)
        return float(self.team.total(total)) / len(order)

    def batch(self, chosen: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """Of these training images one's own part, as the model takes them, and their classes."""
        height, width = self.train.images.shape[2:]
        draws = augment.draw(self.recipe.augment, len(chosen), height, width, self.random)
        places = chosen[own].to(self.device)
        return self.split.standardised(augment.apply(self.train.images[places], draws[own])), self.train.labels[places]

    def take_step(self, chosen: Tensor) -> Tensor:
        """A step on these images, of which each process takes its part: the sum of their losses."""
        own, counted = self.team.part(len(chosen))
        images, labels = self.batch(chosen, own)
        shares = branch_shares(self.point.size, self.recipe.drop_path, len(chosen), self.random) if self.recipe.drop_path else None
        with torch.autocast(self.device.partition(":")[0], DTYPES[self.point.dtype], enabled=self.point.dtype != "fp32"):
            logits = self.run(images, None if shares is None else shares[:, :, own].to(self.device))
        losses = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        loss = losses * (counted > 0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.recipe, self.step, self.steps)
        self.optimizer.zero_grad()
        self.scaler.scale(loss * self.team.size / len(chosen)).backward()  # DistributedDataParallel takes the mean over processes
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return loss.detach().double()

    @torch.no_grad()
    def accuracy(self, part: Part, model: ViT | None = None) -> float:
        """The share of the images whose class is found; each process looks at its part of them."""
        self.tested_model.eval()
        run = self.run if self.point.compiled and self.averaged is None else self.tested_model
        whole = run if model is None else model.eval()
        own, counted = self.team.part(len(part))
        found = torch.zeros((), dtype=torch.float64, device=self.device)
        for images, labels in zip(part.images[own].split(EVALUATION_BATCH), part.labels[own].split(EVALUATION_BATCH), strict=True):
            with torch.autocast(self.device.partition(":")[0], DTYPES[self.point.dtype], enabled=self.point.dtype != "fp32"):
                found += (whole(self.split.standardised(images)).argmax(-1) == labels).sum() * (counted > 0)
        return float(self.team.total(found)) / len(part)

    def elsewhere(self) -> tuple[dict[str, float] | None, str]:
        """The accuracies on larger images; or None, and why."""
        if not self.split.elsewhere or self.point.validating:
            return None, "the data have no larger images" if not self.point.validating else ""
        found = {}
        try:
            for name, part in self.split.elsewhere.items():
                wider = self.tested_model.at_grid(self.point.images.grid_of(*part.images.shape[2:]))
                found[name] = self.accuracy(Part(images=part.images.to(self.device), labels=part.labels.to(self.device)), wider)
        except Exception as error:  # no reason to lose what was trained
            if self.team.size > 1 and not isinstance(error, ValueError):
                raise
            return None, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {_first_line(error)}"
        return found, ""

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(parameter.isfinite().all()) for parameter in self.tested_model.parameters())

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        averaged = {} if self.averaged is None else {"averaged": self.averaged.state_dict()}
        on_gpu = {"random_gpu": torch.cuda.get_rng_state(self.device)} if self.device.startswith("cuda") else {}
        return (
            averaged
            | on_gpu
            | {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": self.random.get_state(),
                "random_global": torch.get_rng_state(),
                "step": self.step,
                "seconds": self.seconds,
                "curve": [asdict(epoch) for epoch in self.curve],
            }
        )

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.random.set_state(state["random"])
        torch.set_rng_state(state["random_global"])
        if "random_gpu" in state:
            torch.cuda.set_rng_state(state["random_gpu"], self.device)
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]


def runnable(model: nn.Module, *, compiled: bool) -> Callable[..., Tensor]:
    """The model to call, compiled or as it is."""
    if compiled:
        torch._dynamo.config.recompile_limit = RECOMPILES
        torch._dynamo.config.accumulated_recompile_limit = max(RECOMPILES, torch._dynamo.config.accumulated_recompile_limit)
    return torch.compile(model) if compiled else model


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
