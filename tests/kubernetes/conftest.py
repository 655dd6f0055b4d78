# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
sys.path.insert(0, os.path.join(TESTS, "cni"))
from lib.fixtures import _clean_machine, pytest_collection_modifyitems, pytest_configure  # noqa: E402,F401
from cluster import Cluster  # noqa: E402


@pytest.fixture
def cluster():
    with Cluster() as c:
        yield c
