"""An artifact has what an installation of its lock has; otherwise the build refuses it."""

import ast
import base64
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from click import ClickException

from lambdapack import wheels
from lambdapack.artifacts import clean
from lambdapack.files import UnshippableError
from lambdapack.requirements import StaleLockError, UnbuildableError
from lambdapack.thinning.slimming import begun_cold, cut, strip
from lambdapack.wheels import builder_digest, code_digest
from tests.loopback import serving
from tests.workspace.small_workspace import Small
from tests.workspace.unpacked import bare, unpack


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path / "small work")


def returned(small: Small, name: str, tmp_path: Path) -> str:
    """A function's result, with only its artifact and the standard library."""
    (artifact,) = small.build(name).values()
    folder = unpack(small.repository, artifact, tmp_path / f"task-{name}")
    module = name.replace("-", "_")
    return bare(f"import {module}\nprint({module}.handler(None, None))", folder, {}).strip()


def test_metadata_and_entry_points_ship(small: Small, tmp_path: Path) -> None:
    small.wheel(
        "told",
        {"told/__init__.py": "from importlib.metadata import version\nV = version('told')\n"},
        version="2.5",
        entry_points="[plugins]\none = told:V\n",
    )
    small.function(
        "one",
        "told",
        imports="from importlib.metadata import entry_points, files\n\nimport told",
        result="told.V, entry_points(group='plugins')['one'].load(), "
        "all(f.locate().is_file() for f in files('told'))",
    )
    small.lock()
    assert returned(small, "one", tmp_path) == "('2.5', '2.5', True)"


def test_an_entry_points_script_ships_without_the_builders_paths(
    small: Small, tmp_path: Path
) -> None:
    small.wheel(
        "greeter",
        {"greeter.py": "def run():\n    print('hello')\n"},
        entry_points="[console_scripts]\ngreet = greeter:run\n",
    )
    small.function("one", "greeter", imports="import greeter")
    small.lock()
    (artifact,) = small.build("one").values()
    script = unpack(small.repository, artifact, tmp_path / "task") / "bin/greet"
    assert script.read_text().startswith("#!/usr/bin/env python3\n")
    done = subprocess.run(["python3", "-I", script], capture_output=True, text=True, cwd="/")
    assert done.stdout == "hello\n"


def test_distributions_with_the_same_paths_are_both_complete(small: Small) -> None:
    for name in ("first", "second"):
        files = {"shared/__init__.py": f"WHO = {name!r}\n", f"shared/{name}.py": ""}
        small.wheel(name, files)
        small.function(name[:3], name, imports="import shared")
    small.lock()
    small.build()
    assert {"shared/__init__.pyc", "shared/first.pyc"} <= small.names("fir")
    assert {"shared/__init__.pyc", "shared/second.pyc"} <= small.names("sec")
    assert "shared/second.pyc" not in small.names("fir")


def test_a_namespace_package_of_distributions_and_a_lib_ships(small: Small, tmp_path: Path) -> None:
    small.wheel("space-a".replace("-", "_"), {"space/a.py": "A = 1\n"})
    small.wheel("space_b", {"space/b.py": "B = 2\n"})
    small.lib(
        "space-c",
        {"src/space/c/__init__.py": "C = 3\n"},
        settings='[tool.uv.build-backend]\nmodule-name = "space.c"\n',
    )
    small.function(
        "one",
        "space-a",
        "space-b",
        "space-c",
        imports="from space.a import A\nfrom space.b import B\nfrom space.c import C",
        result="A + B + C",
    )
    small.lock()
    assert returned(small, "one", tmp_path) == "6"


def test_members_with_conflicting_dependencies_each_get_their_version(small: Small) -> None:
    for version in ("1.0", "2.0"):
        small.wheel("twice", {"twice.py": f"V = {version!r}\n"}, version=version)
    small.function("one", "twice==1.0", imports="import twice")
    small.function("two", "twice==2.0", imports="import twice")
    small.settings = 'conflicts = [[{ package = "jobplane-one" }, { package = "jobplane-two" }]]'
    small.lock()
    built = small.build()
    assert built["one"].dependencies == {"twice": "1.0"}
    assert built["two"].dependencies == {"twice": "2.0"}


