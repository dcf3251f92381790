"""`lambdapack build` with other build backends, files, handlers and shells than the usual ones."""

import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lambdapack import BuildError
from lambdapack.environments import plain_environment, uv_command
from lambdapack.requirements import lib_sources
from lambdapack.thinning.slimming import CUT
from tests.workspace.foreign_workspace import (
    HATCHLING,
    SETUPTOOLS,
    UV_BUILD,
    Foreign,
    names,
    result,
)
from tests.workspace.test_any_workspace import (
    HELLO,
    RETURNS_HELLO,
    flat_module_of_setuptools,
    libs_of_libs,
)

SOURCE = "src/orders/__init__.py"
PROJECT = "services/orders/pyproject.toml"
UNPACKAGED = "[tool.uv]\npackage = false\n"
READS = (
    "from importlib.resources import files\n\n\n"
    "def handler(event, context):\n    return (files('orders') / {!r}).read_text()\n"
)
DYNAMIC = ('version = "1.5"', 'dynamic = ["version"]')
BACKENDS = {
    "pdm": '[build-system]\nrequires = ["pdm-backend"]\nbuild-backend = "pdm.backend"\n',
    "poetry": '[build-system]\nrequires = ["poetry-core>=2"]\n'
    'build-backend = "poetry.core.masonry.api"\n'
    '[tool.poetry]\npackages = [{ include = "orders", from = "src" }]\n',
    "flit": '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n',
    "setuptools": SETUPTOOLS + '[tool.setuptools.package-data]\norders = ["*.json"]\n',
}
OF_GIT = {
    "setuptools": '[build-system]\nrequires = ["setuptools", "setuptools-scm"]\n'
    'build-backend = "setuptools.build_meta"\n[tool.setuptools_scm]\nroot = "../.."\n',
    "hatchling": '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n'
    'build-backend = "hatchling.build"\n[tool.hatch.version]\nsource = "vcs"\n'
    'raw-options = { root = "../.." }\n',
}


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    monkeypatch.setenv("LAMBDAPACK_CACHE_DIR", str(tmp_path / "cache"))
    return Foreign(tmp_path / "größe & space")


def edit(foreign: Foreign, path: str, old: str, new: str) -> None:
    text = (foreign.root / path).read_text(encoding="utf-8")
    assert old in text
    foreign.write({path: text.replace(old, new, 1)})


def answer(foreign: Foreign, module: str = "orders") -> object:
    """What the artifact's handler returns; it is built anew."""
    shutil.rmtree(foreign.root / "dist", ignore_errors=True)
    return result(foreign.zip_of("orders"), module)


def git(foreign: Foreign, *arguments: str) -> None:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    command = ["git", *author, *arguments]
    subprocess.run(command, cwd=foreign.root, check=True, env=plain_environment())


def tag(foreign: Foreign, name: str) -> None:
    """A commit of everything, with a tag."""
    git(foreign, "add", "--all")
    git(foreign, "commit", "--quiet", "--allow-empty", "--message", name)
    git(foreign, "tag", name)


def left_by_the_build(foreign: Foreign) -> set[Path]:
    """New files and folders of the workspace, apart from artifacts."""
    before = set(foreign.root.rglob("*"))
    foreign.zip_of("orders")
    made = set(foreign.root.rglob("*")) - before
    return {path for path in made if not {"dist", ".git"} & {*path.parts}}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_selects_the_files_and_leaves_none(foreign: Foreign, backend: str) -> None:
    foreign.member("libs/words", files={"src/words/__init__.py": HELLO})
    files = {SOURCE: f'"""Orders."""\n{RETURNS_HELLO.format(lib="words")}'}
    foreign.member(
        "services/orders",
        "words",
        files={**files, "src/orders/a.json": "{}", "src/orders/build/__init__.py": ""},
        settings=f'description = "x"\n{BACKENDS[backend]}',
    )
    foreign.lock()
    assert left_by_the_build(foreign) == set()
    shipped = names(foreign.root / "dist/orders.zip")
    assert shipped >= {"orders/a.json", "orders/build/__init__.py"}
    assert answer(foreign) == "hello"


@pytest.mark.parametrize("backend", OF_GIT)
def test_a_version_of_git_is_that_of_the_commit(foreign: Foreign, backend: str) -> None:
    """And what an earlier build of setuptools left beside the sources does not ship."""
    source = "from importlib.metadata import version\n\n\n"
    source += "def handler(event, context):\n    return version('orders')\n"
    stale = {"build/lib/orders/stale.py": "S = 1\n", ".gitignore": "build\n"}
    foreign.member("services/orders", files={SOURCE: source, **stale}, settings=OF_GIT[backend])
    edit(foreign, PROJECT, *DYNAMIC)
    foreign.indexes = ""  # uv asks the backend for the version
    foreign.write({"wheels/none.txt": "", ".gitignore": "dist\n"})
    git(foreign, "init", "--quiet")
    tag(foreign, "v1.0")
    foreign.lock()
    tag(foreign, "v2.0")
    assert left_by_the_build(foreign) == set()
    assert "orders/stale.py" not in names(foreign.root / "dist/orders.zip")
    assert answer(foreign) == "2.0"
    tag(foreign, "v3.0")
    assert answer(foreign) == "3.0"


