"""`lambdapack build` in workspaces of others: layouts that open issues of other tools describe."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import lambdapack
from jobplane.stage.framework import FRAMEWORK, install_framework
from jobplane.tree.repository import Repository
from lambdapack import BuildError, Project, Statements
from lambdapack.environments import plain_environment, uv_command
from lambdapack.project import PYTHONS
from lambdapack.requirements import PYTHON
from tests.workspace import hundred
from tests.workspace.copies import command_environment, program, succeeded
from tests.workspace.foreign_workspace import (
    HATCHLING,
    SETUPTOOLS,
    SOURCES,
    UV_BUILD,
    Foreign,
    names,
    result,
)
from tests.workspace.templates import complaints_about, of_type
from tests.workspace.unpacked import bare

RETURNS_HELLO = "from {lib} import hello\n\n\ndef handler(event, context):\n    return hello()\n"
HELLO = "def hello():\n    return 'hello'\n"
SAM = "aws-sam-cli==1.170.0"
NO_TELEMETRY = {"SAM_CLI_TELEMETRY": "0", "CDK_DISABLE_VERSION_CHECK": "1"}
EXAMPLES = Path(lambdapack.__file__).parents[2] / "examples"
OTHER = "3.12" if PYTHON == "3.13" else "3.13"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    monkeypatch.setenv("LAMBDAPACK_CACHE_DIR", str(tmp_path / "cache"))
    return Foreign(tmp_path / "größe & space")


def libs_of_libs(foreign: Foreign) -> None:
    """`orders` needs `greeting`, which needs `words`."""
    foreign.member("libs/words", files={"src/words/__init__.py": HELLO})
    foreign.member(
        "libs/greeting",
        "words",
        files={"src/greeting/__init__.py": "from words import hello as hello\n"},
    )
    foreign.member(
        "services/orders",
        "greeting",
        files={"src/orders/__init__.py": RETURNS_HELLO.format(lib="greeting")},
    )


def package_with_metadata_and_data(foreign: Foreign) -> None:
    foreign.wheel(
        "told", {"told/__init__.py": "T = 1\n", "told/tests/a.txt": "data\n"},
        entry_points="[plugins]\none = told:T\n",
    )  # fmt: skip
    source = (
        "from importlib.metadata import entry_points, version\n"
        "from importlib.resources import files\n\n\n"
        "def handler(event, context):\n"
        "    plugins = [each.name for each in entry_points(group='plugins')]\n"
        "    text = (files('orders') / 'mails' / 'tests' / 'a.html').read_text()\n"
        "    return [version('orders'), version('told'), plugins, text]\n"
    )
    foreign.member(
        "services/orders",
        "told",
        files={"src/orders/__init__.py": source, "src/orders/mails/tests/a.html": "<p>"},
    )


def groups_and_extras(foreign: Foreign) -> None:
    for name in ("wanted", "tester"):
        foreign.wheel(name, {f"{name}.py": HELLO})
    extra = '[project.optional-dependencies]\nmore = ["wanted"]\n'
    foreign.member(
        "libs/words", files={"src/words/__init__.py": ""}, settings=f"{extra}\n{UV_BUILD}"
    )
    foreign.member(
        "services/orders",
        "words[more]",
        files={"src/orders/__init__.py": RETURNS_HELLO.format(lib="wanted")},
        settings=f'{UV_BUILD}\n[dependency-groups]\ndev = ["tester"]\n',
    )


def flat_module_of_setuptools(foreign: Foreign) -> None:
    foreign.wheel("wanted", {"wanted.py": HELLO})
    foreign.member(
        "services/orders",
        "wanted",
        files={"orders.py": RETURNS_HELLO.format(lib="wanted")},
        settings=SETUPTOOLS,
    )


def nested_packages_of_hatchling(foreign: Foreign) -> None:
    foreign.member(
        "functions",
        files={
            "src/functions/orders/api.py": "from functions.words import hello\n\n\n"
            "def handler(event, context):\n    return hello()\n",
            "src/functions/orders/__init__.py": "",
            "src/functions/__init__.py": "",
            "src/functions/words.py": HELLO,
        },
        settings=f'{HATCHLING}\n[tool.hatch.build.targets.wheel]\npackages = ["src/functions"]\n',
    )


def handlers_beside_and_below_src(foreign: Foreign) -> None:
    """One beside pyproject.toml, another in the package that `src` itself is."""
    foreign.member(
        "packages/functions",
        files={
            "health.py": RETURNS_HELLO.format(lib="src.utils"),
            "src/__init__.py": "",
            "src/api/__init__.py": "",
            "src/api/health.py": RETURNS_HELLO.format(lib="src.utils"),
            "src/utils/__init__.py": HELLO,
        },
        settings="[tool.uv]\npackage = false\n",
    )


def path_beside_the_workspace(foreign: Foreign) -> None:
    outside = os.path.relpath(foreign.root.parent / "words", foreign.root)
    foreign.add(outside, files={"src/words/__init__.py": HELLO})
    foreign.member(
        "services/orders",
        "words",
        files={"src/orders/__init__.py": RETURNS_HELLO.format(lib="words")},
    )
    foreign.sources["words"] = f'{{ path = "{outside}" }}'


def one_of_two_functions(foreign: Foreign) -> None:
    """Each artifact has its own dependencies only."""
    foreign.wheel("wanted", {"wanted.py": HELLO})
    foreign.wheel("heavy", {"heavy.py": ""})
    foreign.member("services/other", "heavy", files={"src/other/__init__.py": "import heavy\n"})
    foreign.member(
        "services/orders",
        "wanted",
        files={"src/orders/__init__.py": RETURNS_HELLO.format(lib="wanted")},
    )


def project_without_a_workspace(foreign: Foreign) -> None:
    """And without a build backend: its modules lie beside its pyproject.toml."""
    foreign.wheel("wanted", {"wanted.py": HELLO})
    foreign.dependencies.append("wanted")
    foreign.write(
        {
            "main.py": RETURNS_HELLO.format(lib="wanted"),
            "data/x.json": "{}",
            ".env": "SECRET=1",
            "tests/test_main.py": "import pytest\n",
            "terraform.tfstate": "{}",
        }
    )


def namespace_package(foreign: Foreign) -> None:
    for part in ("a", "b"):
        foreign.member(
            f"libs/space-{part}",
            files={f"src/space/{part}/__init__.py": f"P = {part!r}\n"},
            settings=f'{UV_BUILD}\n[tool.uv.build-backend]\nmodule-name = "space.{part}"\n',
        )
    source = "from space.a import P as A\nfrom space.b import P as B\n\n\n"
    source += "def handler(event, context):\n    return A + B\n"
    foreign.member(
        "services/orders", "space-a", "space-b", files={"src/orders/__init__.py": source}
    )


def function_without_a_build_backend(foreign: Foreign) -> None:
    """With `src`, CRLF and a BOM."""
    foreign.member("libs/words", files={"src/words/__init__.py": HELLO})
    source = RETURNS_HELLO.format(lib="words").replace("\n", "\r\n")
    foreign.member(
        "services/orders",
        "words",
        files={"src/orders.py": f"\ufeff{source}", "notes.txt": ""},
        settings="",
    )


type Layout = Callable[[Foreign], None]
# By the issue that it is made from, and the member, its handler's module, what is not in its zip.
LAYOUTS: dict[str, tuple[Layout, str, str, object, tuple[str, ...]]] = {
    "uv 9350": (package_with_metadata_and_data, "orders", "orders",
                ["1.5", "1.0", ["one"], "<p>"], ()),
    "uv 12795": (groups_and_extras, "orders", "orders", "hello", ("tester",)),
    "uv 14963": (libs_of_libs, "orders", "orders", "hello", ()),
    "lambda-builders 892": (libs_of_libs, "services/orders", "orders", "hello", ()),
    "sst 5821": (flat_module_of_setuptools, "orders", "orders", "hello", ()),
    "sst 6216": (handlers_beside_and_below_src, "functions", "src.api.health", "hello", ()),
    "sst 6216, beside": (handlers_beside_and_below_src, "functions", "health", "hello", ()),
    "nested": (nested_packages_of_hatchling, "functions", "functions.orders.api", "hello", ()),
    "sst 6964": (path_beside_the_workspace, "orders", "orders", "hello", ()),
    "requirements 183": (one_of_two_functions, "orders", "orders", "hello", ("heavy", "other")),
    "requirements 849": (project_without_a_workspace, "top", "main", "hello",
                         (".env", "tests", "terraform.tfstate", "pyproject.toml")),
    "una 8": (libs_of_libs, "orders", "orders", "hello", ()),
    "namespaces": (namespace_package, "orders", "orders", "ab", ()),
    "no backend": (function_without_a_build_backend, "orders", "orders", "hello", ("notes.txt",)),
}  # fmt: skip


@pytest.mark.parametrize("issue", LAYOUTS)
def test_a_layout_of_an_open_issue_builds_and_runs(foreign: Foreign, issue: str) -> None:
    """And the build leaves the workspace as it was."""
    layout, name, module, expected, absent = LAYOUTS[issue]
    layout(foreign)
    foreign.lock()
    before = set(foreign.root.rglob("*"))
    archive = foreign.zip_of(name)
    made = {path for path in foreign.root.rglob("*") if "dist" not in path.parts} - before
    assert made == set()
    assert result(archive, module) == expected
    tops = {path.partition("/")[0].partition(".py")[0] for path in names(archive)}
    assert tops.isdisjoint(absent)


def test_bytecode_is_valid_whatever_the_files_dates_are(foreign: Foreign) -> None:
    """lambda-builders 925: a dependency without bytecode is compiled at every start."""
    libs_of_libs(foreign)
    foreign.wheel("wanted", {"wanted.py": HELLO})
    foreign.members.clear()
    foreign.member(
        "services/x", "wanted", files={"src/x/__init__.py": "from wanted import hello\n"}
    )
    foreign.lock()
    archive = foreign.zip_of("x", thin=False)
    folder = archive.with_suffix("")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    for path in folder.rglob("*.py"):
        os.utime(path, (10**9, 10**9))
        path.write_text("raise SystemExit('compiled again')\n")
    assert bare("import x\nprint(x.hello())", folder, {}) == "hello\n"


def test_members_share_what_they_have_in_common(foreign: Foreign, tmp_path: Path) -> None:
    """requirements 789: a dependency of several functions is installed once."""
    foreign.wheel("wanted", {"wanted.py": HELLO})
    for name in ("one", "two"):
        source = RETURNS_HELLO.format(lib="wanted")
        foreign.member(f"services/{name}", "wanted", files={f"src/{name}/__init__.py": source})
    foreign.lock()
    done = foreign.command("build", "one", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["dependencies"]["wanted"] for each in json.loads(done.stdout).values()] == 2 * [
        "1.0"
    ]
    assert len(list((tmp_path / "cache").glob("*/_build/wheels/*/wanted-*"))) == 1
    again = foreign.command("build", "one", "two")
    assert again.stdout.count("unchanged") == 2


def test_the_same_bytes_come_twice_and_from_another_folder(
    foreign: Foreign, tmp_path: Path
) -> None:
    """Under another user's variables, through a link, and without a cache."""
    libs_of_libs(foreign)
    foreign.lock()
    for thin in (True, False):
        option = () if thin else ("--no-thin",)
        first = foreign.zip_of("orders", thin=thin).read_bytes()
        other = tmp_path / f"other-{thin}"
        shutil.copytree(foreign.root, other, ignore=shutil.ignore_patterns("dist"))
        link = tmp_path / f"link-{thin}"
        link.symlink_to(other)
        done = foreign.command(
            "build", "orders", "--arch", "x86_64", "--out", str(tmp_path / "out"), *option,
            cwd=link, LAMBDAPACK_CACHE_DIR=str(tmp_path / f"fresh-{thin}"),
            VIRTUAL_ENV="/nowhere", PYTHONHASHSEED="7", UV_COMPILE_BYTECODE="1", UV_FROZEN="1",
            UV_REQUIRE_HASHES="1", NODE_ENV="production", AWS_PROFILE="gone", TZ="Asia/Tokyo",
            SOURCE_DATE_EPOCH="1700000000", PYTHONPYCACHEPREFIX=str(tmp_path / "pycache"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "orders.zip").read_bytes() == first


CLOCK = """
import datetime, time
for name, value in {
    "time": 2e9, "time_ns": 2 * 10**18, "gmtime": time.gmtime(2e9), "localtime": time.gmtime(2e9)
}.items():
    setattr(time, name, lambda *_, value=value: value)
"""


def test_the_same_bytes_come_on_another_day(foreign: Foreign, tmp_path: Path) -> None:
    """Files have other dates, and so have the wheels that a backend writes, by its clock."""
    flat_module_of_setuptools(foreign)
    foreign.lock()
    first = foreign.zip_of("orders").read_bytes()
    for path in foreign.root.rglob("*"):
        os.utime(path, (10**9, 10**9))
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    program = "import runpy, sitecustomize; runpy.run_module('lambdapack', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program, "build", "orders", "--arch", "x86_64"],
        cwd=foreign.root,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "clock"), str(SOURCES)]),
            "LAMBDAPACK_CACHE_DIR": str(tmp_path / "fresh"),
            "SOURCE_DATE_EPOCH": "1700000000",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "orders.zip built" in done.stdout
    assert (foreign.root / "dist" / "orders.zip").read_bytes() == first


