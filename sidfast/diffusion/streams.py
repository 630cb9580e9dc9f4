"""The random streams: one number for every (update, purpose) pair.

Everything random in a run is a pure function of (seed, stream, sample index, element). A stream is
(update << 24) | (purpose << 16); the low 16 bits are left to the user of the stream: dropout adds
the number of the layer, augmentation the number of the draw.
"""

from __future__ import annotations

from enum import IntEnum

_SAMPLE, _FAKE, _GENERATOR, _TEACHER, _EVALUATE = (update << 24 for update in range(5))
_LATENT, _LABEL, _SIGMA, _NOISE, _DROPOUT, _AUGMENT, _DATA = (kind << 16 for kind in range(7))


class Stream(IntEnum):
    """Streams of drawing samples, the two SiD updates, teacher training and evaluation.

    The values are part of the file format: changing one changes what a recorded seed reproduces.
    """

    SAMPLE_LATENT = _SAMPLE | _LATENT
    SAMPLE_LABEL = _SAMPLE | _LABEL

    FAKE_LATENT = _FAKE | _LATENT
    FAKE_LABEL = _FAKE | _LABEL
    FAKE_SIGMA = _FAKE | _SIGMA
    FAKE_NOISE = _FAKE | _NOISE
    FAKE_DROPOUT = _FAKE | _DROPOUT
    FAKE_AUGMENT = _FAKE | _AUGMENT

    GENERATOR_LATENT = _GENERATOR | _LATENT
    GENERATOR_LABEL = _GENERATOR | _LABEL
    GENERATOR_SIGMA = _GENERATOR | _SIGMA
    GENERATOR_NOISE = _GENERATOR | _NOISE
    GENERATOR_DROPOUT = _GENERATOR | _DROPOUT

    TEACHER_SIGMA = _TEACHER | _SIGMA
    TEACHER_NOISE = _TEACHER | _NOISE
    TEACHER_DROPOUT = _TEACHER | _DROPOUT
    TEACHER_AUGMENT = _TEACHER | _AUGMENT
    TEACHER_DATA = _TEACHER | _DATA

    EVALUATE_SUBSET = _EVALUATE | _DATA
