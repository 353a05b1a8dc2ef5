"""What failed before the first byte of a request could leave was not sent: told as such, and safe to send again."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_certificates
from tests.servers import RawServer, SilentServer, answering
from tests.wire.test_odd_answers import PICTURE, http
from tests.wire.two_drivers import DRIVERS, access_to, create, play

SETTING, NETWORK, CERTIFICATE = "refused setting", "retry network", "refused certificate"
PASSWORD = "proxy-password-123"


@dataclass
class World:
    """A machine's network and its settings."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path
    authority: Path
    certificate: tuple[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    options: dict[str, Any] = field(default_factory=dict)
    limit: float = 8.0

    def env(self, name: str, value: object) -> None:
        self.monkeypatch.setenv(name, str(value))

    def server(self, *pieces: bytes, tls: bool = False, wants_certificate: bool = False) -> RawServer:
        context = None
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self.certificate)
            if wants_certificate:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(str(self.authority))
        return self.stack.enter_context(RawServer(answering(*(pieces or (http(),))), tls=context))

    def silent(self) -> int:
        return self.stack.enter_context(SilentServer()).port

    def file(self, content: str) -> str:
        path = self.folder / "authorities.pem"
        path.write_text(content)
        return str(path)


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: tuple[Path, tuple[str, str]]
) -> Iterator[World]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    world = World(monkeypatch, tmp_path, *certificates)
    with world.stack:
        yield world


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def name_that(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]) -> str:
    """Return a host that is looked up by a function."""
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        return answer() if "gateway.example" in str(host) else real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "http://gateway.example"


def not_known() -> Any:
    raise socket.gaierror(-2, "Name or service not known")


def refused(world: World) -> str:
    return f"http://127.0.0.1:{closed_port()}"


def unknown_name(world: World) -> str:
    return name_that(world.monkeypatch, not_known)


def slow_name(world: World) -> str:
    world.limit = 1.0
    return name_that(world.monkeypatch, lambda: time.sleep(2.5))


def no_tls(world: World) -> str:
    return world.server(b"HTTP/1.1 400 Bad Request\r\n\r\n").url.replace("http:", "https:")


def stalling_tls(world: World) -> str:
    world.limit = 1.5
    return f"https://127.0.0.1:{world.silent()}"


def stalling_tls_and_a_patient_deadline(world: World) -> str:
    world.options["connect_timeout"] = 1.0
    return f"https://127.0.0.1:{world.silent()}"


def untrusted(world: World) -> str:
    return world.server(tls=True).url


def wants_ours(world: World) -> str:
    world.options["ca_file"] = str(world.authority)
    return world.server(tls=True, wants_certificate=True).url


def with_ca_file(path: Callable[[World], str]) -> Callable[[World], str]:
    def prepare(world: World) -> str:
        world.options["ca_file"] = path(world)
        return world.server(tls=True).url

    return prepare


def with_env(name: str, value: Callable[[World], str], *, tls: bool = False) -> Callable[[World], str]:
    def prepare(world: World) -> str:
        url = world.server(tls=tls).url
        world.env(name, value(world))
        return url

    return prepare


def proxied(answer: bytes, *, tls: bool = True, scheme: str = "http://") -> Callable[[World], str]:
    """Reach the gateway through a proxy that answers so."""

    def prepare(world: World) -> str:
        proxy = world.server(answer)
        name = "HTTPS_PROXY" if tls else "http_proxy"
        world.env(name, f"{scheme}me:{PASSWORD}@127.0.0.1:{proxy.port}" if scheme else f"127.0.0.1:{proxy.port}")
        return f"{'https' if tls else 'http'}://gateway.example"

    return prepare


def silent_proxy(scheme: str) -> Callable[[World], str]:
    def prepare(world: World) -> str:
        world.limit = 1.5
        world.env("HTTPS_PROXY", f"{scheme}://me:{PASSWORD}@127.0.0.1:{world.silent()}")
        return "https://gateway.example"

    return prepare


