"""No event breaks a function: see `jobplane.fuzzing.subjects` for what that means."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, seed

from jobplane.fuzzing.runs import property_of
from jobplane.fuzzing.subjects import Answered, Situation, subjects
from jobplane.tree.repository import Repository

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = 250
FUNCTIONS = [function.name for function in Repository.here().functions()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_event_breaks_a_function(name: str) -> None:
    """Its own events, spoilt: a documented answer or error, nothing internal, no stray write."""

    def use(situation: Situation, event: Any, done: Answered) -> None:
        assert not done.problems, f"{situation.name}: {event!r:.1000}"

    with subjects() as make:
        seed(1)(property_of(make(name), EXAMPLES, use, (Phase.generate, Phase.shrink)))()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_broke_a_function_once_does_not_again(name: str) -> None:
    """The smallest inputs that ever showed a fault, and the events as they are."""
    with subjects() as make:
        subject = make(name)
        situations = {situation.name: situation for situation in subject.situations}
        inputs = [(situation, situation.event) for situation in situations.values()]
        for path in sorted(CORPUS.glob(f"{name}/*.json")):
            kept = json.loads(path.read_text(encoding="utf-8"))
            inputs.append((situations[kept["situation"]], kept["event"]))
        problems = {
            f"{situation.name}: {event!r:.300}": found
            for situation, event in inputs
            if (found := subject.call(situation, event).problems)
        }
    assert problems == {}