MACHINES = {"py3-none-any": "x86_64", "linux_x86_64": "x86_64", "linux_aarch64": "arm64"}


@pytest.mark.parametrize("tag", MACHINES)
def test_a_dependency_without_a_wheel_ships_as_one_that_is_built_by_hand(
    foreign: Foreign, tag: str
) -> None:
    """If its sources are Python alone, they need none."""
    version = f"cp{PYTHON.replace('.', '')}"
    whole = tag if tag.startswith("py3") else f"{version}-{version}-{tag}"
    sources = foreign.sdist("wanted", HELLO, tag=whole)
    code = {"src/orders/__init__.py": RETURNS_HELLO.format(lib="wanted")}
    foreign.member("services/orders", "wanted", files=code)
    foreign.lock()
    if tag != whole:
        with pytest.raises(BuildError, match="or build one by `uv build --wheel`"):
            foreign.zip_of("orders", arch=MACHINES[tag])
        by_hand = ("build", "--wheel", "--quiet", "--out-dir", "vendor", sources)
        run(uv_command(), *by_hand, cwd=foreign.root)
        foreign.sources["wanted"] = f'{{ path = "vendor/wanted-1.0-{whole}.whl" }}'
        foreign.lock()
    assert result(foreign.zip_of("orders", arch=MACHINES[tag]), "orders") == "hello"


