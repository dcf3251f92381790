"""The artifacts: their content, their digests, and when they are built again."""

import importlib.util
import json
import os
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from jobplane.tree.repository import Repository, read_yaml
from lambdapack import requirements, wheels
from lambdapack.artifacts import HELPERS, Builder, Settings, read_manifest, stale_functions
from lambdapack.requirements import UnbuildableError
from lambdapack.thinning import bytecode
from lambdapack.wheels import UnreadableSourceError
from tests.workspace.copies import Built, Copy, copy_here, jobplane, printed
from tests.workspace.unpacked import FUNCTIONS, bare, environment, names, unpack


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_artifact_has_its_function_libs_and_distributions_only(built: Built, name: str) -> None:
    repository, artifacts = built
    function = next(f for f in repository.functions() if f.name == name)
    arch = Settings.local().arch
    closure = requirements.closures(repository, [function], arch)[name]
    store = wheels.WheelStore(repository, arch)
    folders = [store.folder(each) for each in closure.distributions.values()]
    allowed = {path.name for folder in folders for path in folder.iterdir()}
    allowed |= {path.partition("/")[0] for path in function.shipped_files()}
    allowed |= {"__pycache__", "cold_start.py", "cold_start_methods.py"}
    allowed |= {f"{name}c" for name in allowed if name.endswith(".py")}
    found = {path.partition("/")[0] for path in names(repository, artifacts[name])}
    assert found <= allowed
    assert {lib.replace("-", "_") for lib in closure.libs} <= found
    assert function.source.name in found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_artifact_has_no_tests_stubs_events_or_installer_notes(built: Built, name: str) -> None:
    repository, artifacts = built
    for path in names(repository, artifacts[name]):
        parts = path.split("/")
        assert "tests" not in parts[:-1], path
        assert parts[0] != "events", path
        assert not path.endswith((".pyi", "function.yml", "pyproject.toml", ".imports.json")), path
        if parts[0].endswith(".dist-info"):
            assert parts[1] not in ("direct_url.json", "INSTALLER", "uv_cache.json"), path


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_module_has_valid_bytecode(built: Built, name: str) -> None:
    repository, artifacts = built
    with zipfile.ZipFile(repository.root / artifacts[name].zip) as archive:
        present = set(archive.namelist())
        modules = [path for path in present if path.endswith(".py")]
        compiled = [path for path in present if path.endswith(".pyc")]
        assert modules
        assert len(compiled) > len(modules)
        for path in compiled:
            data = archive.read(path)
            assert data[:4] == importlib.util.MAGIC_NUMBER, path
            assert struct.unpack("<I", data[4:8])[0] == 0b01, path
        for path in modules:
            if path.startswith("bin/"):
                continue
            data = archive.read(importlib.util.cache_from_source(path))
            assert data[8:16] == importlib.util.source_hash(archive.read(path)), path
            assert path.startswith(("jobplane_", "bin/")) or "/" not in path, path


def test_the_bytecode_is_of_the_deployed_python_version() -> None:
    service = read_yaml(Repository.here().root / "serverless.yml")
    assert service["provider"]["runtime"] == f"python{wheels.PYTHON}"
    assert sys.version_info[:2] == tuple(map(int, wheels.PYTHON.split(".")))


def test_a_digest_depends_on_neither_folder_nor_time(built: Built, tmp_path: Path) -> None:
    _, artifacts = built
    other = copy_here(tmp_path / "somewhere" / "else")
    (rebuilt,) = Builder(other, Settings.local()).build(other.select(("connect",)))
    assert rebuilt.digest == artifacts["connect"].digest


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_import_needs_only_a_read_only_artifact(built: Built, name: str, tmp_path: Path) -> None:
    repository, artifacts = built
    function = next(f for f in repository.functions() if f.name == name)
    folder = unpack(repository, artifacts[name], tmp_path / "task")
    before = sorted(folder.rglob("*"))
    script = f"""
import {function.module} as module
assert callable(module.handler)
files = [str(getattr(loaded, "__file__", "")) for loaded in list(sys.modules.values())]
assert not [file for file in files if "site-packages" in file]
"""
    bare(script, folder, environment(repository, name, folder))
    assert sorted(folder.rglob("*")) == before


def test_the_artifact_of_connect_refuses_a_missing_token(built: Built, tmp_path: Path) -> None:
    repository, artifacts = built
    folder = unpack(repository, artifacts["connect"], tmp_path / "task")
    script = """
import connect
class Context:
    aws_request_id = "r"; function_name = "f"; memory_limit_in_mb = "1"; invoked_function_arn = "a"
    def get_remaining_time_in_millis(self): return 1000
event = {"requestContext": {"connectionId": "c", "routeKey": "$connect"}, "headers": {}}
print("\\n" + json.dumps(connect.handler(event, Context())))
"""
    output = bare(script, folder, environment(repository, "connect", folder))
    assert json.loads(output.splitlines()[-1])["statusCode"] == 401


