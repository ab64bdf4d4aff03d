"""nagkit: guided generation of neural architectures with diffusion models, and the study of DiffusionNAG built on it."""

__version__ = "0.1.0"
