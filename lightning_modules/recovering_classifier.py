"""Recovery: a pruned model is trained on for a few epochs, with what the full model says as a second target.

The loss is that of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2:
(1 - w) cross-entropy(labels) + w T^2 KL(teacher at temperature T || student at temperature T). T^2 keeps the size of
the second term's gradients independent of T. Deviation: the weighting is written as shares w and 1 - w.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.video_classifier import VideoClassifier
from sightline.backbones import Backbone
from sightline.checkpoints.trained import load_trained
from sightline.export.reading import load_exported, read_description, token_reduction
from sightline.tokens.spec import TokenReduction
from sightline.types import ClipBatch


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of softened probabilities, the mean over samples, in nats.

    Args:
        student: Logits (B, classes).
        teacher: Logits (B, classes).
        temperature: What logits are divided by.
    """
    soft = [(logits.float() / temperature).log_softmax(dim=-1) for logits in (student, teacher)]
    return temperature**2 * F.kl_div(soft[0], soft[1], log_target=True, reduction="batchmean")


class RecoveringClassifier(VideoClassifier):
    """A pruned model that is fine-tuned with distillation from the full one; off by default, as in the thesis."""

    def __init__(
        self,
        student: str,
        teacher: str,
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """Build the pruned model.

        Args:
            student: Exported folder of the pruned model, e.g. runs/demo/pruned/relevance-r-lowest-k3. It says what
                the model is; backbone, options, weights, what is removed and the tokens need not be given.
            teacher: The full model: a run's checkpoint, e.g. runs/demo/checkpoints/best.ckpt, or an exported folder.
            temperature: What both models' logits are divided by before they are compared.
            teacher_weight: Share of the loss that the teacher has, from 0 to 1; the labels have the rest.
            kwargs: What VideoClassifier takes.
        """
        if not (0 <= teacher_weight <= 1 and temperature > 0):
            raise ValueError(
                f"Expected a teacher_weight from 0 to 1 and a temperature above 0, got {teacher_weight:g} and "
                f"{temperature:g}."
            )
        description = read_description(student)
        _check_input(student, description, kwargs)
        _check_tokens(student, description, kwargs.get("tokens"))
        options = {key: value for key, value in description["options"].items() if key not in ("frames", "size")}
        kwargs |= {
            "backbone": description["name"],
            "options": options,
            "removed_layers": description["removed_layers"],
            "removed_heads": description["removed_heads"],
            "tokens": description.get("tokens"),
            "interpreters": description.get("interpreters"),
        }
        super().__init__(**kwargs)
        self.student = student
        self.teacher = teacher
        self.temperature = temperature
        self.teacher_weight = teacher_weight
        # In a tuple, which hides it from PyTorch: a teacher is neither trained nor saved.
        self._teachers: tuple[Backbone, ...] = ()
        self._check_classes(description["classes"], description["num_classes"])

    def _load_start(self, stage: str, resumes: bool) -> None:
        super()._load_start(stage, resumes)
        if stage != "fit":
            return
        if self.weights is None and not resumes:
            student = load_exported(self.student).backbone
            self.backbone.load_state_dict(student.state_dict())
            self.backbone.set_record(student.record)
        teacher = load_teacher(self.teacher)
        ours, theirs = (m.record.class_names or (m.config.num_classes,) for m in (self.backbone, teacher))
        if (ours, self.backbone.input_spec) != (theirs, teacher.input_spec):
            raise ValueError(
                f"The teacher {self.teacher} has other clips or classes than the student: {teacher.input_spec} and "
                f"{', '.join(map(str, theirs[:3]))}, ... there, {self.backbone.input_spec} and "
                f"{', '.join(map(str, ours[:3]))}, ... here. Pass the full model that the student was cut from."
            )
        self._teachers = (teacher.float().eval().requires_grad_(False),)

    def training_loss(self, logits: Tensor, batch: ClipBatch) -> Tensor:
        """Return the labels' and the teacher's shares of the loss together."""
        with torch.no_grad():
            wanted = self._teachers[0].to(logits.device)(batch["clip"])
        taught = distillation_loss(logits, wanted, self.temperature)
        return (1 - self.teacher_weight) * super().training_loss(logits, batch) + self.teacher_weight * taught


def load_teacher(path: str) -> Backbone:
    """Read a full model from an exported folder or a run's checkpoint.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is neither, or a model that runs with fewer tokens.
    """
    if not Path(path).is_dir() and not Path(path).is_file():
        raise FileNotFoundError(f"There is no teacher at {path}. Pass a run's checkpoint or an exported folder.")
    if Path(path).is_file():
        return load_trained(path)
    teacher = load_exported(path)
    if teacher.reducer is not None:
        raise ValueError(f"The teacher {path} runs with {teacher.reducer}. Pass the full model, which has all tokens.")
    return teacher.backbone


def _check_tokens(student: str, description: dict[str, Any], asked: dict[str, Any] | None) -> None:
    """Raise ValueError where other tokens are asked for than those that the student runs with."""
    own, other = token_reduction(description), TokenReduction.from_plain(asked) if asked else None
    if other is not None and other != own:
        raise ValueError(
            f"The student {student} runs with {'all tokens' if own is None else own.label}, but tokens ask for "
            f"{other.label}. Leave tokens out, or export a student that runs with these."
        )


def _check_input(student: str, description: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Raise ValueError where the data gives other clips than the student takes."""
    spec = description["input"]
    for key, own in (("frames", spec["frames"]), ("size", spec["height"])):
        if kwargs.get(key, own) != own:
            raise ValueError(
                f"The student {student} takes clips of {spec['frames']}x{spec['height']}x{spec['width']}, but the data "
                f"gives {key} {kwargs[key]}. Set data.{key} to {own}."
            )
    kwargs |= {"frames": spec["frames"], "size": spec["height"]}
