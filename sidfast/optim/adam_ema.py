"""Adam and the moving average of its parameters, under one skip flag on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sidfast.base.errors import InputError

NonFinite = Literal["skip", "clamp"]


class AdamEMA(torch.optim.Adam):
    """`torch.optim.Adam` (fused) that survives non-finite gradients and keeps an EMA.

    The state dict is that of `torch.optim.Adam`, both ways. Nothing in `step` waits for the
    device.

    Args:
        params: parameters, float32 or float64, in one group.
        lr, betas, eps: as in Adam.
        ema: tensors shaped like `params`, updated in place after every step as
            ema <- params + beta * (ema - params); None for no average.
        nonfinite: "skip" leaves parameters, moments, step count and EMA bit-identical when any
            gradient holds a NaN or an infinity; "clamp" replaces NaN by 0 and infinities by
            +-1e5 first, as SiD's authors do.

    Attributes:
        skipped: 0-d int64 device tensor, the number of updates that were left out.

    Raises:
        InputError: `ema` does not match `params`, or `nonfinite` is neither word.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        ema: Sequence[Tensor] | None = None,
        nonfinite: NonFinite = "skip",
    ) -> None:
        params = list(params)
        if nonfinite not in ("skip", "clamp"):
            raise InputError(
                expected="nonfinite='skip' or 'clamp'",
                got=repr(nonfinite),
                fix="'skip' leaves the update out, 'clamp' is the authors' nan_to_num",
            )
        if ema is not None and [e.shape for e in ema] != [p.shape for p in params]:
            raise InputError(
                expected=f"one EMA tensor of the same shape for each of {len(params)} parameters",
                got=f"{len(ema)} tensors of other shapes or order",
                fix="pass list(copy.deepcopy(network).parameters())",
            )
        # torch 2.13 refuses the integer 0 as a beta.
        betas = (float(betas[0]), float(betas[1]))
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        self._parameters = params
        self._ema = None if ema is None else list(ema)
        self._clamp = nonfinite == "clamp"
        self.skipped = torch.zeros((), dtype=torch.int64, device=params[0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, ema_beta: float = 0.0) -> Any:
        """One update of the parameters from their `.grad`, then of the EMA.

        Args:
            closure: as in `torch.optim.Optimizer.step`.
            ema_beta: share of the old average that stays; 0 copies the parameters.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        found = self._condition(gradients)
        # Adam's fused kernel reads this attribute, as torch.amp.GradScaler sets it.
        self.found_inf = found
        super().step()
        self.skipped += found.to(torch.int64)
        if self._ema is not None:
            keep = torch.where(found > 0, 1.0, ema_beta).to(self._ema[0].dtype)
            blended = torch._foreach_lerp(self._parameters, self._ema, [keep] * len(self._ema))
            torch._foreach_copy_(self._ema, blended)
        return loss

    def _condition(self, gradients: list[Tensor]) -> Tensor:
        """Clamp if asked; return 1.0 where the update must be left out, else 0.0 (0-d)."""
        if not gradients:
            return self.skipped.new_zeros((), dtype=torch.float32)
        if self._clamp:
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
            return self.skipped.new_zeros((), dtype=torch.float32)
        largest = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
        return (~torch.isfinite(largest)).to(torch.float32)
