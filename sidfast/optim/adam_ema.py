"""Adam and the moving average of its parameters, under one skip flag on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sidfast.base import graphs
from sidfast.base.errors import InputError
from sidfast.ops.adam_ema import Operands, Settings, Update, adam_ema

NonFinite = Literal["skip", "clamp"]


class AdamEMA(torch.optim.Adam):
    """`torch.optim.Adam` or `AdamW` that survives non-finite gradients and keeps an EMA.

    One pass over all parameters makes the step, the average and the copies, see
    `sidfast.ops.adam_ema`. Nothing in `step` waits for the device. The state dict is that of
    `torch.optim.Adam`, both ways. With beta1 = 0 no first moment is kept: it would be the last
    gradient, which such an Adam never reads; the state dict holds zeros in its place.

    In a CUDA graph (`capturable=True`) moments, step counts, skip flag and `skipped` are on the
    device anyway. What shall change between replays must be a tensor there, to be written with
    `fill_`: `lr`, which is made one, and `ema_beta`; other numbers are constants of the graph.
    Gradients must stay where they were when it was captured, which is what torch does with those
    that a captured backward makes. Take a step before the capture, with every gradient and the
    same kinds of numbers. A graph is void after `load_state_dict`, after a parameter's first
    gradient, and when parameters move.

    Args:
        params: floating parameters in one group; the passes in C++, Triton and CUDA take float32.
        lr, betas, eps, weight_decay, decoupled_weight_decay: as in `torch.optim.Adam`. `lr` may be
            a 0-d tensor on the device.
        ema: tensors shaped like `params`, updated in place after every step as
            ema <- params + beta * (ema - params); None for no average.
        copies: bfloat16 or float16 tensors shaped like `params` that every step overwrites with the
            rounded parameters; None for no copies.
        capturable: allow `step` in a CUDA graph, and keep `lr` as a 0-d float32 tensor on the
            device, which learning rate schedulers write into.
        nonfinite: "skip" leaves parameters, moments, step count, EMA and copies bit-identical when
            any gradient holds a NaN or an infinity; "clamp" replaces NaN by 0 and infinities by
            +-1e5 first, as SiD's authors do.
        backend: a name from `sidfast.ops.adam_ema.BACKENDS`, or "auto".

    Attributes:
        skipped: 0-d int64 device tensor, the number of updates that were left out.

    Raises:
        InputError: `ema` or `copies` do not match `params`, there is more than one group, or
            `nonfinite` is neither word.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        ema: Sequence[Tensor] | None = None,
        copies: Sequence[Tensor] | None = None,
        capturable: bool = False,
        nonfinite: NonFinite = "skip",
        backend: str = "auto",
    ) -> None:
        params = list(params)
        if nonfinite not in ("skip", "clamp"):
            raise InputError(
                expected="nonfinite='skip' or 'clamp'",
                got=repr(nonfinite),
                fix="'skip' leaves the update out, 'clamp' is the authors' nan_to_num",
            )
        if not all(isinstance(each, Tensor) for each in params):
            raise InputError(
                expected="parameters in one group",
                got="groups or named parameters",
                fix="make an AdamEMA for each group",
            )
        for name, column in (("EMA tensor", ema), ("copy", copies)):
            if column is not None and [e.shape for e in column] != [p.shape for p in params]:
                raise InputError(
                    expected=f"one {name} of the same shape for each of {len(params)} parameters",
                    got=f"{len(column)} tensors of other shapes or order",
                    fix="pass list(copy.deepcopy(network).parameters())",
                )
        # torch 2.13 refuses the integer 0 as a beta.
        betas = (float(betas[0]), float(betas[1]))
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            capturable=capturable,
            fused=True,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        # GradScaler shall unscale by itself: its factor does not reach the fused pass.
        self._step_supports_amp_scaling = False
        self._parameters: list[Tensor] = params
        self._ema = None if ema is None else list(ema)
        self._copies = None if copies is None else list(copies)
        self._capturable = capturable
        self._clamp = nonfinite == "clamp"
        self._backend = backend
        self._operands: Operands | None = None
        self._update: Update
        self.skipped = torch.zeros((), dtype=torch.int64, device=params[0].device)
        self._place_lr()

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, ema_beta: float | Tensor = 0.0
    ) -> Any:
        """One update of the parameters from their `.grad`, then of EMA and copies.

        Args:
            closure: as in `torch.optim.Optimizer.step`.
            ema_beta: share of the old average that stays; 0 copies the parameters. A 0-d tensor on
                the device in captured graphs.
        """
        loss = None
        if not self._capturable and graphs.capturing(self.skipped.device):
            raise InputError(
                expected="capturable=True in a CUDA graph",
                got="capturable=False",
                fix="pass it to AdamEMA, and what shall change between replays as tensors",
            )
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [p.grad for p in self._parameters]
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        if not self._prepared(grads, beta1 != 0):
            self._prepare(grads, beta1 != 0)
        settings = Settings(
            group["lr"],
            (beta1, beta2),
            group["eps"],
            group["weight_decay"],
            group["decoupled_weight_decay"],
            ema_beta,
            self._clamp,
        )
        self._update(grads, settings)
        return loss

    def _prepared(self, grads: Sequence[Tensor | None], first_moment: bool) -> bool:
        """Whether every parameter with a gradient has its moments."""
        known = self._operands
        if known is None or first_moment != (known.exp_avgs is not None):
            return False
        without = [i for i, moment in enumerate(known.exp_avg_sqs) if moment is None]
        return all(grads[i] is None for i in without)

    def _prepare(self, grads: Sequence[Tensor | None], first_moment: bool) -> None:
        """Make moments for parameters that get their first gradient, and the update over them."""
        if graphs.capturing(self.skipped.device):
            raise InputError(
                expected="moments of every parameter before a CUDA graph is captured",
                got="the first gradient of a parameter",
                fix="take a step before the capture, with every gradient and the same betas",
            )
        for p, grad in zip(self._parameters, grads, strict=True):
            if grad is None and p not in self.state:
                continue
            state = self.state[p]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg_sq"] = torch.zeros_like(p)
            if not first_moment:
                state.pop("exp_avg", None)
            elif "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(p)
        self._operands = Operands(
            self._parameters,
            self._column("exp_avg") if first_moment else None,
            self._column("exp_avg_sq"),
            self._column("step"),
            self._ema,
            self._copies,
            self.skipped,
        )
        self._update = adam_ema(self._operands, self._backend)

    def _column(self, name: str) -> list[Tensor | None]:
        return [self.state[p][name] if p in self.state else None for p in self._parameters]

    def state_dict(self) -> dict[str, Any]:
        """As `torch.optim.Adam.state_dict`."""
        packed = super().state_dict()
        packed["state"] = {
            key: {
                "step": state["step"],
                "exp_avg": state.get("exp_avg", torch.zeros_like(state["exp_avg_sq"])),
                "exp_avg_sq": state["exp_avg_sq"],
            }
            for key, state in packed["state"].items()
        }
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `torch.optim.Adam.load_state_dict`, from an AdamEMA, Adam or AdamW.

        Raises:
            InputError: the state of an Adam with amsgrad or maximize.
        """
        for flag in ("amsgrad", "maximize"):
            if any(group.get(flag) for group in state_dict["param_groups"]):
                raise InputError(
                    expected="the state of an Adam without amsgrad and maximize",
                    got=f"{flag}=True",
                    fix="go on with torch.optim.Adam",
                )
        super().load_state_dict(state_dict)
        self.param_groups[0].update(fused=True, capturable=self._capturable)
        self._place_lr()
        for p, state in self.state.items():
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=p.device)
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state and state[name].stride() != p.stride():
                    state[name] = torch.empty_like(p).copy_(state[name])
        self._operands = None

    def _place_lr(self) -> None:
        """Where captured graphs read it."""
        group = self.param_groups[0]
        if self._capturable:
            group["lr"] = torch.as_tensor(
                group["lr"], dtype=torch.float32, device=self.skipped.device
            )
