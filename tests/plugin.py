"""The pytest plugin that lets the repository's root be the package ``millstream``.

Loaded early by ``-p millstream.tests.plugin`` (see ``addopts`` in pyproject.toml). The root holds
an ``__init__.py``, so pytest would take the checkout for a package under the folder's own name and
import the facade a second time. The cure is to collect that one folder as a plain directory; tests
have no ``__init__.py`` and import ``millstream....`` absolutely.

``--without-plyvel`` runs the tests as on a machine that LevelDB has no wheel for.

It also sets Hypothesis up once for every test: derandomised, so that the same commit always runs
the same examples, bounded, and without deadlines, since a busy machine is not a failure.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "millstream",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "60")),
    stateful_step_count=30,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=False,
)
hypothesis.settings.load_profile("millstream")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    group = parser.getgroup("millstream")
    group.addoption(
        "--without-plyvel",
        action="store_true",
        help="make `import plyvel` fail, so that the segments engine keeps every log",
    )
    group.addoption(
        "--url",
        metavar="ENDPOINT",
        help="run the black-box tests against this DynamoDB instead of a node of our own",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hide plyvel before anything can import it."""
    if config.getoption("--without-plyvel"):
        assert "plyvel" not in sys.modules
        sys.modules["plyvel"] = None  # type: ignore[assignment]


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the folder that holds pyproject.toml as a directory, not as a package."""
    if (path / "pyproject.toml").is_file():
        return pytest.Dir.from_parent(parent, path=path)
    return None