def test_a_workspace_that_nobody_may_write_to_builds(foreign: Foreign, tmp_path: Path) -> None:
    """With a backend that writes beside the sources."""
    flat_module_of_setuptools(foreign)
    foreign.lock()
    for path in [foreign.root, *foreign.root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        done = foreign.command("build", "orders", "--out", str(tmp_path / "out"))
    finally:
        for path in [foreign.root, *foreign.root.rglob("*")]:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "out" / "orders.zip", "orders") == "hello"


def test_caches_and_artifacts_within_the_member_are_not_its_sources(foreign: Foreign) -> None:
    foreign.add("top", files={"src/top/__init__.py": HELLO})
    run(uv_command(), "lock", "--quiet", cwd=foreign.root / "top")
    for state in ("built", "unchanged"):
        done = foreign.command(
            "build", "--out", ".", cwd=foreign.root / "top", LAMBDAPACK_CACHE_DIR="cache"
        )
        assert done.returncode == 0, done.stderr
        assert f"top.zip {state}" in done.stdout


def test_the_members_folder_says_which_one_is_meant(foreign: Foreign) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    done = foreign.command("build", cwd=foreign.root / "services/orders")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dist/orders.zip built")


def test_another_python_compiles_for_itself(foreign: Foreign) -> None:
    """If it is installed; else the error says how to install it."""
    libs_of_libs(foreign)
    foreign.lock()
    others = [str(each) for each in (Path.home() / ".pyenv/versions").glob(f"{OTHER}.*/bin")]
    path = os.pathsep.join([*others, os.environ["PATH"]])
    done = foreign.command("build", "orders", "--python", OTHER, PATH=path)
    if done.returncode:
        assert f"run `uv python install {OTHER}`" in done.stderr
        return
    archive = foreign.root / "dist" / "orders.zip"
    tag = f"cpython-{OTHER.replace('.', '')}"
    assert f"orders/__pycache__/__init__.{tag}.pyc" in names(archive)
    other = shutil.which(f"python{OTHER}", path=path)
    assert other
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(archive.with_suffix(""))
    script = "import sys; sys.path[:0] = sys.argv[1:]; import orders; print(orders.handler(0, 0))"
    assert run(other, "-I", "-S", "-c", script, archive.with_suffix(""), cwd="/") == "hello\n"


