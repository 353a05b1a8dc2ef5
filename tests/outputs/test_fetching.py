from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxOutputError,
    FluxOutputExpiredError,
    FluxOutputNotStoredError,
)
from airflow_provider_flux.outputs.fetching import LONGEST_PAUSE, LOOKS, REDIRECTS, TRIES, Fetcher, FetchRules
from airflow_provider_flux.outputs.pictures import recognise
from tests.certificates import make_certificates
from tests.outputs.conftest import KEY, Gateway
from tests.outputs.drawings import drawn
from tests.servers import RawServer, answering

HERE = FetchRules(allow_private=True)
PUBLIC_ONLY = FetchRules()
NAME = "pictures.example.com"


@pytest.fixture
def get(tmp_path, no_sleep):
    """Fetch into a file of the test's own."""

    def get(url, rules=HERE, **options):
        with Fetcher(rules, sleep=no_sleep) as fetcher, (tmp_path / "file").open("w+b") as file:
            return fetcher.fetch(url, file, about="Picture 0 of prediction abc", **options)

    return get


def resolve_to(monkeypatch, *addresses: str) -> list[str]:
    """Let the name of a file host lead to one address after the other, and note each question."""
    real, asked = socket.getaddrinfo, []

    def answer(host, port, *args, **options):
        if host != NAME:
            return real(host, port, *args, **options)
        asked.append(host)
        return real(addresses[min(len(asked), len(addresses)) - 1], port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.fixture
def tls_gateway(tmp_path, monkeypatch):
    """A gateway whose files come over https, from an authority that is trusted."""
    authority, certificate = make_certificates(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with Emulator(key=KEY, small_pictures=True, tls=certificate) as emulator:
        yield emulator


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_is_fetched_and_told_by_its_bytes(gateway: Gateway, get, tmp_path, kind):
    fetched = get(gateway.outputs(output_format=kind)[0])
    content = (tmp_path / "file").read_bytes()
    assert fetched.picture.format == kind
    assert (fetched.size, fetched.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_neither_the_bytes_name_nor_their_claimed_type_count(gateway: Gateway, get):
    gateway.emulator.add_outcome("other_format")
    url = gateway.outputs(output_format="webp")[0]
    gateway.emulator.add_fault("wrong_type", on="file")
    assert get(url).picture.format == "jpg"
    assert gateway.file_requests == [200]


def test_no_key_reaches_the_file_host_not_even_from_a_netrc(gateway: Gateway, get, tmp_path, monkeypatch):
    url = gateway.outputs()[0]
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    get(url)
    assert gateway.file_requests == [200]
    assert gateway.emulator.foreign_requests_with_authorization == 0


@pytest.mark.parametrize("fault", ["503", "429", "500", "reset_before_accept", "cut_body", "truncated_json"])
def test_passing_trouble_is_borne_and_the_whole_picture_comes(gateway: Gateway, get, pauses, tmp_path, fault):
    url = gateway.outputs(output_format="png")[0]
    gateway.emulator.add_fault(fault, on="file", times=2)
    assert get(url).picture.format == "png"
    with (tmp_path / "file").open("rb") as file:
        assert recognise(file).format == "png"
    assert len(gateway.file_requests) == 3
    assert len(pauses) == 2
    assert (gateway.emulator.posts, gateway.emulator.accepted) == (1, 1)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_that_ends_early_is_refused_though_no_length_was_announced(gateway: Gateway, get, kind):
    url = gateway.outputs(output_format=kind)[0]
    gateway.emulator.add_fault("cut_unannounced", on="file", times=None)
    with pytest.raises(FluxOutputNotStoredError, match="ends too early"):
        get(url)
    assert gateway.file_requests == [200] * TRIES


def test_a_body_shorter_than_announced_is_refused_even_if_a_whole_picture_came(get):
    content = drawn()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content) + 100}\r\n\r\n".encode()
    with (
        RawServer(answering(head + content)) as server,
        pytest.raises(FluxOutputNotStoredError, match="before the file was"),
    ):
        get(f"{server.url}/out-0.png", expires_at=time.time())
    with RawServer(answering(head + content + bytes(100))) as server:
        assert get(f"{server.url}/out-0.png").size == len(content) + 100


def test_without_a_known_end_the_tries_are_counted(gateway: Gateway, get, pauses):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("503", on="file", times=None)
    with pytest.raises(FluxOutputNotStoredError, match=f"after {TRIES} tries: the host answered 503") as caught:
        get(url)
    assert not isinstance(caught.value, AirflowFailException)
    assert "prediction abc" in str(caught.value)
    assert gateway.file_requests == [503] * TRIES
    assert len(pauses) == TRIES - 1
    assert gateway.emulator.posts == 1


def test_with_a_known_end_tries_go_on_until_it(gateway: Gateway, get, pauses, caplog):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("503", on="file", times=TRIES + 4)
    assert get(url, expires_at=time.time() + 600).picture.format == "webp"
    assert len(pauses) == TRIES + 4
    # One line for a trouble, however often it comes.
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Picture 0 of prediction abc cannot be fetched yet and is tried again: the host answered 503"
    ]


