"""Each line of libs/lambdapack/docs/refusals.md, provoked."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import lambdapack
from lambdapack._cli import main
from tests.workspace.foreign_workspace import HATCHLING, Foreign
from tests.workspace.test_any_workspace import HELLO, libs_of_libs

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
ELF = b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little") + bytes(20)
SAM = (
    "Resources:\n"
    + "  {}:\n    Type: AWS::Serverless::Function\n    Properties: {{Policies: []}}\n" * 2
)


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
    "a requires-python without a runtime": (replaces("uv.lock", ">=3.12", ">=3.99"), "orders"),
    "an unknown member": (None, "nothing"),
    "several members and no name": (None, "--project libs"),
    "a handler's module that does not exist": (None, "orders --handler gone.handler"),
    "--handler for two members": (None, "orders words --handler x"),
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
    "an unknown service in sdk": (settings('sdk = ["s4"]'), "orders"),
    "an sdk that is not a list": (settings("sdk = 4"), "orders"),
    "an import that nothing provides": (writes(SOURCE, "import nowhere\n"), "words"),
    "a member that is imported and no package": (no_package, "orders"),
    "a module that is not Python": (writes(SOURCE, "def:\n"), "words"),
    "a module with the name of a standard one": (
        writes("services/plain/json.py", HELLO),
        "plain",
    ),
    "a file that two members ship": (same_file_twice, "orders"),
    "a link to a folder above": (linked(".."), "words"),
    "a link to nothing": (linked("nowhere"), "words"),
    "a socket or a pipe": (lambda f: os.mkfifo(f.root / WORDS / "src/words/pipe"), "words"),
    "a dependency without a wheel for the target": (no_wheel_of_this_machine, "words"),
    "a library for another machine": (lambda f: needs_wheel(f, content=ELF), "words"),
    "no uv on PATH": (None, "orders"),
}


def test_the_table_has_every_provoked_refusal() -> None:
    assert list(LINES) == list(PROVOKED)


@pytest.mark.parametrize("line", PROVOKED)
def test_a_refusal_names_the_cause_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("LAMBDAPACK_CACHE_DIR", str(tmp_path / "cache"))
    foreign = Foreign(tmp_path / "größe & space")
    libs_of_libs(foreign)
    foreign.member("services/plain", files={"main.py": HELLO}, settings=UNPACKAGED)
    foreign.lock()
    change, arguments = PROVOKED[line]
    if change:
        change(foreign)
    if line == "no uv on PATH":
        monkeypatch.delenv("UV", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(foreign.root)
    done = CliRunner().invoke(
        main, ["build", *arguments.split(), "--arch", "x86_64"], catch_exceptions=False
    )
    assert done.exit_code in (1, 2), done.output
    said = " ".join(done.stderr.split())
    for part in "…".join(LINES[line]).split("…"):
        assert part.strip() in said