def test_markers_are_evaluated_for_the_target_platform(small: Small) -> None:
    for name in ("posix", "windows", "intel", "tester"):
        small.wheel(name, {f"{name}_only.py": ""})
    small.lib("marked", {"src/marked/__init__.py": ""})
    small.function(
        "one",
        "posix; sys_platform == 'linux'",
        "windows; sys_platform == 'win32'",
        "intel; platform_machine == 'x86_64'",
        "marked; python_version >= '3.13'",
        settings='[dependency-groups]\ndev = ["tester"]\n',
    )
    small.lock()
    assert list(small.build(arch="arm64")["one"].dependencies) == ["marked", "posix"]
    assert list(small.build()["one"].dependencies) == ["intel", "marked", "posix"]


def test_an_extra_of_a_lib_ships_only_to_functions_that_name_it(small: Small) -> None:
    small.wheel("fast", {"fast.py": ""})
    lib = small.lib("many", {"src/many/__init__.py": ""})
    project = lib / "pyproject.toml"
    extra = '[project.optional-dependencies]\nquick = ["fast"]\n\n[build-system]'
    project.write_text(project.read_text().replace("[build-system]", extra))
    small.function("with-it", "many[quick]", imports="import many")
    small.function("without", "many", imports="import many")
    small.lock()
    built = small.build()
    assert "fast" in built["with-it"].dependencies
    assert "fast" not in built["without"].dependencies


def test_a_git_source_ships_the_locked_commit(small: Small, tmp_path: Path) -> None:
    folder = small.lib("fetched", {"src/fetched/__init__.py": "V = 7\n"}, at="../fetched")
    del small.sources["fetched"]
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(folder)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    small.function(
        "one", f"fetched @ git+{folder.resolve().as_uri()}", imports="import fetched",
        result="fetched.V",
    )  # fmt: skip
    small.lock()
    assert returned(small, "one", tmp_path) == "7"


def test_a_lib_ships_all_of_its_files(small: Small) -> None:
    lib = small.lib(
        "dyn",
        {
            "src/dyn/__init__.py": "",
            "src/dyn/test/__init__.py": "T = 1\n",
            "src/dyn/data/events/a.h": "x",
            "src/dyn/data/a.pyi": "x",
            "src/dyn/py.typed": "",
            "src/dyn/data/run": "#!/bin/sh\n",
        },
    )
    (lib / "src/dyn/data/run").chmod(0o755)
    folder = small.function("one", "dyn", imports="import dyn.test")
    (folder / "data/events/tests").mkdir(parents=True)
    (folder / "data/events/tests/a.json").write_text("1")
    small.lock()
    small.build()
    names = small.names("one")
    assert {"dyn/data/events/a.h", "dyn/data/a.pyi", "dyn/py.typed", "dyn/test/__init__.py"} < names
    assert "data/events/tests/a.json" in names


@pytest.mark.parametrize("name", [".env", ".DS_Store", ".one.py.swp", "one.py~", "data/#a#"])
def test_secrets_and_editor_files_are_left_out_of_zip_and_digest(small: Small, name: str) -> None:
    folder = small.function("one")
    lib = small.lib("dyn", {"src/dyn/__init__.py": ""})
    small.lock()
    before = small.build("one")["one"]
    for path in (folder / name, lib / "src/dyn" / name):
        path.parent.mkdir(exist_ok=True)
        path.write_text("hunter2")
    after = small.build("one")["one"]
    assert not after.built
    assert after.digest == before.digest
    assert name not in small.names("one")


