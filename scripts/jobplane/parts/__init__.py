"""Make projects from parts of this repository: some functions, and everything they need."""

from jobplane.parts._deletion import delete, resources_of
from jobplane.parts._functions import Part, chosen, parts
from jobplane.parts._needs import Needs
from jobplane.parts._project import Made, ProjectError, make, update

__all__ = [
    "Made", "Needs", "Part", "ProjectError", "chosen", "delete", "make", "parts", "resources_of",
    "update",
]  # fmt: skip
