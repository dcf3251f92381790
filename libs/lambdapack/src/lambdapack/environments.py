"""Environment variables of started programs, without those of the user that redirect them."""

import os
import re
import shutil
import sys
from pathlib import Path

# Variables of Python that don't affect imports and compilation.
KEPT_OF_PYTHON = frozenset(
    {
        "PYTHONASYNCIODEBUG", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED",
        "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONWARNINGS",
    }
)  # fmt: skip
# `git rev-parse --local-env-vars`, without settings: variables that select another repository.
OF_A_REPOSITORY = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)  # fmt: skip
# Settings of npm that omit packages or change folders; registry, proxy and cache are kept.
OF_AN_INSTALLATION = frozenset(
    {
        "NODE_ENV", "NPM_CONFIG_ALSO", "NPM_CONFIG_DEV", "NPM_CONFIG_DRY_RUN", "NPM_CONFIG_GLOBAL",
        "NPM_CONFIG_INCLUDE", "NPM_CONFIG_LOCATION", "NPM_CONFIG_OMIT", "NPM_CONFIG_ONLY",
        "NPM_CONFIG_OPTIONAL", "NPM_CONFIG_PACKAGE_LOCK", "NPM_CONFIG_PACKAGE_LOCK_ONLY",
        "NPM_CONFIG_PREFIX", "NPM_CONFIG_PRODUCTION", "NPM_CONFIG_WORKSPACE",
        "NPM_CONFIG_WORKSPACES",
    }
)  # fmt: skip
# Variables that would direct AWS tools to another endpoint or account than the local stage's.
OF_AN_ACCOUNT = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCOUNT_ID",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
)  # fmt: skip
# Variables for uv that affect how packages are downloaded, not which ones.
KEPT_OF_UV = re.compile(
    r"UV_(?:CACHE_DIR|NO_CACHE|OFFLINE|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|KEYRING_PROVIDER"
    r"|HTTP_.*|REQUEST_TIMEOUT|CONCURRENT_.*|INDEX_.*_(?:USERNAME|PASSWORD)|CREDENTIALS_DIR"
    r"|PYTHON_INSTALL_(?:DIR|MIRROR)|GIT_LFS|GITHUB_TOKEN)"
)
FIRST_DATE_OF_ZIP = "315532800"
"""1980-01-01, in seconds since 1970."""
OF_INSTALLERS = ("UV_", "PIP_", "CONDA_", "VIRTUAL_ENV")
NO_AWS_FILES = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def plain_environment(*, aws: bool = False, **extra: str) -> dict[str, str]:
    """This process's environment variables, without those that would redirect a program.

    Omits variables of Python and of this virtual environment, of a git repository and of an npm
    installation.

    Args:
        aws: whether to keep the settings of the user's AWS account.
        extra: variables to add.
    """
    kept = {name: value for name, value in os.environ.items() if _is_kept(name, aws=aws)}
    prefix = str(Path(sys.prefix) / "bin")
    path = kept.get("PATH", os.defpath).split(os.pathsep)
    kept["PATH"] = os.pathsep.join(entry for entry in path if entry != prefix)
    return kept | ({} if aws else NO_AWS_FILES) | extra


def _is_kept(name: str, *, aws: bool) -> bool:
    if name.startswith("PYTHON"):
        return name in KEPT_OF_PYTHON
    if name.startswith("AWS_"):
        return aws
    return (
        name not in ("VIRTUAL_ENV", "UV_RUN_RECURSION_DEPTH")
        and name not in OF_A_REPOSITORY
        and name.upper() not in OF_AN_INSTALLATION
    )


def uv_environment() -> dict[str, str]:
    """Environment variables for a uv that installs packages.

    AWS settings are kept: a keyring or a git helper may get a password from AWS. Wheels get one
    date, because build backends refuse some, such as a SOURCE_DATE_EPOCH of 0.
    """
    return {
        name: value
        for name, value in plain_environment(aws=True).items()
        if not name.startswith(OF_INSTALLERS) or KEPT_OF_UV.fullmatch(name)
    } | {"SOURCE_DATE_EPOCH": FIRST_DATE_OF_ZIP}


def uv_locking_environment() -> dict[str, str]:
    """Environment variables for a uv that reads or writes uv.lock: only the project configures it.

    `--no-config` would ignore the project's configuration as well.
    """
    return uv_environment() | {"XDG_CONFIG_HOME": os.devnull, "UV_NO_SYSTEM_CONFIG": "1"}


def uv_project_environment() -> dict[str, str]:
    """Environment variables for a uv that changes the project's own virtual environment."""
    return uv_locking_environment() | {"UV_PROJECT_ENVIRONMENT": project_environment()}


def project_environment() -> str:
    """The folder of the project's virtual environment."""
    return os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")


def uv_command() -> str:
    """The uv that started this command, the one on PATH, or the one beside this Python."""
    beside = Path(sys.executable).with_name("uv")
    found = os.environ.get("UV") or shutil.which("uv")
    return found or (str(beside) if beside.is_file() else "uv")
