"""Everything that defines a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidfast.base.errors import InputError
from sidfast.steps.config import StepConfig, check_range


@dataclass(frozen=True, kw_only=True)
class DistillConfig(StepConfig):
    """The constants of one iteration (see `StepConfig`) and of the run around it.

    The values are the paper's where the paper has them. `DistillConfig.parse` builds one from
    text (YAML, command line).

    Attributes:
        kimg: length of the run, in thousands of images.
        batch: images per iteration.
        batch_device: images per forward pass; batch / batch_device rounds of gradient
            accumulation give the same numbers with less memory. None is the whole batch on a
            GPU, and on a CPU one part of it for each thread.
        lr, generator_lr: learning rates of fake score and generator (None: `lr`).
        beta1, generator_beta1, beta2, eps: of Adam.
        lr_decay: share of the run, at its end, over which both rates fall linearly to zero.
            The paper keeps them constant: 0.
        ema_halflife_kimg, ema_rampup: of the generator's average, see `optim.ema_beta`.
        dropout: dropout probability of fake score and generator; None keeps the teacher's.
        nonfinite: "skip" leaves an update with a NaN or infinite gradient out, "clamp" is the
            authors' nan_to_num.
        seed: of everything random.
        evaluations: points of the quality curve, spaced evenly in log images.
        eval_samples: images per point.
        log_every: iterations between rows of metrics.jsonl.
        checkpoint_kimg: thousands of images between checkpoints; None keeps only the last.
    """

    kimg: float = 1000.0
    batch: int = 256
    batch_device: int | None = None
    lr: float = 1e-5
    generator_lr: float | None = None
    beta1: float = 0.0
    generator_beta1: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-8
    lr_decay: float = 0.0
    ema_halflife_kimg: float = 500.0
    ema_rampup: float | None = 0.05
    dropout: float | None = None
    nonfinite: Literal["skip", "clamp"] = "skip"
    seed: int = 0
    evaluations: int = 20
    eval_samples: int = 10_000
    log_every: int = 10
    checkpoint_kimg: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "batch_device", "evaluations", "eval_samples", "log_every", "seed"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise InputError(
                    expected=f"{name} to be a whole number",
                    got=repr(value),
                    fix="leave it out for the default",
                )
        check_range("batch", self.batch, 1, 2**24, "the paper uses 256 to 8192")
        per_round = self.batch if self.batch_device is None else self.batch_device
        check_range("batch_device", per_round, 1, self.batch, "it divides batch")
        check_range("kimg", self.kimg, 1e-3, 1e9, "it counts thousands of images")
        check_range("lr", self.lr, 0, 1, "the paper uses 4e-6 to 1e-5")
        check_range("generator_lr", self.generator_rate, 0, 1, "the paper uses 4e-6 to 1e-5")
        check_range("lr_decay", self.lr_decay, 0, 1, "it is a share of the run; 0 is constant")
        check_range("beta1", self.beta1, 0, 0.9999, "the paper uses 0")
        check_range("generator_beta1", self.generator_beta1, 0, 0.9999, "the paper uses 0")
        check_range("beta2", self.beta2, 0, 0.999999, "the paper uses 0.999")
        check_range("eps", self.eps, 1e-30, 1, "the paper uses 1e-8")
        check_range("ema_halflife_kimg", self.ema_halflife_kimg, 0, 1e9, "the paper uses 500")
        check_range("dropout", self.dropout or 0, 0, 0.99, "it is a probability")
        check_range("seed", self.seed, -(2**63), 2**63 - 1, "it is a 64-bit integer")
        check_range("evaluations", self.evaluations, 0, 10_000, "0 switches the curve off")
        check_range("eval_samples", self.eval_samples, 2, 10**7, "small samples flatter")
        check_range("ema_rampup", self.ema_rampup or 0, 0, 1e9, "the paper uses 0.05")
        if self.checkpoint_kimg is not None:
            check_range(
                "checkpoint_kimg", self.checkpoint_kimg, 1e-3, 1e9, "in thousands of images"
            )
        check_range("log_every", self.log_every, 1, 10**9, "it counts iterations")
        if self.batch % per_round:
            raise InputError(
                expected=f"batch to be a multiple of batch_device {self.batch_device}",
                got=f"batch {self.batch}",
                fix=f"use batch {self.batch - self.batch % per_round} or leave batch_device out",
            )

    @property
    def generator_rate(self) -> float:
        """Learning rate of the generator."""
        return self.lr if self.generator_lr is None else self.generator_lr

    @property
    def iterations(self) -> int:
        """Iterations of the whole run; the last one reaches `kimg` thousand images."""
        return max(1, -int(-self.kimg * 1000 // self.batch))

    def lr_factor(self, n_img: int) -> float:
        """What the learning rates are multiplied by when `n_img` images have been seen."""
        total = self.iterations * self.batch
        tail = self.lr_decay * total
        return min(1.0, (total - n_img) / tail) if tail else 1.0

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> DistillConfig:
        """Build a config from text or YAML values, with pydantic's conversions.

        Raises:
            InputError: an unknown name, or a value that does not fit its type or range.
        """
        import pydantic

        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            import difflib

            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise InputError(
                expected=f"settings among {', '.join(sorted(known))}",
                got=f"'{unknown[0]}'",
                fix=f"did you mean '{near[0]}'?" if near else "check the spelling",
            )
        try:
            return pydantic.TypeAdapter(cls).validate_python(dict(values))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            ours = first.get("ctx", {}).get("error")
            if isinstance(ours, InputError):
                raise ours from None
            name = ".".join(str(part) for part in first["loc"])
            raise InputError(
                expected=f"a fitting value for '{name}' ({first['msg']})",
                got=repr(first["input"]),
                fix="see sidfast distill --help",
            ) from None

    @classmethod
    def read(cls, path: str | Path) -> DistillConfig:
        """Read a config that a run or a person wrote as YAML; what it leaves out is default."""
        return cls.parse(cls.read_values(path))

    @staticmethod
    def read_values(path: str | Path) -> dict[str, Any]:
        """The settings that a YAML file names, as they stand there."""
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                expected=f"a YAML file at {path}", got=reason, fix="check the path and text"
            ) from error
        if not isinstance(values, dict):
            raise InputError(
                expected=f"{path} to hold 'name: value' lines",
                got=type(values).__name__,
                fix="compare it with the config.yaml of a run",
            )
        return {str(name): value for name, value in values.items()}

    def to_yaml(self) -> str:
        """Every setting of this run, as YAML."""
        import yaml

        values = dataclasses.asdict(self)
        if self.class_probabilities is not None:
            values["class_probabilities"] = list(self.class_probabilities)
        return yaml.safe_dump(values, sort_keys=False)
