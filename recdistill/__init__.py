"""recdistill: knowledge distillation for top-K recommenders, one run from one config."""

__version__ = "0.1.0"

__all__ = ["__version__"]
