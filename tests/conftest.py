"""What several files of tests use."""

import pytest
from wrapped_reference import backend_file

pytest.register_assert_rewrite("conversion_cases")  # so that what it asserts is shown with its values


@pytest.fixture
def planted(tmp_path):
    """Write a backend with methods or functions of its own to a file; gives the file's name."""
    return lambda methods="pass", module="": backend_file(tmp_path / "planted.py", methods, module)