def test_the_sdk_has_the_granted_operations_only(built: Built, tmp_path: Path) -> None:
    repository, artifacts = built
    folder = unpack(repository, artifacts["router"], tmp_path / "task")
    script = """
import botocore.session
session = botocore.session.get_session()
dynamodb = session.create_client("dynamodb")
assert callable(dynamodb.put_item) and dynamodb.can_paginate("query")
s3 = session.create_client("s3")
url = s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "k"})
assert "X-Amz-Signature" in url or "Signature=" in url
lines = []
for wrong in (
    lambda: dynamodb.scan(TableName="t"),
    lambda: session.create_client("sns"),
    lambda: s3.generate_presigned_url("get_bucket_acl"),
):
    try:
        wrong()
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
assert not hasattr(dynamodb, "delete_table")
print(json.dumps(lines))
"""
    output = bare(script, folder, environment(repository, "router", folder))
    scan, sns, presign = json.loads(output)
    assert scan.startswith("OperationCutError: Scan was cut")
    assert "add dynamodb:Scan to iamRoleStatements of functions/router/function.yml" in scan
    assert "IAM statements" in sns
    assert "no IAM statement grants it" in presign


def test_a_build_without_changes_starts_no_tool_and_writes_no_file(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after `affected` has read the same lock."""
    repository, artifacts = built
    functions = repository.functions()
    requirements.closures(repository, functions, Settings.local().arch, is_frozen=True)

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("a tool was started")

    monkeypatch.setattr(requirements, "run_quietly", refuse)
    monkeypatch.setattr(wheels, "run_quietly", refuse)
    monkeypatch.setattr(bytecode, "compile_trees", refuse)
    written = {path: path.stat().st_mtime_ns for path in repository.dist.iterdir()}
    again = Builder(repository, Settings.local()).build(functions)
    assert not any(artifact.built for artifact in again)
    assert {a.name: a.digest for a in again} == {n: a.digest for n, a in artifacts.items()}
    assert {path: path.stat().st_mtime_ns for path in repository.dist.iterdir()} == written
    assert stale_functions(repository, functions) == []


def test_a_changed_lib_rebuilds_only_functions_that_use_it(copied: Copy, tmp_path: Path) -> None:
    repository = copied(tmp_path)
    functions = repository.select(("connect", "disconnect"))
    builder = Builder(repository, Settings.local())
    builder.build(functions)
    source = repository.root / "libs/tokens/src/jobplane_tokens/__init__.py"
    source.write_text(source.read_text() + "\nCHANGED = True\n")
    assert stale_functions(repository, functions) == ["connect"]
    again = {artifact.name: artifact.built for artifact in builder.build(functions)}
    assert again == {"connect": True, "disconnect": False}
    with zipfile.ZipFile(repository.dist / "connect.zip") as archive:
        assert b"CHANGED = True" in archive.read("jobplane_tokens/__init__.py")


@pytest.mark.parametrize(
    "name",
    [
        "functions/disconnect/disconnect.py",
        "functions/disconnect/skeleton.py",
        "libs/keys/src/jobplane_keys/_ids.py",
    ],
)
def test_a_syntax_error_is_refused_with_its_line(copied: Copy, tmp_path: Path, name: str) -> None:
    repository = copied(tmp_path)
    (function,) = repository.select(("disconnect",))
    Builder(repository, Settings.local()).build([function])
    before = (repository.dist / "disconnect.zip").read_bytes()
    (repository.root / name).write_text("import json\n\ndef handler(:\n")
    with pytest.raises(UnreadableSourceError) as refused:
        Builder(repository, Settings.local()).build([function])
    assert refused.value.message == (
        f"{name}:3: invalid syntax: correct it, or give it another extension "
        "than .py if it is not a module"
    )
    assert (repository.dist / "disconnect.zip").read_bytes() == before


@pytest.mark.parametrize(
    "call",
    [
        'botocore.session.get_session().create_client("sts")',
        'boto3.Session().client(service_name="sts")',
        'lazy_client("sts")',
    ],
)
def test_a_client_of_a_service_left_out_is_refused(copied: Copy, tmp_path: Path, call: str) -> None:
    repository = copied(tmp_path)
    (function,) = repository.select(("disconnect",))
    lines = function.source.read_text().count("\n")
    with function.source.open("a") as source:
        source.write(f"\n\ndef whoami():\n    return {call}\n")
    with pytest.raises(UnbuildableError) as refused:
        Builder(repository, Settings.local()).build([function])
    assert refused.value.message.startswith(
        f"disconnect: disconnect.py:{lines + 4} makes a client of 'sts', which the artifact does "
        "not contain: "
    )
    assert not (repository.dist / "disconnect.zip").exists()
    project = function.directory / "pyproject.toml"
    project.write_text(project.read_text() + '\n[tool.jobplane]\nsdk = ["sts"]\n')
    (function,) = repository.select(("disconnect",))
    assert Builder(repository, Settings.local()).build([function])[0].is_checked


def test_calls_that_create_no_client_need_no_service(copied: Copy, tmp_path: Path) -> None:
    repository = copied(tmp_path)
    (function,) = repository.select(("disconnect",))
    with function.source.open("a") as source:
        source.write('\n\ndef other():\n    return http_client("example"), client(1), client()\n')
    assert Builder(repository, Settings.local()).build([function])[0].is_checked
    with function.source.open("a") as source:
        source.write('\n\ndef another():\n    return client("sts")\n')
    runtime = Settings(Settings.local().arch, "runtime")
    assert Builder(repository, runtime).build([function])[0].is_checked


def test_an_untouched_artifact_has_all_files_and_starts(copied: Copy, tmp_path: Path) -> None:
    """`--no-thin` changes no module and cuts nothing."""
    repository = copied(tmp_path / "copy")
    printed(jobplane(repository, "build", "disconnect", "--no-thin", "--json"))
    artifact = read_manifest(repository)["disconnect"]
    assert not artifact.thin
    found = names(repository, artifact)
    assert {"botocore/data/ec2/2016-11-15/service-2.json.gz", "botocore/session.py"} <= set(found)
    assert not {f"{each}.py" for each in HELPERS}.intersection(found)
    folder = unpack(repository, artifact, tmp_path / "task")
    variables = environment(repository, "disconnect", folder)
    assert bare("import disconnect\nprint(disconnect.handler.__name__)", folder, variables)


def test_a_damaged_artifact_is_built_again(copied: Copy, tmp_path: Path) -> None:
    repository = copied(tmp_path)
    functions = repository.select(("disconnect",))
    (first,) = Builder(repository, Settings.local()).build(functions)
    (repository.dist / "disconnect.zip").write_bytes(b"damaged")
    assert stale_functions(repository, functions) == ["disconnect"]
    (second,) = Builder(repository, Settings.local()).build(functions)
    assert second.built
    assert second.digest == first.digest


def test_a_cached_distribution_is_deleted_after_a_day_without_use(tmp_path: Path) -> None:
    """Links into another cache as well, but not their targets."""
    store = wheels.WheelStore(Repository(tmp_path), "arm64")
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in ("used", "unused", "new"):
        (store.root / name).mkdir(parents=True)
    for name, target in {"link": shared, "dangling": tmp_path / "gone"}.items():
        (store.root / name).symlink_to(target)
    for path in (*store.root.glob("*u*"), store.root / "link", store.root / "dangling"):
        os.utime(path, (0, 0), follow_symlinks=False)

    wheels.prune(store, {store.root / "used"})

    assert {path.name for path in store.root.iterdir()} == {"used", "new"}
    assert shared.is_dir()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_start_compiles_no_methods(built: Built, name: str, tmp_path: Path) -> None:
    """Every dataclass that a function's import makes has its methods in the artifact."""
    repository, artifacts = built
    function = next(f for f in repository.functions() if f.name == name)
    folder = unpack(repository, artifacts[name], tmp_path / "task")
    script = f"""
compiled = []
def hear(event, arguments):
    if event == "exec" and "__create_fn__" in arguments[0].co_names:
        compiled.append((arguments[0].co_filename, arguments[0].co_names))
sys.addaudithook(hear)
import {function.module}
print(json.dumps([file for file, _ in compiled]))
import dataclasses
compiled.clear()
dataclasses.make_dataclass("Made", ["x"])
print(json.dumps([file for file, _ in compiled]))
"""
    # Before them it logs that no SSM answers here.
    *_, at_start, later = bare(script, folder, environment(repository, name, folder)).splitlines()
    assert "<string>" not in at_start
    assert later == '["<string>"]'


def test_a_start_leaves_its_objects_to_themselves(built: Built, tmp_path: Path) -> None:
    """Nothing is collected before a function is loaded; then the collector works, on new ones."""
    repository, artifacts = built
    folder = unpack(repository, artifacts["connect"], tmp_path / "task")
    script = """
import gc
gc.collect()
runs = []
gc.callbacks.append(lambda phase, told: runs.append(phase))
import connect
print(len(runs), gc.isenabled(), gc.get_freeze_count() > 10_000, gc.get_count()[0] < 1_000)
"""
    output = bare(script, folder, environment(repository, "connect", folder))
    runs, *state = output.split()[-4:]
    # Twice at most, before the function's first line: each run is two calls.
    assert int(runs) <= 4
    assert state == ["True", "True", "True"]
