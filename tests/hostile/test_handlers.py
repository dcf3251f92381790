"""Any event gets an answer within the contract: see `jobplane.fuzzing.subjects`."""

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
def test_any_hostile_event_gets_an_answer_within_the_contract(name: str) -> None:

    def use(situation: Situation, event: Any, done: Answered) -> None:
        assert not done.problems, f"{situation.name}: {event!r:.1000}"

    with subjects() as make:
        seed(1)(property_of(make(name), EXAMPLES, use, (Phase.generate, Phase.shrink)))()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_events_that_violated_the_contract_before_do_not_again(name: str) -> None:
    """The smallest input of each former finding, and the functions' own events."""
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
