"""The runner of the clients' tour does not believe everything that it is told."""

import json
import sys

import pytest

from matrix import Row, follow
from scene import SERVICE_CONFIG, Scene
from stubs import ROOT

TOUR = [sys.executable, str(ROOT / "clients/python/tour.py")]


def tour(service_config: dict, tmp_path) -> dict[str, str]:
    """Makes the tour from Python with another service configuration; returns its outcomes."""
    file = tmp_path / "service-config.json"
    file.write_text(json.dumps(service_config))
    with Scene(service_config=file) as scene:
        row = Row(scene)
        follow(TOUR, row, scene.environment())
        row.close()
    return {behaviour: result["outcome"] for behaviour, result in row.results.items()}


def test_who_retries_what_is_final_fails(tmp_path):
    config = json.loads(SERVICE_CONFIG.read_text())
    config["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"].append("NOT_FOUND")
    outcomes = tour(config, tmp_path)
    assert outcomes.pop("once") == "failed"
    assert set(outcomes.values()) == {"passed"}


def test_who_does_not_retry_fails(tmp_path):
    config = json.loads(SERVICE_CONFIG.read_text())
    del config["methodConfig"]
    outcomes = tour(config, tmp_path)
    assert outcomes.pop("retry") == "failed"
    # The balancing alone may or may not hide that a server died.
    del outcomes["failover"]
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "not reported"),
        ([{"behaviour": "talk", "outcome": "unsupported"}], "unsupported, and no reason given"),
        ([{"behaviour": "talk", "outcome": "splendid"}], "reported splendid"),
        ([{"behaviour": "talk"}], "not reported"),
    ],
)
def test_a_row_is_complete_or_it_has_failed(lines, why):
    row = Row(scene=None)
    for line in lines:
        row.take(json.dumps(line))
    row.close()
    assert row.results["talk"] == {"outcome": "failed", "why": why}
    assert all(result["outcome"] == "failed" for result in row.results.values())


def test_what_only_says_that_it_did_it_is_not_believed():
    claims = [
        f"print('{json.dumps({'behaviour': behaviour, 'outcome': 'passed'})}')"
        for behaviour in ("dry-run", "retry", "once", "failover")
    ]
    with Scene() as scene:
        row = Row(scene)
        follow([sys.executable, "-c", "\n".join(claims)], row, {})
    assert [result["outcome"] for result in row.results.values()] == ["failed"] * len(claims)