@pytest.mark.parametrize("path", ["flat/__init__.py", "flat/deep/er/data.txt", "flat/data.txt"])
def test_any_file_of_a_lib_changes_the_digest(small: Small, path: str) -> None:
    files = dict.fromkeys(["flat/__init__.py", "flat/data.txt", "flat/deep/er/data.txt"], "")
    backend = '[tool.uv.build-backend]\nmodule-root = ""\n'
    lib = small.lib("flat", files, settings=backend)
    small.function("one", "flat", imports="import flat")
    small.lock()
    small.build()
    (lib / path).write_text("# changed\n")
    assert small.build()["one"].built
    assert small.read("one", path) == b"# changed\n"


def test_an_outdated_lock_is_refused_with_the_command_to_run(small: Small) -> None:
    folder = small.function("one")
    small.wheel("later", {"later.py": ""})
    small.lock()
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("[]", '["later"]'))
    with pytest.raises(StaleLockError, match="older than the pyproject.toml files: run `uv lock`"):
        small.build()


def test_a_wheel_for_another_machine_is_refused(small: Small) -> None:
    small.wheel("native", {"native.py": ""}, tag="cp313-cp313-manylinux_2_17_x86_64")
    small.function("one", "native", imports="import native")
    small.function("two")
    small.lock()
    assert small.build("one")["one"].dependencies == {"native": "1.0"}
    with pytest.raises(UnbuildableError, match=r"jobplane-one: .*arm64.*native.*Depend on"):
        small.build("one", arch="arm64")
    assert small.build("two", arch="arm64")["two"].arch == "arm64"


def test_compiled_code_for_another_machine_is_refused(small: Small) -> None:
    elf = b"\x7fELF" + bytes(14) + (62).to_bytes(2, "little") + bytes(8)
    small.wheel("liar", {"liar/__init__.py": "", "liar/x.so": elf})
    small.function("one", "liar", imports="import liar")
    small.lock()
    with pytest.raises(UnbuildableError, match=r"liar/x\.so of liar is for another"):
        small.build(arch="arm64")


@pytest.mark.parametrize(
    "variable",
    ["UV_COMPILE_BYTECODE", "UV_OFFLINE", "UV_REQUIRE_HASHES", "UV_FROZEN", "UV_NO_BINARY",
     "UV_NO_BUILD", "UV_EXCLUDE_NEWER", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_CONFIG_FILE",
     "VIRTUAL_ENV", "PYTHONPATH", "PIP_TARGET", "PIP_INDEX_URL"],
)  # fmt: skip
def test_variables_of_uv_pip_and_python_do_not_change_the_artifact(
    small: Small, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    small.wheel("plain", {"plain.py": ""})
    small.lib("dyn", {"src/dyn/__init__.py": ""})
    small.function("one", "plain", "dyn", imports="import dyn, plain")
    small.lock()
    value = "2020-01-01" if variable == "UV_EXCLUDE_NEWER" else "1"
    monkeypatch.setenv(variable, value)
    assert small.build()["one"].dependencies == {"dyn": "workspace", "plain": "1.0"}
    assert "plain.pyc" in small.names("one")


def test_PYTHONPYCACHEPREFIX_does_not_change_the_artifact(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small.wheel("plain", {"plain.py": "X = 1\n"})
    small.function("one", "plain", imports="import plain")
    small.lock()
    before = small.build()["one"].digest
    clean(small.repository)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "elsewhere"))
    assert small.build()["one"].digest == before