def test_files_that_the_backend_takes_from_elsewhere_are_in_the_digest(foreign: Foreign) -> None:
    """Those of hatchling's force-include, and those of uv's cache-keys."""
    include = '[tool.hatch.build.targets.wheel.force-include]\n"../../shared" = "orders/shared"\n'
    keys = '[tool.uv]\ncache-keys = [{ file = "../../VERSION" }]\n'
    foreign.write({"shared/x.txt": "one", "VERSION": "1"})
    files = {SOURCE: READS.format("shared/x.txt")}
    package = '[tool.hatch.build.targets.wheel]\npackages = ["src/orders"]\n'
    foreign.member("services/orders", files=files, settings=f"{HATCHLING}{include}{package}{keys}")
    foreign.lock()
    assert answer(foreign) == "one"
    foreign.write({"shared/x.txt": "two"})
    assert answer(foreign) == "two"
    named = lib_sources(foreign.repository, "services/orders")
    assert "VERSION" in {path.name for path in named}


def test_another_release_of_the_backend_does_not_change_the_bytes(foreign: Foreign) -> None:
    """It is chosen when the wheel is built, unless the project pins it."""
    foreign.member("services/orders", files={SOURCE: HELLO}, settings=HATCHLING)
    digests = []
    for version in ("1.26.2", "1.26.3"):
        foreign.lock()
        pinned = f'[tool.uv]\nbuild-constraint-dependencies = ["hatchling=={version}"]\n'
        edit(foreign, "pyproject.toml", "[tool.uv]\n", pinned)
        foreign.update_lock()
        shutil.rmtree(Path(os.environ["LAMBDAPACK_CACHE_DIR"]), ignore_errors=True)
        digests.append(foreign.zip_of("orders").read_bytes())
    assert digests[0] == digests[1]
    assert b"Generator" not in zipfile.ZipFile(foreign.root / "dist/orders.zip").read(
        "orders-1.5.dist-info/WHEEL"
    )


def test_what_does_not_ship_need_not_be_python(foreign: Foreign) -> None:
    """Data of a lib's tests, and templates that no import can name."""
    foreign.member("libs/words", files={
        "src/words/__init__.py": HELLO,
        "src/words/templates/{{name}}.py": "class {{ name }}:\n",
        "tests/data/broken.py": "def:\n",
    })  # fmt: skip
    foreign.member(
        "services/orders",
        "words",
        files={"main.py": RETURNS_HELLO.format(lib="words"), "new-{{name}}.py": "{{ name }} =\n"},
        settings=UNPACKAGED,
    )
    foreign.lock()
    assert answer(foreign, "main") == "hello"
    assert {"words/templates/{{name}}.py", "new-{{name}}.py"} <= names(
        foreign.root / "dist/orders.zip"
    )


def test_a_syntax_error_is_named_where_it_is_written(foreign: Foreign) -> None:
    """In a package outside of the workspace as well."""
    foreign.add("../words", files={"src/words/__init__.py": "return 1\n"})
    outside = (foreign.root / "../words").resolve()
    foreign.member("services/orders", "words", files={SOURCE: RETURNS_HELLO.format(lib="words")})
    foreign.sources["words"] = f'{{ path = "{outside}" }}'
    foreign.lock()
    with pytest.raises(BuildError, match=r"words/src/words/__init__\.py:1: 'return' outside"):
        foreign.zip_of("orders")


def test_a_handler_beside_src_ships_with_src(foreign: Foreign) -> None:
    files = {"app.py": RETURNS_HELLO.format(lib="src.words"), "src/words.py": HELLO}
    foreign.member("services/orders", files=files, settings=UNPACKAGED)
    foreign.lock()
    assert answer(foreign, "app") == "hello"


def test_data_beside_a_function_ships_or_is_named(foreign: Foreign) -> None:
    """In a member without a build backend."""
    shipped = ("prompt.md", "package-types.json", "compose-rules.yaml", "requirements.txt")
    left = ("docs/a.txt", "model.zip")
    beside = ("README.md", "package.json", "compose.dev.yaml", "env/pyvenv.cfg")
    files = dict.fromkeys((*shipped, *left, *beside), "")
    foreign.member("services/orders", files={**files, "app.py": HELLO}, settings=UNPACKAGED)
    foreign.lock()
    done = foreign.command("build", "orders", "--handler", "app.hello")
    assert "orders: docs, model.zip at the top of services/orders will not ship" in done.stderr
    assert names(foreign.root / "dist/orders.zip") >= {"app.py", *shipped}
    assert names(foreign.root / "dist/orders.zip").isdisjoint((*left, *beside))


