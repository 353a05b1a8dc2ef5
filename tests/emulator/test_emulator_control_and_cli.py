from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.emulator.shapes import read_time, write_time

COMMAND = [sys.executable, "-m", "airflow_provider_flux.emulator"]
ROOT = Path(__file__).parents[2]


def test_another_process_can_read_the_ledger(client):
    client.finished(prompt="x" * 2000)
    ledger = client.bare(client.emulator.url + "/_emulator/ledger").json()
    assert "local stand-in" in ledger["notice"]
    assert ledger["counters"]["posts"] == ledger["counters"]["accepted"] == 1
    assert [record["kind"] for record in ledger["requests"]] == ["create", "get"]
    assert ledger["predictions"][0]["status"] == "succeeded"
    assert len(ledger["predictions"][0]["input"]["prompt"]) < 600
    assert client.bare(client.emulator.url + "/_emulator/ledger?limit=0").json()["requests"] == []
    assert "a-key-for-tests" not in json.dumps(ledger)


def test_another_process_can_set_faults_outcomes_and_settings(client):
    control = client.emulator.url + "/_emulator"
    rules = [{"fault": "500"}, {"fault": "429_body", "retry_after": 3}]
    assert len(requests.post(control + "/faults", json=rules, timeout=20).json()["faults"]) == 2
    assert [client.create().status_code for _ in range(3)] == [500, 429, 200]
    requests.post(control + "/outcomes", json={"outcome": "PA"}, timeout=20)
    requests.post(control + "/settings", json={"created_status": 201, "fraction_digits": [3]}, timeout=20)
    answer = client.create()
    assert answer.status_code == 201
    finished = requests.post(control + "/finish", json={"id": answer.json()["id"]}, timeout=20).json()
    assert finished["predictions"][0]["status"] == "failed"
    state = client.bare(control + "/state").json()
    assert state["settings"]["created_status"] == 201
    assert state["settings"]["key"] == "(set, not shown)"
    assert state["faults"][0]["fired"] == 1
    assert requests.delete(control + "/faults", timeout=20).json() == {"faults": []}
    assert requests.delete(control + "/outcomes", timeout=20).json() == {"outcomes": []}
    requests.post(control + "/reset", timeout=20)
    assert client.emulator.counters.requests == 0


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("faults", '{"fault": "none"}'),
        ("faults", '{"fault": "500", "colour": 1}'),
        ("faults", "[1]"),
        ("outcomes", "not json"),
        ("settings", '{"speed": -1}'),
        ("finish", '{"id": "nothing"}'),
    ],
)
def test_a_wrong_control_request_is_explained(client, path, content):
    answer = requests.post(f"{client.emulator.url}/_emulator/{path}", data=content, timeout=20)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_the_fixture_gives_a_running_emulator(plugin_emulator):
    assert requests.get(plugin_emulator.url + "/api/models", timeout=20).ok


@pytest.fixture
def plugin_emulator():
    from airflow_provider_flux.emulator.fixture import flux_emulator

    wrapped = getattr(flux_emulator, "__wrapped__", None) or flux_emulator.__pytest_wrapped__.obj
    yield from wrapped()


@pytest.fixture
def certificate(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def test_both_origins_can_speak_https(certificate):
    with Emulator(tls=certificate) as emulator:
        for url in (emulator.url, emulator.foreign_url):
            assert url.startswith("https://127.0.0.1:")
        assert requests.get(emulator.url + "/api/models", verify=str(certificate[0]), timeout=20).ok
        emulator.add_fault("reset_before_accept", on="models")
        with pytest.raises(requests.ConnectionError):
            requests.get(emulator.url + "/api/models", verify=str(certificate[0]), timeout=20)


@pytest.fixture
def command():
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def banner(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_what_it_is_and_ends_cleanly(command, number):
    process = command("--port", "0", "--key", "my-own-key", "--log-requests", "--fault", "get:500:1")
    text = banner(process)
    assert text.startswith("LOCAL STAND-IN")
    connection = json.loads(re.search(r"AIRFLOW_CONN_FLUX_DEFAULT='(.*)'", text)[1])
    assert connection["conn_type"] == "flux"
    assert connection["password"] == "my-own-key"
    url = connection["host"]
    answer = requests.get(
        url + "/replicate/v1/predictions/x", headers={"Authorization": "Bearer my-own-key"}, timeout=20
    )
    assert answer.status_code == 500
    assert requests.get(f"{url}/_emulator/ledger", timeout=20).json()["counters"]["faults"] == 1
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "gateway GET /replicate/v1/predictions/x -> 500 [500]" in out
    assert "my-own-key" not in out
    assert err == ""


def test_a_busy_port_gives_one_line_and_exit_code_2(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = command("--port", str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "in use" in err


@pytest.mark.parametrize("arguments", [["--fault", "get:none"], ["--outcome", "none"], ["--speed", "0"]])
def test_a_wrong_option_gives_exit_code_2(command, arguments):
    process = command("--port", "0", *arguments)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "Traceback" not in err


def test_the_emulator_needs_no_airflow():
    code = (
        "import sys; import airflow_provider_flux.emulator.__main__; "
        "sys.exit(any(name.partition('.')[0] in {'airflow', 'PIL'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_times_are_written_and_read_with_any_count_of_digits():
    moment = 1_780_000_000.123456789
    for digits in range(10):
        text = write_time(moment, digits)
        assert read_time(text) == pytest.approx(moment, abs=10.0 ** -min(digits, 6) * 1.01)
    assert write_time(moment, 0).endswith("Z")
    assert (
        read_time("2026-03-12T06:28:50+01:00") == read_time("2026-03-12T05:28:50Z") == read_time("2026-03-12T05:28:50")
    )
    assert read_time("2026-03-12T06:28:50 01:00") == read_time("2026-03-12T05:28:50Z")
    with pytest.raises(ValueError, match="isoformat"):
        read_time("yesterday")