def test_a_url_past_its_end_is_tried_once_all_the_same(gateway: Gateway, get, pauses):
    url = gateway.outputs()[0]
    past = time.time() - 5
    gateway.emulator.add_fault("503", on="file", skip=1)
    assert get(url, expires_at=past).picture.format == "webp"
    with pytest.raises(FluxOutputNotStoredError):
        get(url, expires_at=past)
    assert gateway.file_requests == [200, 503]
    assert pauses == []


@pytest.mark.parametrize("fault", ["429_header", "429_date", "503"])
def test_the_hosts_wish_for_patience_is_heeded_up_to_a_limit(gateway: Gateway, get, pauses, fault):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault(fault, on="file", retry_after=9)
    gateway.emulator.add_fault(fault, on="file", retry_after=100_000)
    get(url)
    assert 7 <= pauses[0] <= 9
    assert pauses[1] == LONGEST_PAUSE


@pytest.mark.parametrize("fault", ["403", "404", "gone"])
def test_a_file_that_is_gone_is_believed_to_be_only_after_some_looks(gateway: Gateway, get, fault):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault(fault, on="file", times=LOOKS - 1)
    assert get(url).picture.format == "webp"
    gateway.emulator.add_fault(fault, on="file", times=LOOKS)
    with pytest.raises(FluxOutputExpiredError, match="gone") as caught:
        get(url, expires_at=time.time() + 600)
    assert isinstance(caught.value, AirflowFailException)
    assert len(gateway.file_requests) == 2 * LOOKS


@pytest.mark.parametrize(("fault", "said"), [("html", "a text or a page"), ("svg", "a text or a page"), ("400", "400")])
def test_what_is_no_picture_is_refused_for_good(gateway: Gateway, get, fault, said):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault(fault, on="file", times=LOOKS)
    with pytest.raises(FluxOutputError, match=said):
        get(url)
    assert len(gateway.file_requests) == LOOKS


@pytest.mark.parametrize("fault", ["endless", "huge_body"])
def test_a_body_above_the_limit_is_given_up(gateway: Gateway, get, tmp_path, fault):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault(fault, on="file")
    with pytest.raises(FluxOutputError, match="larger than 300000 bytes"):
        get(url, FetchRules(allow_private=True, largest_file=300_000))
    assert (tmp_path / "file").stat().st_size <= 300_000
    assert len(gateway.file_requests) == 1


def test_a_length_above_the_limit_is_refused_before_the_body_is_read(gateway: Gateway, get, tmp_path):
    with pytest.raises(FluxOutputError, match="larger than 10 bytes"):
        get(gateway.outputs()[0], FetchRules(allow_private=True, largest_file=10))
    assert (tmp_path / "file").stat().st_size == 0


def test_a_body_that_trickles_for_ever_ends_with_the_total_timeout(gateway: Gateway, get):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("trickle", on="file", times=1)
    assert get(url, FetchRules(allow_private=True, total_timeout=0.3)).picture.format == "webp"
    gateway.emulator.add_fault("trickle", on="file", times=1)
    with pytest.raises(FluxOutputNotStoredError, match="too slowly"):
        get(url, FetchRules(allow_private=True, total_timeout=0.3), expires_at=time.time())


def test_a_host_that_says_nothing_ends_with_the_read_timeout(gateway: Gateway, get):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("hang", on="file")
    with pytest.raises(FluxOutputNotStoredError, match="ReadTimeout"):
        get(url, FetchRules(allow_private=True, read_timeout=0.2), expires_at=time.time())


def test_redirects_are_followed_a_few_times(gateway: Gateway, get):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("redirect_302", on="file", times=REDIRECTS)
    assert get(url).picture.format == "webp"
    assert gateway.file_requests == [302] * REDIRECTS + [200]
    gateway.emulator.add_fault("redirect", on="file", times=None)
    with pytest.raises(FluxOutputError, match="redirected more than"):
        get(url)


@pytest.mark.parametrize("fault", ["redirect_metadata", "redirect_private"])
def test_a_redirect_to_a_private_address_is_not_followed(tls_gateway, get, monkeypatch, fault):
    """The first hop is public as far as the rules can see, so that it is the second one that is refused."""
    from airflow_provider_flux.outputs import addresses

    gateway = Gateway(tls_gateway)
    url = gateway.outputs()[0]
    real = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: str(address) == "127.0.0.1" or real(address))
    assert get(url, PUBLIC_ONLY).picture.format == "webp"
    tls_gateway.add_fault(fault, on="file")
    with pytest.raises(FluxOutputError, match="must not be fetched"):
        get(url, PUBLIC_ONLY)
    assert gateway.file_requests == [200, 302]


