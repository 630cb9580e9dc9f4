"""Teachers: the diffusion models that are distilled.

`digits` is the one in the package, `load` reads one by name or from a file, `as_denoiser` wraps a
foreign network, and `check_teacher` is the one place that says whether a model can be distilled.
"""

from __future__ import annotations

from sidfast.teachers.adapt import AdaptedDenoiser, as_denoiser
from sidfast.teachers.check import check_teacher
from sidfast.teachers.loading import digits, digits_record, load

__all__ = ["AdaptedDenoiser", "as_denoiser", "check_teacher", "digits", "digits_record", "load"]