def test_the_users_uv_toml_is_ignored(
    small: Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small.wheel("plain", {"plain.py": ""})
    small.function("one", "plain", imports="import plain")
    small.lock()
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv.toml").write_text('no-index = false\nexclude-newer = "2020-01-01"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert small.build()["one"].dependencies == {"plain": "1.0"}


@pytest.mark.parametrize("explicit", [False, True])
def test_a_private_index_gets_the_password_of_its_variables(
    small: Small, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    """UV_INDEX_NAME_USERNAME and _PASSWORD."""
    small.wheel("plain", {"plain.py": ""})
    small.lib("dyn", {"src/dyn/__init__.py": ""})
    small.function("one", "plain", "dyn", imports="import dyn, plain")
    with serving(_index_of(small.root / "wheels")) as port:
        kind = "explicit" if explicit else "default"
        small.indexes = ""
        small.settings = (
            f'[[tool.uv.index]]\nname = "corp"\nurl = "http://127.0.0.1:{port}/simple"\n'
            f"{kind} = true\n"
        )
        if explicit:
            small.sources["plain"] = '{ index = "corp" }'
        monkeypatch.setenv("UV_INDEX_CORP_USERNAME", "joe")
        monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", "secret")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        small.lock()
        assert small.build()["one"].dependencies == {"dyn": "workspace", "plain": "1.0"}


def _index_of(wheels: Path) -> type[BaseHTTPRequestHandler]:
    """A package index that requires a password."""
    password = f"Basic {base64.b64encode(b'joe:secret').decode()}"

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *_, folder, name = self.path.rstrip("/").split("/")
            files = sorted(wheels.glob(f"{name}-*")) if folder == "simple" else []
            page = "".join(f'<a href="/files/{file.name}">{file.name}</a>' for file in files)
            file = wheels / name
            body = file.read_bytes() if folder == "files" and file.is_file() else page.encode()
            if self.headers["Authorization"] != password:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                body = b""
            else:
                self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html" if page else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Index


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ({"data/again": ".."}, "data/again: this link points to a folder that contains it"),
        ({"a/b": "../c", "c/d": "../a"}, "this link points to a folder that contains it"),
        ({"data/gone": "nowhere"}, "data/gone: this link points to nowhere, which does not exist"),
        ({"data/self": "self"}, "data/self: this link points to self, which does not exist"),
    ],
)
@pytest.mark.parametrize("place", ["functions/one", "libs/tools/src/tools", "shared"])
def test_a_dangling_or_cyclic_link_is_refused(
    small: Small, place: str, links: dict[str, str], said: str
) -> None:
    (small.root / "shared").mkdir()
    small.function(
        "one", "tools", imports="import tools", settings='[tool.jobplane]\ndata = ["shared"]'
    )
    small.lib("tools", {"src/tools/__init__.py": ""})
    for name, target in links.items():
        link = small.root / place / name
        link.parent.mkdir(parents=True)
        link.symlink_to(target)
    small.lock()
    with pytest.raises(UnshippableError, match=said):
        small.build()


def test_links_to_existing_files_and_folders_are_followed(small: Small) -> None:
    folder = small.function("one")
    (folder / "data").mkdir()
    (folder / "data" / "words.txt").write_text("a")
    (folder / "again").symlink_to("data")
    (folder / "third.txt").symlink_to("data/words.txt")
    small.lock()
    small.build()
    assert {"data/words.txt", "again/words.txt", "third.txt"} <= small.names("one")


def test_a_named_pipe_is_refused(small: Small) -> None:
    folder = small.function("one")
    os.mkfifo(folder / "pipe")
    small.lock()
    with pytest.raises(UnshippableError, match="one/pipe: this is neither a file nor a folder"):
        small.build()


def test_an_import_of_a_missing_module_is_refused(small: Small) -> None:
    folder = small.function("one", imports="import json", result="__import__('json')")
    source = folder / "one.py"
    source.write_text("def handler(event, context):\n    import yaml\n    return yaml\n")
    small.lock()
    with pytest.raises(UnbuildableError, match=r"one: one imports yaml, .*functions/one/pyproject"):
        small.build()
    assert not (small.repository.dist / "one.zip").exists()
    project = folder / "pyproject.toml"
    project.write_text(project.read_text() + '[tool.jobplane]\nmissing-imports = ["yaml"]\n')
    assert small.build()["one"].built


def test_an_undeclared_import_of_a_dependency_is_refused(small: Small) -> None:
    """Unless the import is in a try block."""
    code = (
        "try:\n    import ujson\nexcept ImportError:\n    ujson = None\nif not ujson:\n    pass\n"
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import orjson\n"
    )
    small.wheel("trying", {"trying.py": code})
    small.wheel("needing", {"needing/__init__.py": "from .inner import X\n",
                            "needing/inner.py": "import absent.part\nX = 1\n"})  # fmt: skip
    small.function("one", "trying", imports="import trying")
    small.function("two", "needing", imports="import needing")
    small.lock()
    assert small.build("one")["one"].is_checked
    with pytest.raises(UnbuildableError, match=r"two: needing\.inner of needing imports absent"):
        small.build("two")


