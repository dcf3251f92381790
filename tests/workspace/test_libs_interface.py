"""What a lib makes public: documented, and not taken back without saying so in its version."""

import re
from itertools import takewhile

import pytest

from tests.workspace import interfaces
from tests.workspace.lib_environments import LIBS, examples, project, source


def readme(lib: str) -> str:
    return (source(lib) / "README.md").read_text()


def names_section(lib: str) -> str:
    """What a README tells below `## Names`."""
    return readme(lib).partition("\n## Names\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("lib", LIBS)
def test_readme_is_short_and_shows_soon(lib: str) -> None:
    """One sentence, how to install it, a complete example by line 40, an end before line 110."""
    text = readme(lib)
    title, _, sentence, *rest = text.splitlines()
    assert title == f"# jobplane-{lib}"
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert "```sh" in takewhile(lambda line: line != "```python", rest)
    assert f"uv add jobplane-{lib}" in text
    first = examples(lib)[0]
    assert text[: text.index(first) + len(first)].count("\n") <= 40
    assert text.count("\n") < 110


@pytest.mark.parametrize("lib", LIBS)
def test_readme_tells_of_dependencies(lib: str) -> None:
    """Its end says what comes with the lib, with each extra, and which Python it takes."""
    end = readme(lib)[readme(lib).rindex("Depends on") :]
    for text in project(lib)["dependencies"] or ["nothing"]:
        name = re.match(r"[a-z-]+", text)
        assert name
        assert name[0] in end.lower()
    for extra in project(lib).get("optional-dependencies", {}):
        assert f"`{extra}`" in end
    assert "Python ≥ 3.12" in end


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_public_names_are_documented(lib: str) -> None:
    """The README's table has each name of `__all__` and each public module, and nothing that is
    not there: capitals stand for variables of the environment as well.
    """
    documented = set(re.findall(r"`(\w+)`", names_section(lib)))
    assert interfaces.exported(lib) | interfaces.public_modules(lib) <= documented
    words = {name for name in documented if not name.isupper()}
    assert words <= interfaces.names(lib) | {*project(lib).get("optional-dependencies", {})}


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_public_names_have_docstrings(lib: str) -> None:
    """Each public class and function, and each public method, says what it is or does."""
    assert interfaces.undocumented(lib) == []


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_nothing_is_taken_back(lib: str) -> None:
    """What was public at the recorded version is there still, and is called the same way, unless
    the version says that it need not be.
    """
    recorded = interfaces.recorded(lib)
    if interfaces.is_compatible(recorded.version, project(lib)["version"]):
        assert interfaces.breakages(lib) == [], interfaces.ADVICE
    else:
        assert recorded.version == project(lib)["version"], interfaces.ADVICE


@pytest.mark.parametrize(
    ("present", "once", "fault"),
    [
        (
            "def target_of(",
            "def aim(url: str) -> Target: ...\ndef target_of(",
            "aim: Public object",
        ),
        (
            "def url_at(self, address: str)",
            "def url_at(self, address: str, port: int)",
            "url_at: Par",
        ),
        ("body: bytes, secrets", "secrets", "deliver: Parameter was added as required"),
        ("TargetRefusedError(ValueError)", "TargetRefusedError(ValueError, OSError)", "Base class"),
        ("    port: int = ...", "    port: str = ...", "Target.port: type was str, is int"),
        ("authority(self) -> str", "authority(self) -> bytes", "authority: type was bytes, is str"),
        ("    error: str | None", "    error: str", "error: type was str, is str | None"),
        (
            "(value: Any) -> str",
            "(value: Any) -> bytes",
            "compact_json: returned bytes, returns str",
        ),
        (
            "signing_key(secret: str)",
            "signing_key(secret: str | bytes)",
            "signing_key(secret): took",
        ),
    ],
)
def test_what_is_taken_back_is_found(
    present: str, once: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was there, an argument that was taken, one that was not asked for, a base, a
    type.
    """
    now = interfaces.stubs("webhooks")["jobplane_webhooks"]
    assert present in now
    then = interfaces.Record("0.1.0", {"jobplane_webhooks": now.replace(present, once)})
    monkeypatch.setattr(interfaces, "recorded", lambda lib: then)
    assert fault in "\n".join(interfaces.breakages("webhooks"))


@pytest.mark.parametrize(
    ("present", "once"),
    [
        ("retry_after: float = 0.0) -> None", "retry_after: float = 0.0) -> None | int"),
        ("trace_header: str | None", "trace_header: str"),
    ],
)
def test_a_type_that_serves_old_users_is_no_fault(
    present: str, once: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function returns less than it may have, or takes more than it had to."""
    now = interfaces.stubs("webhooks")["jobplane_webhooks"]
    assert present in now
    then = interfaces.Record("0.1.0", {"jobplane_webhooks": now.replace(present, once)})
    monkeypatch.setattr(interfaces, "recorded", lambda lib: then)
    assert interfaces.breakages("webhooks") == []


@pytest.mark.parametrize(
    ("old", "new", "compatible"),
    [
        ("0.1.0", "0.1.4", True),
        ("0.1.0", "0.2.0", False),
        ("1.1.0", "1.2.0", True),
        ("1.9.0", "2.0.0", False),
        ("0.1.1", "0.1.0", False),
    ],
)
def test_versions_promise(old: str, new: str, compatible: bool) -> None:
    """The same major version, or the same minor one below 1.0; never an older one."""
    assert interfaces.is_compatible(old, new) is compatible
