"""Fifty mapped predictions on PostgreSQL, Redis and Celery survive the death of a triggerer, a worker, a scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from distributed import PYTHON
from processes import termination_as_exit
from tests.distributed.failover import API_KEY, PICTURES, Facts, run_with_failures

# Everything happens before the first test, whose time it counts as: four minutes, or several times that when the
# machine is busy.
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(2400)]

EVERY_INDEX = list(range(PICTURES))


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Facts]:
    if not PYTHON.exists():
        pytest.fail("The environment is missing. Start this by: make test-distributed")
    terminal = pytestconfig.get_terminal_writer()
    with termination_as_exit():
        found = run_with_failures(tmp_path_factory.mktemp("distributed"), lambda line: terminal.line(f"  {line}"))
    yield found
    terminal.line()
    for line in table(found):
        terminal.line(line)


def table(facts: Facts) -> Iterator[str]:
    for moment, what in facts.timeline:
        yield f"{moment:>10}  {what}"
    yield ""
    counters = facts.counters
    tries = Counter(instance["try_number"] for instance in facts.instances)
    rows = {
        "tasks that succeed": len(facts.urls),
        "tasks by number of tries": ", ".join(f"{count} with {number}" for number, count in sorted(tries.items())),
        "POSTs at the gateway": counters.posts,
        "predictions accepted": counters.accepted,
        "predictions that succeed": sum(one.status == "succeeded" for one in facts.predictions),
        "cancels": counters.cancels,
        "lists of predictions asked for": counters.lists,
        "queries": counters.gets,
    }
    for name, value in rows.items():
        yield f"{name:<32} {value}"


def test_every_task_succeeds(facts: Facts) -> None:
    assert facts.failures == {}
    assert facts.state == "success"
    assert sorted(instance["map_index"] for instance in facts.instances) == EVERY_INDEX


def test_something_was_lost_each_time(facts: Facts) -> None:
    assert facts.triggers_of_the_killed
    assert facts.tasks_of_the_killed


def test_the_gateway_sees_one_post_for_each_task(facts: Facts) -> None:
    assert (facts.counters.posts, facts.counters.accepted) == (PICTURES, PICTURES)


def test_nothing_is_canceled(facts: Facts) -> None:
    assert facts.counters.cancels == 0
    assert {prediction.status for prediction in facts.predictions} == {"succeeded"}


def test_each_task_knows_a_prediction_that_no_other_task_knows(facts: Facts) -> None:
    made = {prediction.id: prediction.input["prompt"] for prediction in facts.predictions}

    assert sorted(facts.prediction_ids) == EVERY_INDEX
    assert sorted(facts.prediction_ids.values()) == sorted(made)
    for index, prediction_id in facts.prediction_ids.items():
        assert f"number {index + 1} of" in made[prediction_id]


def test_each_task_returns_the_url_of_its_own_picture(facts: Facts) -> None:
    assert sorted(facts.urls) == EVERY_INDEX
    for index, urls in facts.urls.items():
        assert len(urls) == 1
        assert facts.prediction_ids[index] in urls[0]


def test_the_key_is_in_no_log(facts: Facts) -> None:
    written = {path: path.read_bytes() for path in facts.logs}

    assert [str(path) for path, text in written.items() if API_KEY.encode() in text] == []
    # The search does find what was written:
    found = [path for path, text in written.items() if facts.prediction_ids[0].encode() in text]
    assert found


def test_nothing_is_left_behind(facts: Facts) -> None:
    assert facts.left_behind == []