@pytest.mark.parametrize("name", ["cold_start", "json", "cold_start_methods"])
def test_a_function_named_like_a_needed_module_is_refused(small: Small, name: str) -> None:
    folder = small.function("one")
    (folder / f"{name}.py").write_text("")
    small.lock()
    with pytest.raises(UnbuildableError, match=f"has a module '{name}'.*rename it"):
        small.build()


def test_a_function_named_like_its_dependency_is_refused(small: Small) -> None:
    """The package would hide the function."""
    small.wheel("status", {"status/__init__.py": ""})
    small.function("status", "status")
    small.lock()
    with pytest.raises(UnbuildableError, match="has a module 'status'"):
        small.build()


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbfimport json\nN = 'caf\xc3\xa9'\n",
        b"# -*- coding: latin-1 -*-\nimport json\nN = 'caf\xe9'\n",
        b'"""D."""\r\nfrom __future__ import annotations\r\nimport json\r\nN = "caf\xc3\xa9"\r\n',
    ],
)
def test_a_source_of_any_encoding_and_line_ends_runs(source: bytes) -> None:
    tree = ast.parse(begun_cold(source))
    assert "begin()" in ast.unparse(tree)
    assert "café" in ast.unparse(tree)


def test_an_imported_part_of_pydantic_is_not_cut() -> None:
    """pydantic.v1 ships if a dependency or the function imports it."""
    v1 = {"pydantic/v1/__init__.py": b"whole", "pydantic/mypy.py": b"whole"}
    plain: dict[str, dict[str, Path | bytes]] = {"pydantic": dict(v1), "one": {"one.py": b""}}
    stubs = cut(plain)
    assert set(stubs) == set(v1)
    naming: dict[str, dict[str, Path | bytes]] = {
        "pydantic": dict(v1),
        "one": {"one.py": b"from pydantic.v1 import BaseModel"},
    }
    assert set(cut(naming)) == {"pydantic/mypy.py"}
    assert naming["pydantic"]["pydantic/v1/__init__.py"] == b"whole"


@pytest.mark.parametrize(("source", "kept"), [("", False), ("from .tests import data\n", True)])
def test_a_folder_of_tests_ships_only_if_imported(tmp_path: Path, source: str, kept: bool) -> None:
    for name in ("p/tests/test_a.py", "p/tests/data.py", "q/tests/data.py", "p/__init__.pyi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "p/__init__.py").write_text(source)
    strip(tmp_path)
    assert (tmp_path / "p/tests/data.py").exists() == kept
    assert (tmp_path / "q/tests/data.py").exists()
    assert not (tmp_path / "p/__init__.pyi").exists()


def test_any_change_of_the_builders_code_changes_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "lambdapack"
    shutil.copytree(Path(wheels.__file__).parent, folder)
    assert code_digest(folder) == builder_digest()
    modules = [path for path in folder.rglob("*.py") if path.name != "__init__.py"]
    assert {path.parent for path in modules} > {folder}
    digests = [builder_digest()]
    for path in modules:
        path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
        digests.append(code_digest(folder))
        path.rename(path.with_name(f"{path.stem}_moved.py"))
        digests.append(code_digest(folder))
    (folder / "thinning" / "deeper").mkdir()
    (folder / "thinning" / "deeper" / "new.py").touch()
    digests.append(code_digest(folder))
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('[tool.jobplane]\nsdk = ["bedrock-runtim"]\n', "did you mean bedrock-runtime"),
        ('[tool.jobplane]\nsdk = "all"\n', 'must be "whole", or a list'),
    ],
)
def test_a_malformed_sdk_setting_is_refused(small: Small, settings: str, message: str) -> None:
    small.function("one", settings=settings)
    small.lock()
    with pytest.raises(ClickException, match=message):
        small.build()
