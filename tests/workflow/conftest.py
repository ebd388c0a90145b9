"""One built report, which the tests of whole builds share."""

import pytest
from project_copy import ALL, Project


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Project:
    """A project whose report is built from nothing. Tests change copies of it."""
    project = Project(tmp_path_factory.mktemp("built") / "project").create()
    assert project.plan() == dict.fromkeys(ALL, "not finished yet")
    assert project.build() == {"executed": ALL}
    return project


@pytest.fixture
def project(built, tmp_path) -> Project:
    """A copy of the built project."""
    return built.copy(tmp_path / "project")
