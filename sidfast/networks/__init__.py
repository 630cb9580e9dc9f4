"""Denoising networks whose published weights load by name."""

from sidfast.networks.edm import (
    DhariwalUNet,
    EDMPrecond,
    Preconditioner,
    SongUNet,
    VEPrecond,
    VPPrecond,
    build_network,
    can_rebuild,
    iDDPMPrecond,
    network_config,
)

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
