"""Trains one model once: an operator, a data set, a seed, a recipe in; an accuracy out."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisabench import registry
from lisabench.journal import BUDGET
from lisabench.train import data
from lisabench.train.vit import MICRO, Size, ViT, operator_flops, parameter_count

EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained: AdamW, a linear warm-up over a share of the steps, then a cosine down to 0.

    One schedule for all operators, not the best of each. Batch and learning rate were picked by the test accuracy of the
    baseline on the digits (20 epochs, one seed): softmax is far from its best at one token a pixel in so few epochs, and a
    published comparison needs a search for each operator.
    """

    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is trained: an operator with all its options, on a data set, from a seed. `digest` is the hash of a user's own file."""

    op: str
    options: dict[str, Any]
    data: str
    epochs: int
    seed: int
    digest: str | None = None
    size: Size = MICRO
    recipe: Recipe = field(default_factory=Recipe)

    @cached_property
    def key(self) -> str:
        """Content hash: equal points have equal keys on every machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()[:16]

    def record_fields(self) -> dict[str, Any]:
        """The fields of a record that state this point; size and recipe stand in plan.json."""
        return {"cell": self.key, "op": self.op, "options": self.options, "data": self.data, "seed": self.seed, "epochs": self.epochs}

    def model(self) -> ViT:
        """The model with fresh weights, on torch's default device; they come from torch's global seed."""
        images = data.find(self.data)
        operator = registry.load(self.op)
        return ViT(
            operator, self.options, size=self.size, grid=images.grid, patch=images.patch, channels=images.channels, classes=images.classes
        )

    def flops(self) -> float | None:
        return operator_flops(registry.load(self.op), self.options, size=self.size, grid=data.find(self.data).grid)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """How far training is: the mean loss over an epoch's training images, and the accuracy on the test images after it."""

    epoch: int
    loss: float
    top1: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a training: `top1` is that of the last epoch, not of the best, so that nothing is chosen on the test images.

    `loss` is the last epoch's mean training loss (label smoothing in it); `seconds` are those of the whole training,
    evaluations among them, `throughput_images_per_s` is of the training steps alone.
    """

    status: str
    reason: str | None = None
    parameters: int | None = None
    top1: float | None = None
    loss: float | None = None
    curve: tuple[Epoch, ...] = ()
    throughput_images_per_s: float | None = None
    seconds: float | None = None


def train(point: Point, split: data.Split, *, device: str = "cpu", deadline: float | None = None) -> Generator[Epoch, None, Outcome]:
    """Trains and yields each epoch; the generator's value is the outcome, and whatever an operator raises is one.

    Sets torch's global seed. On a CPU a seed gives the same numbers again with the same number of threads; on a GPU
    kernels that add in any order may differ in the last digits. `deadline`, of time.monotonic(), ends the training, and
    does so early where its fastest epoch shows that it cannot be done by then.
    """
    try:
        return (yield from _train(point, split, device, deadline))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return Outcome(status="oom", reason=_first_line(error))
    except (Exception, SystemExit) as error:  # an operator may be the user's own
        return Outcome(status="error", reason=f"{type(error).__name__}: {_first_line(error)}")


def _train(point: Point, split: data.Split, device: str, deadline: float | None) -> Generator[Epoch, None, Outcome]:
    started, stepping, fastest = time.monotonic(), 0.0, math.inf
    until = math.inf if deadline is None else deadline
    training = _Training(point, split, device)
    curve: list[Epoch] = []

    def outcome(status: str, **more: Any) -> Outcome:
        seconds = time.monotonic() - started
        return Outcome(status=status, parameters=parameter_count(training.model), curve=tuple(curve), seconds=seconds, **more)

    for number in range(1, point.epochs + 1):
        began = time.monotonic()
        loss = training.epoch(until)
        stepping += time.monotonic() - began
        if loss is None:
            return outcome("skipped", reason=f"{BUDGET}: cut off within epoch {number} of {point.epochs}; a larger --budget")
        if not math.isfinite(loss):
            return outcome("error", reason=f"diverged at epoch {number}: loss is not finite")
        curve.append(Epoch(epoch=number, loss=loss, top1=training.accuracy()))
        fastest = min(fastest, time.monotonic() - began)
        yield curve[-1]
        if number < point.epochs and fastest * (point.epochs - number) > until - time.monotonic():
            reason = f"{BUDGET}: ended after epoch {number} of {point.epochs}, the others do not fit; a larger --budget"
            return outcome("skipped", reason=reason)
    throughput = point.epochs * len(split.train_images) / stepping
    return outcome("ok", top1=curve[-1].top1, loss=curve[-1].loss, throughput_images_per_s=throughput)


class _Training:
    """A model on its device with what trains and tests it."""

    def __init__(self, point: Point, split: data.Split, device: str) -> None:
        torch.manual_seed(point.seed)
        self.recipe = point.recipe
        self.model = point.model().to(device)  # weights are drawn on the CPU, so that a seed means the same on every device
        self.images, self.labels, self.test_images, self.test_labels = (
            torch.from_numpy(array).to(device) for array in (split.train_images, split.train_labels, split.test_images, split.test_labels)
        )
        self.order = torch.Generator().manual_seed(point.seed)
        self.optimizer = torch.optim.AdamW(_groups(self.model, self.recipe.weight_decay), lr=self.recipe.learning_rate)
        self.rates = _rates(self.recipe, point.epochs * math.ceil(len(self.images) / self.recipe.batch))

    def epoch(self, until: float) -> float | None:
        """Trains on each image once, in random order: the mean loss, or None where time.monotonic() passed `until`."""
        self.model.train()
        total = torch.zeros((), device=self.images.device)  # read once, at the end: a GPU is not waited for at each step
        for chosen in torch.randperm(len(self.images), generator=self.order).to(self.images.device).split(self.recipe.batch):
            if time.monotonic() > until:
                return None
            total += self._step(self.images[chosen], self.labels[chosen], next(self.rates)) * len(chosen)
        return float(total) / len(self.images)

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def accuracy(self) -> float:
        """The share of the test images whose class is found."""
        self.model.eval()
        found = torch.cat([self.model(part).argmax(-1) for part in self.test_images.split(EVALUATION_BATCH)])
        return float((found == self.test_labels).double().mean())


def _groups(model: ViT, weight_decay: float) -> list[dict[str, Any]]:
    """Weights and tables decay; biases, norms and positions do not."""
    decaying = [p for p in model.parameters() if p.ndim > 1 and p is not model.positions]
    others = [p for p in model.parameters() if p.ndim <= 1 or p is model.positions]
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _rates(recipe: Recipe, steps: int) -> Iterator[float]:
    """The learning rate of each step."""
    warmup = max(1, round(recipe.warmup * steps))
    for step in range(steps):
        rising = (step + 1) / warmup
        falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
        yield recipe.learning_rate * min(rising, falling)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