def test_the_newest_allowed_python_is_the_default(foreign: Foreign) -> None:
    libs_of_libs(foreign)
    foreign.lock()
    assert Project.at(foreign.root).default_python() == max(PYTHONS)
    lock = foreign.root / "uv.lock"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text.replace('">=3.12"', '">=3.12, <3.13"', 1), encoding="utf-8")
    assert Project.at(foreign.root).default_python() == "3.12"
    lock.write_text(text.replace('">=3.12"', '">=3.99"', 1), encoding="utf-8")
    with pytest.raises(BuildError, match="widen requires-python"):
        Project.at(foreign.root).default_python()


def test_another_version_of_a_library_ships_unpatched_and_whole(
    foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    """Its other changes are made."""
    foreign.wheel("botocore", {
        "botocore/__init__.py": "V = 1\n",
        "botocore/utils.py": "import decimal\n\n\ndef half():\n    return decimal.Decimal(1) / 2\n",
        "botocore/data/s3/2006-03-01/service-2.json": "{}",
    })  # fmt: skip
    foreign.wheel("pydantic", {"pydantic/__init__.py": "W = 2\n"})
    code = "import pydantic\nfrom botocore import V, utils\n\n\ndef handler(event, context):\n"
    code += "    return [V, pydantic.W, 'decimal' in vars(utils), str(utils.half())]\n"
    files = {"src/orders/__init__.py": code}
    foreign.member("services/orders", "botocore", "pydantic", files=files)
    foreign.lock()
    allowed = Statements.of_actions(["s3:GetObject"])
    with caplog.at_level("INFO", "lambdapack"):
        archive = foreign.zip_of("orders", allowed=allowed)
    assert result(archive, "orders") == [1, 2, False, "0.5"]
    assert "botocore/utils.py has 0 times what" in caplog.text
    assert "orders: this version of botocore ships whole: it has no data" in caplog.text
    assert "botocore/data/s3/2006-03-01/service-2.json" in names(archive)


@pytest.mark.parametrize("place", ["worktree", "zip", "other file system", "offline"])
def test_any_place_makes_the_same_bytes(foreign: Foreign, tmp_path: Path, place: str) -> None:
    """A git worktree, a downloaded zip, caches on another file system, and no network."""
    libs_of_libs(foreign)
    foreign.write({"wheels/none.txt": ""})  # git keeps no empty folder
    foreign.lock()
    expected = foreign.zip_of("orders").read_bytes()
    shutil.rmtree(foreign.root / "dist")
    root, cache, variables = foreign.root, tmp_path / "fresh", {}
    if place == "worktree":
        root = tmp_path / "tree"
        author = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        for words in (
            ("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "Add"),
            ("worktree", "add", "-q", str(root)),
        ):  # fmt: skip
            subprocess.run(["git", *words], cwd=foreign.root, check=True, env=plain_environment())
    elif place == "zip":
        root = tmp_path / "download"
        shutil.unpack_archive(shutil.make_archive(str(root), "zip", foreign.root), root)
    elif place == "other file system":
        memory = Path("/dev/shm")  # noqa: S108
        if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a file system in memory at /dev/shm, as Linux has; mount one there")
        cache = Path(tempfile.mkdtemp(dir=memory))
    else:
        variables = {"UV_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = foreign.command(
        "build", "orders", "--arch", "x86_64",
        cwd=root, LAMBDAPACK_CACHE_DIR=str(cache), **variables,
    )  # fmt: skip
    shutil.rmtree(cache)
    assert done.returncode == 0, done.stderr
    assert (root / "dist" / "orders.zip").read_bytes() == expected


def test_a_handler_is_found_by_its_name_or_named(foreign: Foreign) -> None:
    """What defines it in any way counts; its module begins with the helper."""
    foreign.member(
        "services/orders",
        files={
            "src/orders/__init__.py": "",
            "src/orders/one.py": "import json\n\n\nasync def lambda_handler(e, c): ...\n",
            "src/orders/two.py": "handler = print\n",
            "src/orders/main.py": "def run(event, context):\n    return 'ran'\n",
        },
    )
    foreign.lock()
    done = foreign.command("build", "orders")
    assert "modules with a handler: orders.one, orders.two" in done.stdout, done.stderr
    named = foreign.command("build", "orders", "--handler", "orders.main", "--json")
    assert json.loads(named.stdout)["orders"]["handlers"] == ["orders.main"]
    assert result(foreign.root / "dist/orders.zip", "orders.main", "run") == "ran"


def test_the_untouched_artifact_has_what_an_installation_has(
    foreign: Foreign, tmp_path: Path
) -> None:
    """Every file with its bytes, beside the bytecode."""
    package_with_metadata_and_data(foreign)
    foreign.wheel(
        "typed", {"typed/__init__.py": "", "typed/__init__.pyi": "", "typed/py.typed": ""}
    )
    foreign.members.clear()
    foreign.member(
        "services/x", "told", "typed", files={"src/x/__init__.py": "import told, typed\n"}
    )
    foreign.lock()
    found = names(foreign.zip_of("x", thin=False))
    installed = tmp_path / "installed"
    for wheel in (foreign.root / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(installed)
    expected = {
        path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()
    }
    assert expected <= found
    with zipfile.ZipFile(foreign.root / "dist/x.zip") as archive:
        for name in expected - {each for each in expected if each.endswith("/RECORD")}:
            assert archive.read(name) == (installed / name).read_bytes()
    tag = sys.implementation.cache_tag
    assert f"told/__pycache__/__init__.{tag}.pyc" in found
    assert "cold_start.py" not in found


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples; `lambdapack` is on PATH."""
    monkeypatch.setenv("LAMBDAPACK_CACHE_DIR", str(tmp_path / "cache"))
    made = shutil.ignore_patterns("dist", ".lambdapack", ".serverless", "cdk.out")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=made))


def run(*command: str | Path, cwd: Path | str, **variables: str) -> str:
    """The output of a program that must succeed, without an AWS account."""
    env = command_environment(Repository.here()) | variables
    return succeeded(program(*command, cwd=cwd, env=env))


def greeting(folder: Path) -> str:
    """What the example's function answers, with only its files and the standard library."""
    script = "import hello\nprint(hello.handler({}, None)['body'])"
    return bare(script, folder, {}).strip()


def test_serverless_deploys_the_zip_as_it_was_built(examples: Path) -> None:
    """By the hash that CloudFormation gets of it; the statements are those of the file."""
    install_framework(Repository.here())
    command = (sys.executable, "-m", "lambdapack", "build", "hello", "--python", PYTHON)
    run(*command, "--iam", "serverless/serverless.yml", cwd=examples)
    run(Repository.here().root / FRAMEWORK, "package", cwd=examples / "serverless")
    compiled = examples / "serverless/.serverless/cloudformation-template-update-stack.json"
    template = json.loads(compiled.read_text())
    (version,) = of_type(template, "AWS::Lambda::Version").values()
    digest = hashlib.sha256((examples / "dist/hello.zip").read_bytes()).digest()
    assert version["Properties"]["CodeSha256"] == base64.b64encode(digest).decode()
    found = Statements.read(compiled, None, "hello")
    assert found is not None
    assert "s3:GetObject" in [action for each in found.statements for action in each["Action"]]


def test_sam_builds_and_packages_the_example(examples: Path) -> None:
    """By the command of its page; cfn-lint accepts the template."""
    template = examples / "sam/template.yaml"
    command = ("sam", "build", "--template", "sam/template.yaml")
    builds = f"{sys.executable} -m lambdapack"
    run("uvx", "--quiet", "--from", SAM, *command, cwd=examples, LAMBDAPACK=builds, **NO_TELEMETRY)
    assert greeting(examples / ".aws-sam/build/HelloFunction") == "Hello, world!"
    assert complaints_about(template.read_text(), "eu-west-1") == []
    assert Statements.read(template, None, "hello") is not None


def test_cdk_takes_the_zip_as_it_was_built(examples: Path) -> None:
    """By the command of its page: the asset is the zip, and its statements can be read."""
    run(sys.executable, "-m", "lambdapack", "build", "hello", "--python", PYTHON, cwd=examples)
    synth = ("synth", "--quiet", "--app", "uv run --quiet app.py")
    run("npx", "--yes", "aws-cdk@2", *synth, cwd=examples / "cdk", **NO_TELEMETRY)
    written = examples / "cdk/cdk.out"
    (function,) = of_type(
        json.loads((written / "Hello.template.json").read_text()), "AWS::Lambda::Function"
    ).values()
    key, _, _ = function["Properties"]["Code"]["S3Key"].partition(".")
    assert (written / f"asset.{key}.zip").read_bytes() == (examples / "dist/hello.zip").read_bytes()
    found = Statements.read(written / "Hello.template.json", None, "hello")
    assert found is not None
    assert found.statements == []
    again = ("--iam", "cdk/cdk.out/Hello.template.json", "--json")
    run(sys.executable, "-m", "lambdapack", "build", "hello", *again, cwd=examples)


def test_terraforms_example_names_the_zip_its_handler_and_its_platform(examples: Path) -> None:
    text = (examples / "terraform/main.tf").read_text()
    run(sys.executable, "-m", "lambdapack", "build", "hello", "--python", PYTHON, cwd=examples)
    with zipfile.ZipFile(examples / "dist/hello.zip") as archive:
        archive.extractall(examples / "task")
    assert greeting(examples / "task") == "Hello, world!"
    for expected in ("dist/hello.zip", '"hello.handler"', '"python3.13"', '["arm64"]'):
        assert expected in text
    if shutil.which("terraform"):
        run("terraform", "fmt", "-check", cwd=examples / "terraform")


def test_the_table_of_libraries_has_every_probe_and_names_each_difference() -> None:
    """As the last run wrote it; the module `hundred` makes it."""
    text = hundred.DOCUMENT.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| \S+ \| \S+ \| (.+) \|$", text, re.MULTILINE))
    assert list(rows) == list(hundred.probes())
    assert len(rows) > 100
    named = text.partition("## Differences")[2].partition("## Results")[0]
    assert {name for name, found in rows.items() if found != "equal"} == {
        name for name in rows if f"`{name}`" in named
    }