@pytest.mark.parametrize("named", ["pkg/app.process", "pkg.app.process", "pkg.app"])
def test_a_handler_is_named_in_each_form_of_lambda(foreign: Foreign, named: str) -> None:
    files = {"pkg/app.py": "import json\n\n\ndef process(event, context):\n    return 7\n"}
    foreign.member("services/orders", files=files, settings=UNPACKAGED)
    foreign.lock()
    done = foreign.command("build", "orders", "--handler", named, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["orders"]["handlers"] == ["pkg.app"]


def test_no_default_group_ships(foreign: Foreign) -> None:
    for name in ("wanted", "linter"):
        foreign.wheel(name, {f"{name}.py": HELLO})
    groups = '[dependency-groups]\nlint = ["linter"]\n[tool.uv]\ndefault-groups = ["lint"]\n'
    code = {SOURCE: RETURNS_HELLO.format(lib="wanted")}
    foreign.member("services/orders", "wanted", files=code, settings=UV_BUILD + groups)
    foreign.lock()
    edit(foreign, "pyproject.toml", "[tool.uv]\n", groups)
    foreign.update_lock()
    assert answer(foreign) == "hello"
    assert "linter.pyc" not in names(foreign.root / "dist/orders.zip")


def test_a_pinned_python_need_not_be_installed(foreign: Foreign) -> None:
    """`.python-version` is for development; an artifact is for a runtime of Lambda."""
    libs_of_libs(foreign)
    foreign.lock()
    foreign.write({".python-version": "3.12.77\n"})
    assert answer(foreign) == "hello"


def test_an_old_lock_of_a_member_is_not_the_workspaces(foreign: Foreign) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    own = 'version = 1\n[[package]]\nname = "orders"\nsource = { editable = "." }\n'
    foreign.write({"services/orders/uv.lock": own})
    done = foreign.command("build", cwd=foreign.root / "services/orders")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dist/orders.zip built")


def test_folders_of_tools_do_not_disturb_a_build(foreign: Foreign) -> None:
    """A copy of the sources, which setuptools builds in, has no links of environments."""
    flat_module_of_setuptools(foreign)
    foreign.write({"services/orders/.direnv/flake": ""})
    (foreign.root / "services/orders/.direnv/gone").symlink_to("/nowhere")
    foreign.lock()
    assert answer(foreign) == "hello"


@pytest.mark.parametrize(
    "variable",
    ["SOURCE_DATE_EPOCH=0", "PYTHONOPTIMIZE=2", "PYTHONWARNINGS=error", "UV_PYTHON=3.11",
     "UV_NO_SOURCES=1", "UV_RESOLUTION=lowest", "UV_PROJECT=/", "UV_TARGET=/x", "UV_NO_DEV=1",
     "UV_OVERRIDE=/x", "UV_BUILD_CONSTRAINT=/x", "LC_ALL=C", "HOME=/nowhere", "RUST_LOG=trace",
     "FORCE_COLOR=1"],
)  # fmt: skip
def test_a_shell_does_not_change_the_bytes(
    foreign: Foreign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    flat_module_of_setuptools(foreign)
    foreign.lock()
    expected = foreign.zip_of("orders").read_bytes()
    name, _, value = variable.partition("=")
    monkeypatch.setenv("LAMBDAPACK_CACHE_DIR", str(tmp_path / "fresh"))
    monkeypatch.setenv(name, value)
    done = foreign.command("build", "orders", "--arch", "x86_64")
    assert done.returncode == 0, done.stderr
    assert (foreign.root / "dist/orders.zip").read_bytes() == expected


def test_modules_of_PYTHONPATH_do_not_hide_those_of_the_command(
    foreign: Foreign, tmp_path: Path
) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("click", "yaml", "packaging", "botocore"):
        (hidden / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    command = Path(sys.executable).with_name("lambdapack")
    done = subprocess.run(
        [command, "build", "orders"], cwd=foreign.root, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(hidden)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_uv_beside_the_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that both are installed in, which is not on PATH."""
    (tmp_path / "uv").touch()
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert uv_command() == str(tmp_path / "uv")


def test_a_cache_of_an_interrupted_build_is_made_again(foreign: Foreign) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    expected = answer(foreign)
    (kept,) = Path(os.environ["LAMBDAPACK_CACHE_DIR"]).glob("*/_build/exports--locked.json")
    kept.write_text('{"key": "')
    assert answer(foreign) == expected


def test_a_member_that_is_named_twice_is_built_once(foreign: Foreign) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    done = foreign.command("build", "orders", "services/orders")
    assert (done.returncode, done.stdout.count("orders.zip")) == (0, 1), done.stderr


LINES = [
    "import pydantic.v1",
    "from pydantic import v1 as p",
    "from pydantic import (\n    BaseModel,\n    v1,\n)",
]


@pytest.mark.parametrize("line", LINES)
def test_each_import_of_v1_of_pydantic_keeps_it(line: str) -> None:
    _, naming = CUT["pydantic"]["pydantic/v1"]
    assert naming.search(line.encode())


def test_a_build_backend_of_the_workspace_builds(foreign: Foreign) -> None:
    """As uv's sources name it."""
    backend = "from uv_build import *\n"
    foreign.member("libs/plugin", files={"src/plugin/__init__.py": backend})
    requires = '[build-system]\nrequires = ["uv_build>=0.9,<0.14", "plugin"]\n'
    foreign.member(
        "services/orders",
        files={SOURCE: READS.format("a.txt"), "src/orders/a.txt": "hello"},
        settings=f'{requires}build-backend = "plugin"\n',
    )
    foreign.lock()
    assert answer(foreign) == "hello"


def test_a_file_of_a_package_that_does_not_ship_is_named(
    foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    files = {SOURCE: HELLO, "src/orders/data/.htaccess": "", "src/orders/.env": "SECRET=1"}
    foreign.member("services/orders", files=files)
    foreign.lock()
    with caplog.at_level("INFO", "lambdapack"):
        archive = foreign.zip_of("orders")
    assert "orders: orders/.env, orders/data/.htaccess will not ship" in caplog.text
    assert not any("/." in name for name in names(archive))


def test_a_build_hook_that_writes_among_the_sources_builds(foreign: Foreign) -> None:
    """The digest of the sources is then another one."""
    hook = (
        "from pathlib import Path\n\n"
        "from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n\n\n"
        "class Hook(BuildHookInterface):\n"
        "    def initialize(self, version, build_data):\n"
        "        Path(self.root, 'src/orders/made.txt').write_text('made')\n"
    )
    package = '[tool.hatch.build.targets.wheel]\npackages = ["src/orders"]\n'
    foreign.member(
        "services/orders",
        files={SOURCE: READS.format("made.txt"), "hatch_build.py": hook},
        settings=f"{HATCHLING}{package}[tool.hatch.build.hooks.custom]\n",
    )
    foreign.lock()
    assert answer(foreign) == "made"
    assert answer(foreign) == "made"


def test_bytecode_of_a_distribution_is_not_taken_for_ours(foreign: Foreign) -> None:
    """Such as that of another Python. A module without source ships as it is."""
    code = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile("S = 2", "s", "exec"))
    foreign.wheel("told", {
        "told/__init__.py": HELLO,
        "told/secret.pyc": code,
        "told/__pycache__/__init__.cpython-38.pyc": b"old",
        f"told/__pycache__/__init__.{sys.implementation.cache_tag}.pyc": b"stale",
    })  # fmt: skip
    source = "from told import hello, secret\n\n\n"
    source += "def handler(event, context):\n    return [hello(), secret.S]\n"
    foreign.member("services/orders", "told", files={SOURCE: source})
    foreign.lock()
    assert answer(foreign) == ["hello", 2]


def test_a_template_of_a_module_keeps_its_source(foreign: Foreign) -> None:
    """As those of alembic: its folder is not a package."""
    source = "from importlib.resources import files\n\n\n"
    source += "def hello():\n    return (files('told') / 'templates' / 'env.py').read_text()\n"
    foreign.wheel("told", {"told/__init__.py": source, "told/templates/env.py": "E = 1\n"})
    foreign.member("services/orders", "told", files={SOURCE: RETURNS_HELLO.format(lib="told")})
    foreign.lock()
    assert answer(foreign) == "E = 1\n"
    assert "told/__init__.py" not in names(foreign.root / "dist/orders.zip")


def test_an_import_of_a_dependencys_tests_is_refused_with_the_option_that_keeps_them(
    foreign: Foreign,
) -> None:
    files = dict.fromkeys(("told/__init__.py", "told/tests/test_a.py"), "")
    foreign.wheel("told", {**files, "told/tests/helpers.py": HELLO, "told/tests/__init__.py": ""})
    code = {SOURCE: RETURNS_HELLO.format(lib="told.tests.helpers")}
    foreign.member("services/orders", "told", files=code)
    foreign.lock()
    with pytest.raises(
        BuildError, match="tests of dependencies are left out: build with --no-thin"
    ):
        foreign.zip_of("orders")
    assert result(foreign.zip_of("orders", thin=False), "orders") == "hello"
