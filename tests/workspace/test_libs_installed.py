"""Each lib installed alone in another project, imported, and used as in its README."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from tests.unit.client_services import HttpService, Reply, Script, SocketService, completed
from tests.workspace.lib_environments import (
    EXTRAS,
    LIBS,
    ROOT,
    Environment,
    direct,
    examples,
    lowest,
    uv,
)
from tests.workspace.loopback_aws import Flow, LoopbackAws

# Their examples are checked with their own service below.
ALONE = [lib for lib in LIBS if lib != "client"]
# These have no types, which their users must configure.
MYPY_CONFIG = """[mypy]
[mypy-aws_xray_sdk.*,boto3.*,botocore.*]
ignore_missing_imports = true
"""
NEWEST, LOWEST = "newest", "lowest"
# The one module that stands for an extra, and that the rest of its package imports when it must.
OF_EXTRAS = {"jobplane_telemetry._tracing"}
IMPORT_ALL = """
import importlib, pkgutil, pydoc
import jobplane_{lib} as package

assert "site-packages" in package.__file__
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name not in {leaving_out}:
        importlib.import_module(module.name)
pydoc.render_doc(package)
"""

type Install = Callable[..., Environment]


@pytest.fixture
def install(shelf: Path, tmp_path: Path) -> Install:
    """Creates an environment with a lib alone, at the newest or the lowest versions."""

    def make(lib: str, versions: str = NEWEST, extra: str = "") -> Environment:
        limits = lowest(lib, shelf, tmp_path / "lowest.txt") if versions == LOWEST else None
        return Environment.create(tmp_path / lib, shelf, lib + extra, constraints=limits)

    return make


@pytest.mark.parametrize("lib", LIBS)
def test_every_module_of_a_lib_imports_with_its_declared_dependencies(
    lib: str, install: Install
) -> None:
    """help() works as well. A lib without dependencies installs nothing else."""
    environment = install(lib)
    expected, installed = {f"jobplane-{lib}", *direct(lib)}, environment.installed()
    assert expected <= installed
    assert direct(lib) or installed == expected
    environment.run(IMPORT_ALL.format(lib=lib, leaving_out=OF_EXTRAS))


@pytest.mark.parametrize("versions", [NEWEST, LOWEST])
@pytest.mark.parametrize("lib", ALONE)
def test_a_readmes_examples_run_without_warnings(lib: str, versions: str, install: Install) -> None:
    """With the newest and the lowest versions."""
    environment = install(lib, versions)
    assert examples(lib)
    for code in examples(lib):
        environment.run(code)


@pytest.fixture(params=[NEWEST, LOWEST])
def client(request: pytest.FixtureRequest, install: Install) -> Environment:
    """The client library, alone."""
    return install("client", request.param)


async def test_the_socket_example_prints_progress_and_result(client: Environment) -> None:
    async with SocketService() as service:
        variables = {"JOBPLANE_SOCKET_URL": service.url, "JOBPLANE_TOKEN": "t1"}
        program = asyncio.create_task(
            asyncio.to_thread(client.run, examples("client")[0], **variables)
        )
        await service.until(lambda: service.jobs)
        (request_id,) = service.jobs
        await service.progress(request_id, 50)
        await service.complete(request_id, {"n": 1})
        assert await program == "50.0\n{'n': 1}\n"


def test_the_status_example_waits_for_a_job(client: Environment) -> None:
    script = Script()
    script.will(Reply(body=completed()))
    with HttpService(script) as service:
        told = client.run(examples("client")[2], JOBPLANE_URL=service.url, JOBPLANE_TOKEN="t1")
    assert told == "Completed in 5.2s\n"


def test_the_webhook_example_verifies_the_standards_vector(client: Environment) -> None:
    assert client.run(examples("client")[3]) == "{'test': 2432232314}\n"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackAws]:
    """The flow's services on a loopback port, with the table that the example writes to."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        tables = boto3.client("dynamodb")
        tables.create_table(
            TableName="pages",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with LoopbackAws(Flow(), tables) as services:
            yield services


@pytest.mark.parametrize("versions", [NEWEST, LOWEST])
def test_the_worker_example_runs_a_job_with_its_fence(
    versions: str, install: Install, aws: LoopbackAws
) -> None:
    environment = install("client", versions, "[aws]")
    order = aws.flow.order()
    with environment.started(examples("client")[4], **aws.variables()) as program:
        aws.flow.until_reported()
        program.terminate()
        _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    assert aws.flow.tasks.outputs == [{"pages": 1}]
    (page,) = aws.tables.scan(TableName="pages")["Items"]
    fence = {"N": str(order["fence"])}
    assert page == {"id": {"S": "t1/1"}, "text": {"S": "do m1"}, "fence": fence}


def test_a_lib_installs_by_git_with_its_siblings_of_the_same_commit(tmp_path: Path) -> None:
    uv("venv", "--quiet", "venv", cwd=tmp_path)
    address = f"jobplane-client @ git+file://{ROOT}#subdirectory=libs/client"
    uv("pip", "install", "--python", "venv/bin/python", address, cwd=tmp_path)
    frozen = uv("pip", "freeze", "--python", "venv/bin/python", cwd=tmp_path).splitlines()
    ours = [line for line in frozen if line.startswith("jobplane-")]
    commits = {line.partition(f"file://{ROOT}@")[2].partition("#")[0] for line in ours}
    assert len(ours) == 4
    assert len(commits - {""}) == 1


@pytest.fixture(scope="module")
def everything(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """All libs with all extras, and the examples of their READMEs as programs."""
    folder = tmp_path_factory.mktemp("foreign") / "everything"
    bare = [lib for lib in LIBS if not any(extra.startswith(lib + "[") for extra in EXTRAS)]
    environment = Environment.create(folder, shelf, *bare, *EXTRAS)
    (folder / "examples").mkdir()
    (folder / "mypy.ini").write_text(MYPY_CONFIG)
    for lib in LIBS:
        for number, code in enumerate(examples(lib)):
            (folder / "examples" / f"{lib}_{number}.py").write_text(code)
    return environment


def test_mypy_strict_accepts_installed_libs_and_their_examples(everything: Environment) -> None:
    """By the rules of the oldest supported Python."""
    packages = [argument for lib in LIBS for argument in ("-p", f"jobplane_{lib}")]
    for checked in (packages, ["examples"]):
        everything.check("mypy", "--strict", "--python-version",
                         "3.12", "--python-executable", everything.python, *checked)  # fmt: skip


def test_pyright_accepts_installed_libs_and_their_examples(everything: Environment) -> None:
    everything.check("pyright", "--pythonpath", everything.python, "--pythonversion", "3.12",
                     "examples")  # fmt: skip