def connect(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


EVENTS: dict[str, tuple[Callable[[World], str], str, str]] = {
    "connection refused": (refused, NETWORK, "Connection refused"),
    "name not known": (unknown_name, NETWORK, "DNS"),
    "name never found": (slow_name, NETWORK, "too long"),
    "no TLS at the port": (no_tls, NETWORK, "TLS handshake failed"),
    "TLS stalls until the deadline": (stalling_tls, NETWORK, "too long"),
    "TLS stalls until the connect timeout": (stalling_tls_and_a_patient_deadline, NETWORK, "too long"),
    "certificate not trusted": (untrusted, CERTIFICATE, "not trusted"),
    "certificate of ours wanted": (wants_ours, CERTIFICATE, "refused the TLS connection"),
    "ca_file missing": (with_ca_file(lambda world: f"{world.folder}/none.pem"), SETTING, "none.pem (ca_file"),
    "ca_file empty": (with_ca_file(lambda world: world.file("")), SETTING, "authorities.pem (ca_file"),
    "ca_file no PEM": (with_ca_file(lambda world: world.file("hello")), SETTING, "holds no certificate"),
    "ca_file broken PEM": (
        with_ca_file(lambda world: world.file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        SETTING,
        "authorities.pem",
    ),
    "ca_file below a file": (with_ca_file(lambda world: f"{world.file('x')}/a.pem"), SETTING, "Not a directory"),
    "ca_file with NUL": (with_ca_file(lambda world: "a\0b"), SETTING, "null"),
    "ca_file an empty folder": (with_ca_file(lambda world: str(world.folder)), CERTIFICATE, "not trusted"),
    "ca_file of too long a name": (with_ca_file(lambda world: "/" + "a" * 5000), SETTING, "too long"),
    **{
        f"{name} missing": (
            with_env(name, lambda _: "/none/bundle.pem", tls=True),
            SETTING,
            f"/none/bundle.pem ({name})",
        )
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    },
    "REQUESTS_CA_BUNDLE right": (
        with_env("REQUESTS_CA_BUNDLE", lambda world: str(world.authority), tls=True),
        PICTURE,
        "",
    ),
    "REQUESTS_CA_BUNDLE missing, no TLS": (
        with_env("REQUESTS_CA_BUNDLE", lambda _: "/none/bundle.pem"),
        SETTING,
        "REQUESTS_CA_BUNDLE",
    ),
    "SSL_CERT_FILE missing is nobody's": (with_env("SSL_CERT_FILE", lambda _: "/none/bundle.pem"), PICTURE, ""),
    "proxy refuses connections": (
        with_env("HTTP_PROXY", lambda _: f"http://me:{PASSWORD}@127.0.0.1:{closed_port()}"),
        NETWORK,
        "through the proxy http://127.0.0.1:",
    ),
    "proxy without a scheme refuses connections": (
        with_env("http_proxy", lambda _: f"127.0.0.1:{closed_port()}"),
        NETWORK,
        "through the proxy http://127.0.0.1:",
    ),
    "proxy with a bad port": (
        with_env("HTTP_PROXY", lambda _: f"http://me:{PASSWORD}@proxy.example:port"),
        SETTING,
        "http://proxy.example:port of HTTP_PROXY",
    ),
    "proxy with port 0": (with_env("http_proxy", lambda _: "http://127.0.0.1:0"), SETTING, "http://127.0.0.1:0"),
    "proxy with port 99999": (with_env("http_proxy", lambda _: "http://127.0.0.1:99999"), SETTING, ":99999"),
    "proxy without a host": (with_env("http_proxy", lambda _: "http://"), SETTING, "cannot be read"),
    "proxy of a strange scheme": (with_env("http_proxy", lambda _: "ftp://127.0.0.1:21"), SETTING, "'ftp'"),
    **{
        f"{scheme} proxy without PySocks": (
            with_env("ALL_PROXY", lambda _, scheme=scheme: f"{scheme}://me:{PASSWORD}@127.0.0.1:1080"),  # type: ignore[misc]
            SETTING,
            f"{scheme}://127.0.0.1:1080 of ALL_PROXY",
        )
        for scheme in ("socks5", "socks5h", "socks4")
    },
    **{
        f"proxy answers CONNECT with {status}": (proxied(connect(status)), said, f"{status[:3]}")
        for status, said in (
            ("407 Proxy Authentication Required", SETTING),
            ("403 Forbidden", SETTING),
            ("404 Not Found", SETTING),
            ("502 Bad Gateway", NETWORK),
            ("503 Service Unavailable", NETWORK),
            ("504 Gateway Timeout", NETWORK),
            ("429 Too Many Requests", NETWORK),
        )
    },
    "proxy answers CONNECT with noise": (proxied(b"\0\1\2 what?\r\n\r\n"), NETWORK, "proxy http://127.0.0.1:"),
    "proxy closes after CONNECT": (proxied(b""), NETWORK, "proxy http://127.0.0.1:"),
    "proxy connects and then closes": (proxied(connect("200 OK")), NETWORK, "proxy http://127.0.0.1:"),
    "proxy never answers CONNECT": (silent_proxy("http"), NETWORK, "too long"),
    "proxy of https stalls": (silent_proxy("https"), NETWORK, "too long"),
    "proxy works": (proxied(http(), tls=False), PICTURE, ""),
    "proxy without a scheme works": (proxied(http(), tls=False, scheme=""), PICTURE, ""),
    "NO_PROXY names the host": (
        lambda world: (world.env("NO_PROXY", "127.0.0.1"), with_env("HTTP_PROXY", lambda _: "x:y")(world))[1],
        PICTURE,
        "",
    ),
    "NO_PROXY is a star": (
        lambda world: (world.env("no_proxy", "*"), with_env("ALL_PROXY", lambda _: "socks5://x")(world))[1],
        PICTURE,
        "",
    ),
    "NO_PROXY names a network": (
        lambda world: (world.env("no_proxy", "127.0.0.0/8"), with_env("http_proxy", lambda _: "http://x:y")(world))[1],
        PICTURE,
        "",
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_worker_and_triggerer_say_the_same(name: str, world: World) -> None:
    prepare, said, text = EVENTS[name]
    access = access_to(prepare(world), **world.options)
    told = {driver: play(driver, access, create(access), world.limit) for driver in DRIVERS}
    assert {driver: outcome.said for driver, outcome in told.items()} == dict.fromkeys(DRIVERS, said)
    for outcome in told.values():
        assert PASSWORD not in outcome.text
        if said != PICTURE:
            assert text in outcome.text, outcome.text
        assert outcome.seconds < 6
    assert len({outcome.text.split(" (")[0] for outcome in told.values()}) == 1, told