def test_even_with_permission_no_redirect_leads_to_the_metadata_service(gateway: Gateway, get):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("redirect_metadata", on="file")
    with pytest.raises(FluxOutputError, match=r"169\.254\.169\.254, which is not public"):
        get(url)
    assert gateway.file_requests == [302]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_without_permission_this_machine_is_not_even_connected_to(gateway: Gateway, get, scheme, host):
    port = gateway.emulator.foreign_url.rpartition(":")[2]
    before = gateway.emulator.connections
    with pytest.raises(FluxOutputError, match="must not be fetched"):
        get(f"{scheme}://{host}:{port}/output/x/out-0.png", PUBLIC_ONLY)
    assert gateway.emulator.connections == before


def test_a_name_that_leads_to_a_private_address_is_told_nothing(tls_gateway, get, monkeypatch):
    resolve_to(monkeypatch, "127.0.0.1")
    port = tls_gateway.foreign_url.rpartition(":")[2]
    with pytest.raises(FluxOutputError, match=r"127\.0\.0\.1, which is not public"):
        get(f"https://{NAME}:{port}/output/x/out-0.png", PUBLIC_ONLY)
    assert tls_gateway.requests == []


def test_a_name_that_changes_its_address_after_a_look_at_it_is_told_nothing(tls_gateway, get, monkeypatch):
    asked = resolve_to(monkeypatch, "8.8.8.8", "127.0.0.1")
    assert socket.getaddrinfo(NAME, 443)[0][4][0] == "8.8.8.8"
    port = tls_gateway.foreign_url.rpartition(":")[2]
    with pytest.raises(FluxOutputError, match="not public"):
        get(f"https://{NAME}:{port}/output/x/out-0.png", PUBLIC_ONLY)
    assert len(asked) == 2
    assert tls_gateway.requests == []


def test_an_untrusted_certificate_is_refused(tls_gateway, get, monkeypatch):
    url = Gateway(tls_gateway).outputs()[0]
    assert get(url).picture.format == "webp"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(FluxOutputNotStoredError, match="SSLError"):
        get(url, expires_at=time.time())


def test_a_proxy_may_be_private_and_is_asked_for_public_hosts_only(get, monkeypatch):
    with RawServer(answering(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(FluxOutputNotStoredError, match="ProxyError"):
            get(f"https://{NAME}/out-0.png", PUBLIC_ONLY, expires_at=time.time())
        for url in ("https://169.254.169.254/x", "https://localhost/x", "https://2852039166/x", f"http://{NAME}/x"):
            with pytest.raises(FluxOutputError):
                get(url, PUBLIC_ONLY)
    assert [request.rpartition(b" HTTP")[0].partition(b" HTTP")[0] for request in proxy.requests] == [
        f"CONNECT {NAME}:443".encode()
    ]


def test_an_error_shows_no_signature(gateway: Gateway, get):
    url = gateway.outputs()[0]
    gateway.emulator.add_fault("404", on="file", times=None)
    with pytest.raises(FluxOutputExpiredError) as caught:
        get(f"{url}?X-Amz-Signature=secret")
    assert url in str(caught.value)
    assert "secret" not in str(caught.value)
    gateway.emulator.stop()
    with pytest.raises(FluxOutputNotStoredError) as caught:
        get(f"{url}?X-Amz-Signature=secret", expires_at=time.time())
    assert "secret" not in str(caught.value)


def test_a_worker_that_cannot_write_says_so(gateway: Gateway, no_sleep):
    with (
        Fetcher(HERE, sleep=no_sleep) as fetcher,
        # Every write to it fails as on a full disk.
        Path("/dev/full").open("r+b", buffering=0) as file,
        pytest.raises(FluxOutputNotStoredError, match="could not be written"),
    ):
        fetcher.fetch(gateway.outputs()[0], file, about="x")


def test_one_connection_serves_one_picture_after_the_other(gateway: Gateway, tmp_path):
    urls = [url for _ in range(4) for url in gateway.outputs()]
    before = gateway.emulator.counters.connections
    with Fetcher(HERE) as fetcher:
        for url in urls:
            with (tmp_path / "file").open("w+b") as file:
                fetcher.fetch(url, file, about="x")
    assert gateway.file_requests == [200] * 4
    assert gateway.emulator.counters.connections == before + 1


def test_a_kept_connection_brings_nothing_that_a_host_has_set(get, tmp_path):
    content = drawn()
    head = f"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    with RawServer(answering(head + content)) as server, Fetcher(HERE) as fetcher:
        for _ in range(2):
            with (tmp_path / "file").open("w+b") as file:
                fetcher.fetch(f"{server.url}/out-0.png", file, about="x")
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)
