"""Templates: valid indexes, and the message for each fault."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import MonkeyPatch

from jobplane_robots import InvalidTemplatesError, MemorySink, RobotInput, Template, load_templates

HASH = {"robot": "/file/hash", "use": ":original"}


def load(*templates: Any) -> dict[str, Template]:
    return load_templates({"templates": list(templates)})


def problems(index: Any) -> list[str]:
    with pytest.raises(InvalidTemplatesError) as caught:
        load_templates(index)
    assert caught.value.code == "TEMPLATE_INVALID"
    for problem in caught.value.problems:
        assert str(problem) in caught.value.message
    return [str(problem) for problem in caught.value.problems]


def of_step(step: Any, name: str = "one") -> list[str]:
    return problems({"templates": [{"id": "t", "steps": {name: step}}]})


def test_a_template_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    packed = {"robot": "/file/compress", "use": ["hashed"], "level": 9}
    entry = {"id": "tpl_basic", "steps": {"packed": packed, "hashed": HASH}}
    entry |= {"webhook_url": "https://example.com/hook", "webhook_secret": "ssm:/jobplane/hook"}
    path.write_text(json.dumps({"templates": [entry]}))
    template = load_templates(path)["tpl_basic"]
    assert [step.name for step in template.ordered_steps()] == ["hashed", "packed"]
    assert template.steps["packed"].use == ("hashed",)
    assert template.steps["hashed"].use == (":original",)
    assert template.steps["packed"].options.model_dump() == {"format": "gzip", "level": 9}
    assert template.webhook_secret == "ssm:/jobplane/hook"
    assert template.allow_unsigned is False


def test_a_step_runs_its_robot() -> None:
    sink = MemorySink()
    source = RobotInput("a.txt", lambda: io.BytesIO(b"hello"), 5)
    load({"id": "t", "steps": {"one": HASH}})["t"].steps["one"].run(source, sink)
    assert "sha256" in sink.files[0].meta


def test_steps_keep_the_order_of_the_file_where_possible() -> None:
    """Only steps that a step uses are moved before it."""
    uses: dict[str, Any] = {"d": "b", "c": ":original", "b": ["a", ":original"], "a": ":original"}
    steps = {name: {"robot": "/file/hash", "use": use} for name, use in uses.items()}
    template = load({"id": "t", "steps": steps})["t"]
    assert [step.name for step in template.ordered_steps()] == ["c", "a", "b", "d"]


@given(st.data())
def test_every_step_comes_once_and_after_the_steps_it_uses(data: st.DataObject) -> None:
    names = [f"s{n}" for n in range(data.draw(st.integers(1, 8)))]
    steps: dict[str, Any] = {}
    for number, name in enumerate(names):
        choice = st.sampled_from([":original", *names[:number]])
        used = data.draw(st.lists(choice, min_size=1, unique=True))
        steps[name] = {"robot": "/file/hash", "use": used}
    shuffled = dict(data.draw(st.permutations(list(steps.items()))))
    order = load({"id": "t", "steps": shuffled})["t"].ordered_steps()
    done = {":original"}
    for step in order:
        assert done.issuperset(step.use)
        done.add(step.name)
    assert len(order) == len(names)


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"robot": "/file/hahs", "use": ":original"}, "robot: unknown robot /file/hahs"),
        ({"use": ":original"}, "robot: must be a robot's name"),
        ({"robot": "/file/hash"}, "use: must be :original, a step's name, or a list of these"),
        ({"robot": "/file/hash", "use": []}, "use: must be"),
        ({"robot": "/file/hash", "use": [1]}, "use: must be"),
        ({"robot": "/file/hash", "use": "two"}, "use: the template has no step 'two'"),
        ({"robot": "/file/hash", "use": "one"}, "use: a step can't use itself"),
        ({"robot": "/file/hash", "use": [":original"] * 2}, "use: names a step twice"),
        ({**HASH, "level": 3}, "level: unknown option; known: algorithms"),
        ({**HASH, "algorithms": ["x"]}, "algorithms[0]: should be"),
        ("/file/hash", "a step must be an object"),
    ],
)
def test_a_problem_starts_with_template_step_and_field(step: Any, problem: str) -> None:
    [found] = of_step(step)
    assert found.startswith(f"template t, step one{':' if 'object' in problem else ','} {problem}")


@pytest.mark.parametrize("name", ["", "a b", ":original", "é", "x" * 65, "a/b", "a\n"])
def test_a_steps_name_is_1_to_64_plain_characters(name: str) -> None:
    """It becomes part of keys."""
    assert "a step's name must be" in of_step(HASH, name)[0]


def test_a_cycle_is_listed_step_by_step() -> None:
    uses = {"start": "a", "a": "b", "b": [":original", "c"], "c": "a"}
    steps = {name: {"robot": "/file/hash", "use": use} for name, use in uses.items()}
    [found] = problems({"templates": [{"id": "t", "steps": steps}]})
    assert found == "template t, steps: use each other in a cycle: a → b → c → a"


def test_all_problems_of_an_index_are_listed() -> None:
    templates: list[Any] = [
        {"id": "t", "steps": {"one": {"robot": "/no/such", "use": "gone"}}, "color": 1},
        {"id": "t", "steps": {"one": HASH}},
        {"id": "bad id", "steps": {}},
        "text",
    ]
    found = problems({"templates": templates, "version": 1})
    for part in (
        "version: unknown key",
        "template t, color: unknown key",
        "template t, step one, use: the template has no step 'gone'",
        "template t, step one, robot: unknown robot /no/such",
        "template t, id: is the id of an earlier template",
        "template #3, id: must be",
        "template #3, steps: must be an object with at least one step",
        "template #4: a template must be an object",
    ):
        assert any(problem.startswith(part) for problem in found), part
    assert len(found) == 8


@pytest.mark.parametrize("index", [[], {}, {"templates": {}}, None, "x"])
def test_an_index_is_an_object_with_a_list(index: Any, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(index))
    assert problems(path) == ['the index must be an object {"templates": [...]}']


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ('{"templates": [], "templates": []}', "the key 'templates' appears twice"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_broken_json_and_duplicate_keys_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(text)
    assert reason in problems(path)[0]


def test_a_missing_index_raises_the_file_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_templates(tmp_path / "none.json")


SECRETS = ["ssm:/a/b-c_d.e", "ssm:/a/{stage}/b", "env:HOOK_SECRET"]
URLS = ["ssm:/jobplane/{stage}/hook", "env:HOOK_URL", "https://example.com/hook"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("webhook_secret", value) for value in SECRETS] + [("webhook_url", value) for value in URLS],
)
def test_every_form_of_a_reference_is_kept(key: str, value: str) -> None:
    template = load({"id": "t", "steps": {"one": HASH}, key: value})["t"]
    assert getattr(template, key) == value


REFUSED = {
    "webhook_secret": [
        "must be a reference, ssm:/path or env:NAME",
        *("hunter2", "ssm:relative", "ssm:/a/{user}", "env:", "env:1A", "env:A\n", "", 1),
    ],
    "webhook_url": [
        "must be an http(s) URL, or a reference, ssm:/path or env:NAME",
        *("ftp://x", "example.com", "https://", "http://[", 1, ""),
    ],
    "allow_unsigned": ["must be true or false", "true", 1, None],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, (_, *values) in REFUSED.items() for value in values]
)
def test_another_value_is_refused_and_not_in_the_error(key: str, value: Any) -> None:
    found = problems({"templates": [{"id": "t", "steps": {"one": HASH}, key: value}]})
    assert found == [f"template t, {key}: {REFUSED[key][0]}"]


def test_a_template_with_a_missing_robot_is_refused_when_loaded(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("jobplane_robots._robot.find_spec", lambda module: None)
    [found] = of_step({"robot": "/image/resize", "use": ":original", "width": 10})
    assert "robot /image/resize is not available: install jobplane-robots[image]" in found
