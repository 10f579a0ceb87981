"""One Ray for all tests of verl."""

import pytest
from PIL import Image

from tests.integration.processes import ROOT

SECONDS = 900
"""For one test with what it sets up: each of verl's workers imports verl for up to a minute."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "integration/verl" in item.nodeid:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def cluster():
    # Here: verl is not imported before pytest knows which warnings count.
    from tests.integration.verl.harness import ray_cluster

    with ray_cluster():
        yield


@pytest.fixture(scope="session")
def shapes():
    """Three red shapes, among others."""
    return Image.open(ROOT / "examples" / "shapes" / "shapes.png").convert("RGB")


@pytest.fixture(scope="session")
def other():
    """A picture with nothing in it."""
    return Image.new("RGB", (96, 96), "white")
