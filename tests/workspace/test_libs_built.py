"""The content and the metadata of the libs' distributions."""

import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from tests.workspace.lib_environments import LIBS, direct, project, source

DEPENDENCIES = {
    "client": {
        "httpx",
        "jobplane-keys",
        "jobplane-models",
        "jobplane-webhooks",
        "pydantic",
        "websockets",
    },  # fmt: skip
    "files": {"jobplane-keys"},
    "keys": set(),
    "leases": {"botocore", "jobplane-keys"},
    "models": {"jobplane-keys", "pydantic"},
    "parameters": set(),
    "robots": {"pydantic"},
    "sockets": {"botocore", "jobplane-keys", "jobplane-leases"},
    "telemetry": set(),
    "tokens": {"jobplane-parameters", "pyjwt"},
    "webhooks": {"httpx"},
}


def wheel(shelf: Path, lib: str) -> zipfile.ZipFile:
    (path,) = shelf.glob(f"jobplane_{lib}-*.whl")
    return zipfile.ZipFile(path)


def metadata(shelf: Path, lib: str) -> bytes:
    with wheel(shelf, lib) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name)


@pytest.mark.parametrize("lib", LIBS)
def test_a_wheel_has_exactly_the_package(shelf: Path, lib: str) -> None:
    """With `py.typed` and the licence."""
    folder = source(lib) / "src"
    sources = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with wheel(shelf, lib) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in files if ".dist-info/" in name}
    assert files - info == sources
    assert f"jobplane_{lib}/py.typed" in sources
    assert not [name for name in sources if "test" in name]
    assert any(name.endswith("/licenses/LICENSE") for name in info)


@pytest.mark.parametrize("lib", LIBS)
def test_a_wheels_metadata_is_valid_and_has_the_readme(shelf: Path, lib: str) -> None:
    told = Metadata.from_email(metadata(shelf, lib), validate=True)
    assert told.name == f"jobplane-{lib}"
    assert str(told.version) == project(lib)["version"]
    assert told.summary == project(lib)["description"]
    assert told.license_expression == "MIT"
    assert told.license_files == ["LICENSE"]
    assert told.description_content_type == "text/markdown"
    assert told.description == (source(lib) / "README.md").read_text()
    assert told.requires_python == SpecifierSet(">=3.12")
    assert "Typing :: Typed" in (told.classifiers or [])


@pytest.mark.parametrize("lib", LIBS)
def test_dependencies_have_lower_bounds_and_ours_a_compatible_range(lib: str) -> None:
    assert direct(lib).keys() == DEPENDENCIES[lib]
    for name, requirement in direct(lib).items():
        operators = {bound.operator for bound in requirement.specifier}
        if name.startswith("jobplane-"):
            assert operators == {">=", "<"}
            version = project(name.removeprefix("jobplane-"))["version"]
            assert requirement.specifier.contains(version)
        else:
            assert operators == {">="}


@pytest.mark.parametrize("lib", LIBS)
def test_an_sdist_has_sources_readme_and_licence(shelf: Path, lib: str) -> None:
    """Under the wheel's version."""
    (path,) = shelf.glob(f"jobplane_{lib}-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        licence = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/LICENSE")
        assert licence is not None
        assert licence.read() == (source(lib) / "LICENSE").read_bytes()
    assert {"README.md", "pyproject.toml", f"src/jobplane_{lib}/__init__.py"} <= names
    (made,) = shelf.glob(f"jobplane_{lib}-*.whl")
    assert parse_sdist_filename(path.name) == parse_wheel_filename(made.name)[:2]
