"""EDM's networks (arXiv 2206.00364): DDPM++, NCSN++ and ADM under four preconditionings."""

from sidfast.networks.edm.config import build_network, can_rebuild, network_config
from sidfast.networks.edm.dhariwal import DhariwalUNet
from sidfast.networks.edm.precond import (
    EDMPrecond,
    Preconditioner,
    VEPrecond,
    VPPrecond,
    iDDPMPrecond,
)
from sidfast.networks.edm.song import SongUNet

__all__ = [
    "DhariwalUNet",
    "EDMPrecond",
    "Preconditioner",
    "SongUNet",
    "VEPrecond",
    "VPPrecond",
    "build_network",
    "can_rebuild",
    "iDDPMPrecond",
    "network_config",
]
