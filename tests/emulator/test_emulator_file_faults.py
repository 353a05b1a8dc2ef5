from __future__ import annotations

import pytest
import requests

from airflow_provider_flux.emulator import FAULTS, FILE_FAULTS, FaultRule


def test_the_faults_of_files_are_apart_from_those_that_seeded_plans_are_drawn_from():
    assert not set(FAULTS) & set(FILE_FAULTS)


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_only_files_can_meet_them(fault):
    assert FaultRule(fault, on="file").fault == fault
    for kind in ("create", "get", "any"):
        with pytest.raises(ValueError, match="only a file"):
            FaultRule(fault, on=kind)


@pytest.mark.parametrize(
    ("fault", "status", "location"),
    [
        ("gone", 410, None),
        ("redirect_metadata", 302, "http://169.254.169.254/latest/meta-data/"),
        ("redirect_private", 302, "https://10.0.0.1/out-0.png"),
    ],
)
def test_a_file_can_be_gone_or_lead_to_where_nobody_should_go(client, fault, status, location):
    url = client.finished()["output"][0]
    client.emulator.add_fault(fault, on="file")
    answer = client.bare(url)
    assert (answer.status_code, answer.headers.get("Location")) == (status, location)
    assert client.emulator.requests[-1].fault == fault
    assert client.bare(url).ok


def test_a_file_can_claim_to_be_something_else(client):
    url = client.finished()["output"][0]
    whole = client.bare(url)
    client.emulator.add_fault("wrong_type", on="file")
    claimed = client.bare(url)
    assert (claimed.headers["Content-Type"], claimed.content) == ("text/html", whole.content)
    client.emulator.add_fault("svg", on="file")
    assert client.bare(url).headers["Content-Type"].startswith("image/svg+xml")


def test_a_file_can_end_early_without_anything_that_tells(client):
    url = client.finished()["output"][0]
    whole = client.bare(url).content
    client.emulator.add_fault("cut_unannounced", on="file")
    cut = client.bare(url)
    assert cut.ok
    assert "Content-Length" not in cut.headers
    assert cut.content == whole[: len(whole) // 2]


@pytest.mark.parametrize(("fault", "wanted"), [("endless", 5_000_000), ("trickle", 20)])
def test_a_file_can_go_on_for_ever(client, fault, wanted):
    url = client.finished()["output"][0]
    client.emulator.add_fault(fault, on="file")
    received = 0
    with requests.get(url, stream=True, timeout=20) as answer:
        for chunk in answer.iter_content(None):
            received += len(chunk)
            if received >= wanted:
                break
    assert received >= wanted
