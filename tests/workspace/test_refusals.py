"""Each line of libs/lambdapack/docs/refusals.md, provoked."""

import ast
import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from click import ClickException

import lambdapack
from lambdapack._cli import main
from lambdapack.requirements import PYTHON
from tests.workspace.foreign_workspace import HATCHLING, Foreign
from tests.workspace.test_any_workspace import HELLO, OTHER, libs_of_libs

DOCUMENT = Path(lambdapack.__file__).parents[2] / "docs" / "refusals.md"
LINES = {
    name: (message, remedy)
    for name, message, remedy in re.findall(
        r"^\| (.+?) \| (.+?) \| (?:(.+?) )?\|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    if name != "input"
}
UNPACKAGED = "[tool.uv]\npackage = false\n"
WORDS = "libs/words"
SOURCE = f"{WORDS}/src/words/__init__.py"
ORDERS = "services/orders/pyproject.toml"
PLAIN = "services/plain/main.py"
ELF = b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little") + bytes(20)
NEW_ELF = ELF.replace(b"\xb7", b"\x3e") + b"\0GLIBC_2.2.5\0GLIBC_2.38\0"
SAM = (
    "Resources:\n"
    + "  {}:\n    Type: AWS::Serverless::Function\n    Properties: {{Policies: []}}\n" * 2
)


TAG = f"cp{PYTHON.replace('.', '')}-cp{PYTHON.replace('.', '')}-linux_x86_64"


def writes(path: str, text: str) -> Callable[[Foreign], None]:
    return lambda foreign: foreign.write({path: text})


def replaces(path: str, old: str, new: str) -> Callable[[Foreign], None]:
    def change(foreign: Foreign) -> None:
        text = (foreign.root / path).read_text(encoding="utf-8")
        assert old in text
        foreign.write({path: text.replace(old, new, 1)})

    return change


def settings(text: str) -> Callable[[Foreign], None]:
    return replaces(ORDERS, "[build-system]", f"[tool.lambdapack]\n{text}\n[build-system]")


def needs_wheel(foreign: Foreign, tag: str = "py3-none-any", content: str | bytes = "") -> None:
    foreign.wheel("wanted", {"wanted/__init__.py": "", "wanted/x.so": content}, tag=tag)
    replaces(f"{WORDS}/pyproject.toml", "dependencies = []", "dependencies = ['wanted']")(foreign)
    foreign.update_lock()


def needs_library_of_a_newer_system(foreign: Foreign) -> None:
    needs_wheel(foreign, TAG, NEW_ELF)
    wheel = f"wheels/wanted-1.0-{TAG}.whl"
    replaces(
        "pyproject.toml", "[tool.uv.sources]", f"[tool.uv.sources]\nwanted = {{ path = '{wheel}' }}"
    )(foreign)
    foreign.update_lock()


def needs_sources(foreign: Foreign, tag: str) -> None:
    foreign.sdist("wanted", HELLO, tag=tag)
    replaces(f"{WORDS}/pyproject.toml", "dependencies = []", "dependencies = ['wanted']")(foreign)
    foreign.update_lock()


def has_a_client(foreign: Foreign) -> None:
    foreign.wheel("botocore", {"botocore/__init__.py": "", "boto3.py": "client = None\n"})
    replaces(f"{WORDS}/pyproject.toml", "dependencies = []", "dependencies = ['botocore']")(foreign)
    foreign.write({SOURCE: "import boto3\n\n\ndef hello():\n    return boto3.client('sqs')\n"})
    foreign.update_lock()


def no_wheel_of_this_machine(foreign: Foreign) -> None:
    needs_wheel(foreign, "cp313-cp313-win_amd64")


def no_package(foreign: Foreign) -> None:
    project = f"{WORDS}/pyproject.toml"
    replaces(project, "[build-system]", "[tool.uv]\npackage = false\n[build-system]")(foreign)
    foreign.update_lock()


def same_file_twice(foreign: Foreign) -> None:
    package = '[tool.hatch.build.targets.wheel]\npackages = ["src/words"]\n'
    foreign.add(
        "libs/greeting", "words",
        files={"src/words/__init__.py": "OTHER = 1\n"}, settings=f"{HATCHLING}\n{package}",
    )  # fmt: skip
    foreign.update_lock()


def linked(target: str) -> Callable[[Foreign], None]:
    return lambda foreign: (foreign.root / WORDS / "src/words/link").symlink_to(target)


# By the line: what is done to the workspace, and the arguments.
PROVOKED: dict[str, tuple[Callable[[Foreign], object] | None, str]] = {
    "a folder without uv.lock": (None, "--project .."),
    "an unreadable uv.lock": (writes("uv.lock", "version = ["), "orders"),
    "a uv.lock older than pyproject.toml": (replaces(ORDERS, "'greeting'", "'words'"), "orders"),
    "a pyproject.toml that uv can't read": (writes(f"{WORDS}/pyproject.toml", "["), "orders"),
    "a requires-python without a runtime": (replaces("uv.lock", ">=3.12", ">=3.99"), "orders"),
    "a runtime whose Python is not installed": (None, f"orders --python {OTHER}"),
    "an unknown member": (None, "nothing"),
    "several members and no name": (None, "--project libs"),
    "a handler's module that does not exist": (None, "orders --handler gone.handler"),
    "a handler that its module does not define": (None, "orders --handler orders.gone"),
    "--handler for two members": (None, "orders words --handler x"),
    "--function without --iam": (None, "orders --function orders"),
    "--allow without a service": (None, "orders --allow GetObject"),
    "an --iam file that does not exist": (None, "orders --iam gone.yml"),
    "an --iam file of another format": (None, "orders --iam pyproject.toml"),
    "an --iam file without statements": (writes("iam.yml", "a: 1"), "orders --iam iam.yml"),
    "an --iam file of other functions": (
        writes("iam.yml", SAM.format("one", "two")),
        "orders --iam iam.yml",
    ),
    "a --function that the file lacks": (
        writes("iam.yml", SAM.format("one", "two")),
        "orders --iam iam.yml --function gone",
    ),
    "a mixed list of statements": (writes("iam.yml", "[s3:Get*, {}]"), "orders --iam iam.yml"),
    "a statement without Effect": (
        writes("iam.yml", "Statement: [{Action: 's3:*'}]"),
        "orders --iam iam.yml",
    ),
    "a statement without Action": (
        writes("iam.yml", "Statement: [{Effect: Allow}]"),
        "orders --iam iam.yml",
    ),
    "an --iam file whose parts have another form": (
        writes("iam.yml", "Resources: [1]"),
        "orders --iam iam.yml",
    ),
    "an unknown service in sdk": (settings('sdk = ["s4"]'), "orders"),
    "an sdk that is not a list": (settings("sdk = 4"), "orders"),
    "another setting, or one that is not a list": (settings("missing_imports = []"), "orders"),
    "a client of a service that does not ship": (has_a_client, "words --allow s3:GetObject"),
    "an import that nothing provides": (writes(SOURCE, "import nowhere\n"), "words"),
    "a member that is imported and no package": (no_package, "orders"),
    "a module that is not Python": (writes(SOURCE, "def:\n"), "words"),
    "the same in a member without a build system": (writes(PLAIN, "def:\n"), "plain"),
    "a module with the name of a standard one": (
        writes("services/plain/json.py", HELLO),
        "plain",
    ),
    "a module with a name of the build": (
        writes("services/plain/cold_start.py", HELLO),
        "plain",
    ),
    "a file that two members ship": (same_file_twice, "orders"),
    "a link to a folder above": (linked(".."), "words"),
    "a link to nothing": (linked("nowhere"), "words"),
    "a socket or a pipe": (lambda f: os.mkfifo(f.root / WORDS / "src/words/pipe"), "words"),
    "a dependency without a wheel for the target": (no_wheel_of_this_machine, "words"),
    "a library for another machine": (lambda f: needs_wheel(f, content=ELF), "words"),
    "a library of a newer system, in a wheel built by hand": (
        needs_library_of_a_newer_system,
        "words",
    ),
    "sources that compile for this machine only": (lambda f: needs_sources(f, TAG), "words"),
    "sources that compile for another machine, or not at all": (
        lambda f: needs_sources(f, TAG.replace("x86_64", "riscv64")),
        "words",
    ),
    "an --out that can't be written": (None, "words --out pyproject.toml"),
    "no uv on PATH": (None, "orders"),
}


# Only a workspace with rules of its own has statements in another form.
OF_OTHER_WORKSPACES = "must be a list of statements"
type Refusal = Callable[[str], ClickException]


@pytest.fixture(scope="module")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> Refusal:
    """Provokes a line's refusal, once."""

    @cache
    def provoke(line: str) -> ClickException:
        folder = tmp_path_factory.mktemp("refused")
        foreign = Foreign(folder / "größe & space")
        libs_of_libs(foreign)
        foreign.member("services/plain", files={"main.py": HELLO}, settings=UNPACKAGED)
        foreign.lock()
        change, arguments = PROVOKED[line]
        if change:
            change(foreign)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ClickException) as refused:
            patch.setenv("LAMBDAPACK_CACHE_DIR", str(folder / "cache"))
            if line == "no uv on PATH":
                patch.delenv("UV", raising=False)
                patch.setenv("PATH", str(folder))
            if "--python" in arguments:
                patch.setenv("UV", os.environ.get("UV") or str(shutil.which("uv")))
                patch.setenv("UV_PYTHON_INSTALL_DIR", str(folder))
                patch.setenv("PATH", str(folder))
            patch.chdir(foreign.root)
            command = ["build", *arguments.split(), "--arch", "x86_64"]
            main.main(command, standalone_mode=False)
        return refused.value

    return provoke


