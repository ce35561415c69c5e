"""LightGBM: imported where trees are boosted, and nowhere else."""

from __future__ import annotations

from types import ModuleType

from safescale_ammt.errors import ConfigError


def lightgbm() -> ModuleType:
    """Imports LightGBM.

    Raises:
        ConfigError: it is not installed, or cannot be loaded here.
    """
    try:
        import lightgbm as found
    except ImportError:
        raise ConfigError(
            "training.learner is 'trees', which LightGBM boosts, but it is not "
            "installed here: pip install 'safescale-ammt[trees]'. The stage images of "
            "this version have none; run without --runner docker."
        ) from None
    except OSError as error:
        # It asks for OpenMP's library, which slim systems leave out.
        raise ConfigError(
            "training.learner is 'trees', but LightGBM does not load here "
            f"({' '.join(str(error).split())[:160]}); install libgomp1."
        ) from None
    module: ModuleType = found
    return module
