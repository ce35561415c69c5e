"""LightGBM: imported where trees are boosted, and nowhere else."""

from __future__ import annotations

from types import ModuleType

from safescale_ammt.errors import ConfigError


def lightgbm() -> ModuleType:
    """Imports LightGBM.

    Raises:
        ConfigError: it is not installed, or cannot be loaded here.
    """
    # First: it brings OpenMP's library under the name that LightGBM asks for, and slim
    # systems have no other.
    import torch  # noqa: F401

    try:
        import lightgbm as found
    except ImportError:
        raise ConfigError(
            "training.learner is 'trees', which LightGBM boosts, but it is not "
            "installed here: pip install 'safescale-ammt[trees]'."
        ) from None
    except OSError as error:
        raise ConfigError(
            "training.learner is 'trees', but LightGBM does not load here "
            f"({' '.join(str(error).split())[:160]}); install libgomp1."
        ) from None
    module: ModuleType = found
    return module