def test_the_table_has_every_provoked_refusal() -> None:
    assert list(LINES) == list(PROVOKED)


@pytest.mark.parametrize("line", PROVOKED)
def test_a_refusal_names_the_cause_and_the_remedy(refusal: Refusal, line: str) -> None:
    refused = refusal(line)
    assert refused.exit_code in (1, 2)
    said = " ".join(refused.format_message().split())
    for part in "…".join(LINES[line]).split("…"):
        assert part.strip() in said


def test_every_raise_of_the_code_is_provoked_by_a_line(refusal: Refusal) -> None:
    """What the code refuses is in the table."""
    reached = set()
    for line in PROVOKED:
        last = refusal(line).__traceback__
        while last and last.tb_next:
            last = last.tb_next
        assert last
        reached.add((Path(last.tb_frame.f_code.co_filename).name, last.tb_lineno))
    sources = Path(lambdapack.__file__).parent
    for path in sources.rglob("*.py"):
        name = ".".join(path.relative_to(sources.parent).with_suffix("").parts)
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            raised = ast.unparse(node.exc.func).removesuffix(".of").removeprefix("click.")
            kind = vars(import_module(name)).get(raised) or vars(import_module("click")).get(raised)
            if not (isinstance(kind, type) and issubclass(kind, ClickException)):
                continue
            said = ast.unparse(node.exc)
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            assert OF_OTHER_WORKSPACES in said or any((path.name, n) in reached for n in lines), (
                said
            )
