"""Denoising networks whose published weights load by name."""

from sidfast.networks.edm import (
    DhariwalUNet,
    EDMPrecond,
    Preconditioner,
    SongUNet,
    VEPrecond,
    VPPrecond,
    build_network,
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
    "iDDPMPrecond",
    "network_config",
]
