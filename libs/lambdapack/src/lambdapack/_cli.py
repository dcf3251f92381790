"""`lambdapack build`: make the artifacts of members of a uv workspace."""

import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import click

from lambdapack.artifacts import Artifact, Builder, Settings
from lambdapack.environments import uv_command, uv_environment
from lambdapack.errors import BuildError
from lambdapack.project import PYTHONS, Member, Project
from lambdapack.requirements import MACHINES, PYTHON
from lambdapack.statements import Statements
from lambdapack.tools import ToolError, run_quietly

LOG = logging.getLogger("lambdapack")

BY_PYTHON = """
import os, sys
sys.path[:0] = sys.argv.pop(1).split(os.pathsep)
from lambdapack.__main__ import main
main()
"""
# What a build imports; these are pure Python, or have a Python form.
NEEDED = ("lambdapack", "botocore", "click", "packaging", "yaml")


@click.group()
@click.version_option(package_name="lambdapack")
def main() -> None:
    """Make zips for AWS Lambda of the members of a uv workspace."""
    warnings.simplefilter("ignore")  # of sources that are compiled here


@main.command(
    epilog="""\b
Examples:
  lambdapack build orders                               # dist/orders.zip
  lambdapack build orders --python 3.12 --arch x86_64
  lambdapack build orders --iam serverless.yml          # cuts boto3 to what it may call
  lambdapack build orders --allow s3:GetObject,sqs:SendMessage
"""
)
@click.argument("names", nargs=-1, metavar="[MEMBER]...")
@click.option("--arch", type=click.Choice(sorted(MACHINES)), default="arm64", show_default=True)
@click.option(
    "--python", type=click.Choice(sorted(PYTHONS)), help="Default: the newest that uv.lock allows."
)
@click.option("--handler", metavar="MODULE[.NAME]", help="Default: modules that define a handler.")
@click.option("--iam", type=click.Path(path_type=Path), help="A file with its IAM statements.")
@click.option("--function", help="Its name in the file of --iam. Default: the member's.")
@click.option("--allow", metavar="ACTIONS", multiple=True, help="IAM actions, by commas.")
@click.option("--no-thin", is_flag=True, help="Ship all files as they are installed.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: dist of the workspace.")
@click.option(
    "--project", type=click.Path(path_type=Path), default=".", help="A folder of the workspace."
)
@click.option("--json", "as_json", is_flag=True, help="Print the artifacts as one JSON object.")
def build(
    names: tuple[str, ...],
    arch: str,
    python: str | None,
    handler: str | None,
    iam: Path | None,
    function: str | None,
    allow: tuple[str, ...],
    no_thin: bool,
    out: Path | None,
    project: Path,
    as_json: bool,
) -> None:
    """Build dist/MEMBER.zip for members of a uv workspace.

    MEMBER is a name or a folder. Its dependencies are those of uv.lock; its own files are those of
    its wheel, or without a build system those of its folder. What has not changed is kept.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("lambdapack").setLevel(logging.WARNING if as_json else logging.INFO)
    found = Project.at(project, out)
    wanted = python or found.default_python()
    if wanted != PYTHON:
        sys.exit(_by_python(wanted))
    selected = [found.select(name, here=project) for name in names or (None,)]
    members = list({each.name: each for each in selected}.values())
    if len(members) > 1 and (handler or function):
        raise click.UsageError(
            "--handler and --function are for one MEMBER: build each by a command of its own"
        )
    if function and iam is None:
        raise click.UsageError("--function is a name in the file of --iam: pass that file as well")
    chosen = [
        replace(each, module=handler, allowed=_allowed(iam, function, allow, each))
        for each in members
    ]
    for each in chosen:
        if left := each.left_out():
            LOG.info(
                f"{each.name}: {', '.join(left)} at the top of {each.folder} will not ship: rename "
                "what the function reads, or give the member a [build-system]"
            )
    settings = Settings(arch, thin=False) if no_thin else Settings(arch)
    try:
        built = Builder(found.choosing(*chosen), settings).build(chosen)
    except OSError as error:
        raise BuildError(
            f"{error.filename or 'a file'}: {error.strerror}: a build writes to --out, to the "
            "temporary folder, and to LAMBDAPACK_CACHE_DIR or ~/.cache/lambdapack; free space "
            "there, or name others"
        ) from error
    _report(built, found, as_json=as_json)


def _allowed(
    iam: Path | None, function: str | None, allow: tuple[str, ...], member: Member
) -> Statements | None:
    listed = [name.strip() for text in allow for name in text.split(",") if name.strip()]
    if iam is None:
        return Statements.of_actions(listed) if listed else None
    read = Statements.read(iam, function, member.name)
    if read is None or not listed:
        return read
    return replace(read, statements=[*read.statements, *Statements.of_actions(listed).statements])


def _by_python(version: str) -> int:
    """Run this command again by another version of Python, which compiles for its own version."""
    try:
        path = run_quietly(
            [uv_command(), "python", "find", "--no-project", "--no-config", version],
            cwd=Path.cwd(),
            what="looking for Python",
            env=uv_environment(),
        ).strip()
    except ToolError as failed:
        raise BuildError(
            f"an artifact for Python {version} is compiled by it, and it is not installed: run "
            f"`uv python install {version}`"
        ) from failed
    packages = os.pathsep.join({str(_folder_of(name)): name for name in NEEDED})
    command = [path, "-I", "-B", "-c", BY_PYTHON, packages, *sys.argv[1:], "--python", version]
    return subprocess.run(command, env=dict(os.environ), check=False).returncode


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def _report(artifacts: list[Artifact], project: Project, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    each.name: asdict(each) | {"zip": str(project.root / each.zip)}
                    for each in artifacts
                }
            )
        )
        return
    for each in artifacts:
        state = "built" if each.built else "unchanged"
        handlers = ", ".join(each.handlers) or "none found (name it by --handler)"
        click.echo(
            f"{each.zip} {state}: {each.size / 1e6:.2f} MB ({each.unpacked_size / 1e6:.2f} "
            f"unpacked, {each.files} files) {each.digest[:12]}, Python {PYTHON}, {each.arch}, "
            f"modules with a handler: {handlers}"
        )
