"""What libraries import unasked: left out, and there for whoever asks after all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPARED = (
    "import sys\n"
    "from safescale_ammt.library_imports import spare_imports\n"
    "spare_imports()\n"
)


def said(code: str) -> list[str]:
    """Runs code in a process that is spared imports; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", SPARED + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_statistics_come_without_a_compiler_and_test_tools() -> None:
    loaded = said(
        "import pyarrow as pa, scipy.special\n"
        "pa.array(['a'])\n"
        "print(scipy.special.ndtri(0.5), *sys.modules)"
    )
    assert loaded[0] == "0.0"
    assert not {"pandas", "numpy.f2py.f2py2e", "unittest", "numpy.ma.core"} & {*loaded}


def test_a_spared_module_of_numpy_is_there_once_it_is_used() -> None:
    told = said(
        "import numpy as np, scipy.special\n"
        "np.testing.assert_equal(1, 1)\n"
        "print(np.fft.fft([1.0]).real, np.ma.masked_array([1], [True]).count())\n"
        "import numpy.testing\n"
        "print('unittest' in sys.modules)"
    )
    assert told == ["[1.]", "0", "True"]


def test_the_client_of_a_store_comes_without_the_ciphers_of_administrators() -> None:
    loaded = said("import safescale_ammt.store.s3\nprint(*sys.modules)")
    assert "minio.api" in loaded
    assert not {"Crypto", "cffi", "argon2", "pycparser"} & {*loaded}


def test_the_ciphers_are_there_once_one_is_called() -> None:
    told = said(
        "import io\n"
        "from minio.crypto import decrypt, encrypt\n"
        "print('Crypto' in sys.modules)\n"
        "body = encrypt(b'words', 'key')\n"
        "from urllib3 import HTTPResponse\n"
        "answer = HTTPResponse(io.BytesIO(body), preload_content=False)\n"
        "print(decrypt(answer, 'key').decode(), 'Crypto' in sys.modules)"
    )
    assert told == ["False", "words", "True"]


def test_settings_of_buckets_are_classes_once_they_are_used() -> None:
    told = said(
        "import minio.api as api\n"
        "from minio.commonconfig import ENABLED\n"
        "loaded = [hasattr(sys.modules[f'minio.{name}'], '__loader__') for name in\n"
        "          ('versioningconfig', 'select', 'lifecycleconfig')]\n"
        "print(all(loaded), 'VersioningConfig' in dir(sys.modules['minio.select']))\n"
        "made = api.VersioningConfig(ENABLED)\n"
        "print(made.status, isinstance(made, api.VersioningConfig))\n"
        "print(isinstance(3, api.SelectRequest), isinstance(3, api.DeleteObject))\n"
        "xml = '<VersioningConfiguration><Status>Enabled</Status>'\n"
        "xml += '</VersioningConfiguration>'\n"
        "print(api.unmarshal(api.VersioningConfig, xml).status)"
    )
    assert told == ["True", "False", "Enabled", "True", "False", "False", "Enabled"]


def test_docstrings_of_scipy_are_left_as_they_are_and_its_functions_work() -> None:
    told = said(
        "import numpy, scipy.special, scipy.stats, scipy.optimize\n"
        "print('Gamma function' in scipy.special.gammaln.__doc__\n"
        "      or 'gamma' in scipy.special.gammaln.__doc__.lower())\n"
        "print(round(float(scipy.special.betainc(2, 3, 0.5)), 4))\n"
        "print(round(float(scipy.stats.norm.cdf(0.0)), 1))\n"
        "drawn = scipy.stats.bootstrap(([1.0, 2.0, 3.0],), numpy.mean, rng=1)\n"
        "print(float(drawn.standard_error) > 0)\n"
        "print(round(float(scipy.optimize.brentq(lambda x: x - 2, 0, 3)), 1))"
    )
    assert told == ["True", "0.6875", "0.5", "True", "2.0"]


def test_a_process_is_spared_once() -> None:
    told = said(
        "before = len(sys.meta_path)\nspare_imports()\n"
        "print(len(sys.meta_path) - before)"
    )
    assert told == ["0"]


def test_to_look_at_all_modules_loads_none_of_them() -> None:
    loaded = said(
        "import inspect, scipy.special\n"
        "inspect.getmodule(sys._getframe())\n"
        "[hasattr(module, '__file__') for module in [*sys.modules.values()]]\n"
        "print(*sys.modules)"
    )
    assert "unittest" not in loaded


def test_who_needs_pandas_after_all_is_let_have_it() -> None:
    told = said(
        "import pyarrow as pa\n"
        "from safescale_ammt.library_imports import allow_imports\n"
        "pa.array(['a'])\n"
        "allow_imports()\n"
        "import pandas\n"
        # pyarrow has looked for it in vain, and finds it all the same.
        "print(pa.table({'a': ['x']}).to_pandas()['a'][0], len(pandas.Series([1])))"
    )
    assert told == ["x", "1"]
