# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
sys.path.insert(0, os.path.join(TESTS, "cni"))
from lib import fixtures  # noqa: E402
from lib.fixtures import _clean_machine, pytest_configure  # noqa: E402,F401
from cluster import Cluster  # noqa: E402


def pytest_collection_modifyitems(config, items):
    fixtures.pytest_collection_modifyitems(config, items)
    items.sort(key=lambda item: "storm" not in item.name)  # the longest is not begun when the others are done


@pytest.fixture
def cluster():
    with Cluster() as c:
        yield c
