"""A lib's public interface is documented, and breaks only with a new version."""

import re
from itertools import takewhile

import pytest

from tests.workspace import interfaces
from tests.workspace.lib_environments import LIBS, examples, project, source


def readme(lib: str) -> str:
    return (source(lib) / "README.md").read_text()


def names_section(lib: str) -> str:
    """The part of a README below `## Names`."""
    return readme(lib).partition("\n## Names\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("lib", LIBS)
def test_a_readme_has_an_example_by_line_40_and_ends_by_line_110(lib: str) -> None:
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
def test_a_readme_lists_dependencies_extras_and_python_version(lib: str) -> None:
    end = readme(lib)[readme(lib).rindex("Depends on") :]
    for text in project(lib)["dependencies"] or ["nothing"]:
        name = re.match(r"[a-z-]+", text)
        assert name
        assert name[0] in end.lower()
    for extra in project(lib).get("optional-dependencies", {}):
        assert f"`{extra}`" in end
    assert "Python ≥ 3.12" in end


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_a_readmes_table_has_every_public_name(lib: str) -> None:
    """And environment variables in capitals; nothing that does not exist."""
    documented = set(re.findall(r"`(\w+)`", names_section(lib)))
    assert interfaces.exported(lib) | interfaces.public_modules(lib) <= documented
    words = {name for name in documented if not name.isupper()}
    assert words <= interfaces.names(lib) | {*project(lib).get("optional-dependencies", {})}


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_public_names_have_docstrings(lib: str) -> None:
    assert interfaces.undocumented(lib) == []


@pytest.mark.parametrize("lib", interfaces.ALL)
def test_the_interface_is_compatible_with_the_recorded_version(lib: str) -> None:
    """Unless the version allows a break."""
    recorded = interfaces.recorded(lib)
    if interfaces.is_compatible(recorded.version, project(lib)["version"]):
        assert interfaces.breakages(lib) == [], interfaces.ADVICE
    else:
        assert recorded.version == project(lib)["version"], interfaces.ADVICE


@pytest.mark.parametrize(
    ("present", "once", "fault"),
    [
        ("def target_of(", "def aim(url: str) -> Target: ...\ndef target_of(", "aim: Public obj"),
        ("def url_at(self, address: str)", "def url_at(self, address: str, x: int)", "url_at: Par"),
        ("body: bytes, secrets", "secrets", "deliver: Parameter was added as required"),
        ("TargetRefusedError(ValueError)", "TargetRefusedError(ValueError, OSError)", "Base class"),
        ("    port: int = ...", "    port: str = ...", "Target.port: type was str, is int"),
        ("    port: int = ...", "    port: Annotated[int, ALWAYS] = ...", None),
        ("authority(self) -> str", "authority(self) -> bytes", "authority: type was bytes, is str"),
        ("    error: str | None", "    error: str", "error: type was str, is str | None"),
        ("(value: Any) -> str", "(value: Any) -> bytes", "compact_json: returned bytes, returns"),
        ("signing_key(secret: str)", "signing_key(secret: str | bytes)", "key(secret): took"),
        ("retry_after: float = 0.0) -> None", "retry_after: float = 0.0) -> None | int", None),
        ("trace_header: str | None", "trace_header: str", None),
    ],
)  # fmt: skip
def test_an_incompatible_change_is_found(
    present: str, once: str, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removed name, argument or base, a new required argument, another type.

    A narrower result and a wider parameter are compatible.
    """
    now = interfaces.stubs("webhooks")["jobplane_webhooks"]
    assert present in now
    then = interfaces.Record("0.1.0", {"jobplane_webhooks": now.replace(present, once)})
    monkeypatch.setattr(interfaces, "recorded", lambda lib: then)
    found = interfaces.breakages("webhooks")
    assert found == [] if fault is None else fault in "\n".join(found)


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
def test_versions_are_compatible_by_semantic_versioning(
    old: str, new: str, compatible: bool
) -> None:
    assert interfaces.is_compatible(old, new) is compatible
