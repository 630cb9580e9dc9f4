"""What type checkers need to know of the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Protocol, cast, overload

from torch import Tensor

P = ParamSpec("P")


class ScoreLoss(Protocol[P]):
    """A loss per sample, with `return_weight=True` a pair."""

    @overload  # more special than the next, whose P takes `return_weight: bool` too
    def __call__(  # type: ignore[overload-overlap]
        self, *args: Any, return_weight: Literal[True], **kwargs: Any
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...


def score_loss(function: Callable[P, Tensor | tuple[Tensor, Tensor]]) -> ScoreLoss[P]:
    """The function itself, which returns a pair with `return_weight=True` only."""
    return cast(ScoreLoss[P], function)
