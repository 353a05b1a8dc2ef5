from __future__ import annotations

import ipaddress

import pytest

from airflow_provider_flux.outputs.addresses import (
    ForbiddenOriginError,
    check_address,
    check_url,
    without_secrets,
)

PUBLIC = ["https://replicate.delivery/xezq/out-0.webp?X=1", "https://8.8.8.8/a.png", "https://[2606:4700::1111]:8443/a"]
ALWAYS_FORBIDDEN = [
    "file:///etc/passwd",
    "ftp://replicate.delivery/a.png",
    "gopher://replicate.delivery/",
    "//replicate.delivery/a.png",
    "https:///a.png",
    "https://",
    "",
    "https://user@replicate.delivery/a.png",
    "https://user:password@replicate.delivery/a.png",
    "https://replicate.delivery:port/a.png",
    "https://replicate.delivery\\@127.0.0.1/a.png",
    "https://replicate.delivery/a b.png",
    "https://replicate.delivery/a\r\nHost: x",
    "https://①②⑦.⓪.⓪.①/a.png",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fe80::1]/",
    "https://0.0.0.0/",
    "https://[::]/",
    "https://224.0.0.1/",
    "https://[ff02::1]/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://100.100.100.200/",
    "https://[::ffff:169.254.169.254]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.1/",
    "https://127.0.0.0x1/",
]
PRIVATE = [
    "https://127.0.0.1/",
    "https://127.9.9.9/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://192.168.0.1/",
    "https://[::1]/",
    "https://[fd00::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://files.localhost/",
]


@pytest.mark.parametrize("url", PUBLIC)
@pytest.mark.parametrize("allow_private", [False, True])
def test_public_https_urls_may_be_fetched(url, allow_private):
    check_url(url, allow_private=allow_private)


@pytest.mark.parametrize("url", ALWAYS_FORBIDDEN)
@pytest.mark.parametrize("allow_private", [False, True])
def test_odd_urls_and_addresses_are_forbidden_whatever_is_permitted(url, allow_private):
    with pytest.raises(ForbiddenOriginError):
        check_url(url, allow_private=allow_private)


@pytest.mark.parametrize("url", [*PRIVATE, "http://replicate.delivery/a.png", "http://127.0.0.1:8080/a.png"])
def test_private_hosts_and_plain_http_need_permission(url):
    with pytest.raises(ForbiddenOriginError):
        check_url(url, allow_private=False)
    check_url(url, allow_private=True)


def test_an_address_behind_nat64_counts_as_the_one_it_stands_for():
    check_address(ipaddress.ip_address("64:ff9b::808:808"), allow_private=False)
    with pytest.raises(ForbiddenOriginError):
        check_address(ipaddress.ip_address("64:ff9b::a00:1"), allow_private=False)


def test_a_url_is_shown_without_what_signs_it():
    assert without_secrets("https://me:pw@host:8/a/b.png?sig=1#x") == "https://host:8/a/b.png"
    assert without_secrets("https://host/a@b.png") == "https://host/a@b.png"
    assert without_secrets("https://host?sig=1") == "https://host"
