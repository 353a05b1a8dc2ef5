"""Worker and triggerer make the same of every odd answer: one expectation for both, which are compared as well."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from airflow_provider_flux.protocol.classify import Problem, classify
from tests.servers import RawServer, answering
from tests.wire.two_drivers import DRIVERS, ID, Outcome, access_to, create, get, play, reply_of

PREDICTION = {"id": ID, "status": "succeeded", "output": ["https://files.example/a.png"], "input": {"prompt": "a"}}
BODY = json.dumps(PREDICTION).encode()
UMLAUT = json.dumps({**PREDICTION, "error": "é"}, ensure_ascii=False)


def http(body: bytes = BODY, *headers: bytes | str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), *(line if isinstance(line, bytes) else line.encode() for line in headers)]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}".encode())
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def says(body: object, **options: object) -> bytes:
    return http(json.dumps(body).encode(), **options)  # type: ignore[arg-type]


def packed(body: bytes, encoding: str, *headers: str) -> bytes:
    return http(body, f"Content-Encoding: {encoding}", *headers)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


QUOTA = {"code": "insufficient_user_quota", "message": "no credit left"}
PICTURE = "ok succeeded"
NO_CREDIT = ("refused credit", "doubtful credit")
BROKEN = ("unknown malformed", "doubtful malformed")
LOST = ("unknown network", "retry network")
BUSY = ("unknown outage", "retry outage")

ANSWERS: dict[str, tuple[bytes, str | tuple[str, str]]] = {
    "plain": (http(), PICTURE),
    "201": (http(status="201 Created"), PICTURE),
    "no reason phrase": (http(status="200 "), PICTURE),
    "early hints first": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + http(), PICTURE),
    "continue first": (b"HTTP/1.1 100 Continue\r\n\r\n" + http(), PICTURE),
    "HTTP/1.0 without a length": (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, PICTURE),
    "no length, ends with the connection": (http(length=-1), PICTURE),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        PICTURE,
    ),
    "chunked with an extension and a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(BODY), BODY),
        PICTURE,
    ),
    "a header of 9,000 bytes": (http(BODY, "X-Long: " + "a" * 9000), PICTURE),
    "a header of 60,000 bytes": (http(BODY, "X-Long: " + "a" * 60000), PICTURE),
    "99 headers": (http(BODY, *(f"X-{number}: a" for number in range(97))), PICTURE),
    "a header with no value": (http(BODY, "X-Empty:"), PICTURE),
    "a header that is not ASCII": (http(BODY, "X-Name: é"), PICTURE),
    "a header that is not UTF-8": (http(BODY, b"X-Name: \xff\xfe"), PICTURE),
    "cookies": (http(BODY, "Set-Cookie: a=b", "Set-Cookie: c=d; Path=/; Secure", "Set-Cookie: {}[]"), PICTURE),
    "gzip": (packed(gzip.compress(BODY), "gzip"), PICTURE),
    "x-gzip": (packed(gzip.compress(BODY), "x-gzip"), PICTURE),
    "GZIP in capitals": (packed(gzip.compress(BODY), "GZIP"), PICTURE),
    "deflate": (packed(zlib.compress(BODY), "deflate"), PICTURE),
    "deflate without an envelope": (packed(raw_deflate(BODY), "deflate"), PICTURE),
    "identity": (packed(BODY, "identity"), PICTURE),
    "gzip twice": (packed(gzip.compress(gzip.compress(BODY)), "gzip, gzip"), PICTURE),
    "br": (packed(b"\x8b\x03\x80" + BODY, "br"), BROKEN),
    "zstd": (packed(b"(\xb5/\xfd" + BODY, "zstd"), BROKEN),
    "gzip that is none": (packed(BODY, "gzip"), BROKEN),
    "gzip that is cut off": (packed(gzip.compress(BODY)[:40], "gzip"), BROKEN),
    "an encoding that nobody knows": (packed(BODY, "snappy"), BROKEN),
    "a byte order mark": (http(b"\xef\xbb\xbf" + BODY), PICTURE),
    "UTF-16": (http(UMLAUT.encode("utf-16"), "Content-Type: application/json; charset=utf-16"), PICTURE),
    "UTF-16 that nobody told of": (http(BODY.decode().encode("utf-16-le")), PICTURE),
    "Latin-1": (http(UMLAUT.encode("latin-1"), "Content-Type: application/json; charset=ISO-8859-1"), PICTURE),
    "Latin-1 that says UTF-8": (http(UMLAUT.encode("latin-1"), "Content-Type: application/json"), PICTURE),
    "a charset that is none": (http(UMLAUT.encode("latin-1"), "Content-Type: text/plain; charset=klingon"), PICTURE),
    "half an emoji": (http(BODY[:-1] + b', "logs": "\xed\xa0\xbd"}'), PICTURE),
    "white space around": (http(b"\r\n \t" + BODY + b"\n\n"), PICTURE),
    "an empty body": (http(b""), BROKEN),
    "204": (http(b"", status="204 No Content"), BROKEN),
    "null": (http(b"null"), BROKEN),
    "cut off": (http(BODY[:30]), BROKEN),
    "shorter than announced": (http(BODY, length=len(BODY) + 10), LOST),
    "chunks that end early": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (999, BODY), LOST),
    "a refusal shorter than announced": (http(b"no cre", status="402 Payment Required", length=99), NO_CREDIT),
    "a limit shorter than announced": (http(b"slow", status="429 Slow", length=99), ("retry rate_limited",) * 2),
    "a failure shorter than announced": (http(b"oops", status="502 Bad Gateway", length=99), BUSY),
    "closed without a word": (b"", LOST),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", LOST),
    "half a status line": (b"HTTP/1.1 2", LOST),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", LOST),
    "headers that end early": (b"HTTP/1.1 200 OK\r\nContent-Type: applic", LOST),
    "a header above 64 kB": (http(BODY, "X-Long: " + "a" * 70000), LOST),
    "101 headers": (http(BODY, *(f"X-{number}: a" for number in range(99))), LOST),
    "200 that wants credit": (says({"id": "", "error": QUOTA}), NO_CREDIT),
    "200 that wants credit, id null": (says({"id": None, "error": QUOTA}), NO_CREDIT),
    "200 that wants credit, id 0": (says({"id": 0, "status": "failed", "error": QUOTA}), NO_CREDIT),
    "200 that wants credit, task_id empty": (says({"task_id": "", "error": QUOTA}), NO_CREDIT),
    "200 that wants credit, flat": (says({**QUOTA, "data": None}), NO_CREDIT),
    "200 that wants credit, flat without data": (says(QUOTA), NO_CREDIT),
    "200 that wants credit, inside data": (says({"code": "success", "data": {"id": "", "error": QUOTA}}), NO_CREDIT),
    "200 that wants credit, by type": (says({"error": {"type": QUOTA["code"], "message": "no"}}), NO_CREDIT),
    "200 that wants credit, a text": (says({"error": QUOTA["code"]}), NO_CREDIT),
    "200 that wants credit, capitals": (says({"error": {"code": "INSUFFICIENT_USER_QUOTA"}}), NO_CREDIT),
    "200 that wants credit, a list": (says({"errors": [QUOTA]}), NO_CREDIT),
    "200 that wants credit, a number": (says({"error": {"code": 402, "message": "no"}}), NO_CREDIT),
    "200 that wants credit, a number in a text": (says({"error": {"code": "402", "message": "no"}}), NO_CREDIT),
    "200 that wants credit, success false": (says({"success": False, **QUOTA}), NO_CREDIT),
    "200 that wants credit, the id of the request": (says({"id": "req_1", "error": QUOTA}), NO_CREDIT),
    "200 that says 401": (says({"code": 401, "message": "bad key", "data": None}), ("refused key",) * 2),
    "200 that says 429": (says({"error": {"code": 429, "message": "slow"}}), ("retry rate_limited",) * 2),
    "200 that says busy": (says({"id": "", "error": {"message": "busy"}}), BUSY),
    "a numeric id": (says({**PREDICTION, "id": 17}), (PICTURE, BROKEN[1])),
    "a row's number beside the id": (says({**PREDICTION, "id": 17, "task_id": ID}), PICTURE),
    "another prediction's id": (says({**PREDICTION, "id": "another"}), (PICTURE, BROKEN[1])),
    "an id of ..": (says({**PREDICTION, "id": ".."}), BROKEN),
    "an id of .": (says({**PREDICTION, "id": "."}), BROKEN),
    "an id with a line break": (says({**PREDICTION, "id": "a\nINFO forged"}), BROKEN),
    "an id with NUL": (says({**PREDICTION, "id": "a\0"}), BROKEN),
    "an id with slashes": (says({**PREDICTION, "id": "a/../../account"}), BROKEN),
    "an id with a backslash": (says({**PREDICTION, "id": "a\\b"}), BROKEN),
    "an id of 10,000 characters": (says({**PREDICTION, "id": "a" * 10_000}), BROKEN),
    "an id that is a list": (says({**PREDICTION, "id": [ID]}), BROKEN),
    "moved": (http(b"", "Location: /elsewhere", status="301 Moved"), ("refused wrong_url",) * 2),
    "moved to another host": (http(b"", "Location: https://x.example/?k", status="307 Go"), ("refused wrong_url",) * 2),
    "moved twice": (http(b"", "Location: /a", "Location: /b", status="302 Found"), ("refused wrong_url",) * 2),
    "moved nowhere": (http(b"", status="302 Found"), ("refused wrong_url",) * 2),
    "a page": (
        http(b"<html><title>Login</title>", "Content-Type: text/html"),
        ("refused wrong_url", "doubtful wrong_url"),
    ),
    "407 by a proxy in the way": (http(b"who?", status="407 Proxy Auth"), ("refused setting",) * 2),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("purpose", ["create", "get"])
def test_worker_and_triggerer_make_the_same_of_it(name: str, purpose: str) -> None:
    """an odd answer, on worker and triggerer"""
    raw, expected = ANSWERS[name]
    wanted = expected if isinstance(expected, str) else expected[purpose == "get"]
    told: dict[str, Outcome] = {}
    for driver in DRIVERS:
        with RawServer(answering(raw)) as server:
            access = access_to(server.url)
            told[driver] = play(driver, access, create(access) if purpose == "create" else get(access))
            assert server.posts == (purpose == "create")
    assert {driver: outcome.said for driver, outcome in told.items()} == dict.fromkeys(DRIVERS, wanted)
    assert told["worker"].outputs == told["triggerer"].outputs
    assert told["worker"].text.split("(")[0] == told["triggerer"].text.split("(")[0]


RETRY_AFTER = {
    "7": 7.0,
    " 7 ": 7.0,
    "7.5": 7.5,
    "0": 0.0,
    "-3": 0.0,
    "soon": None,
    "nan": None,
    "7, 9": None,
    "": None,
    "Thu, 01 Jan 1970 00:00:00 GMT": 0.0,
}


@pytest.mark.parametrize("hint", RETRY_AFTER)
def test_both_are_asked_for_the_same_patience(hint: str) -> None:
    for driver in DRIVERS:
        with RawServer(
            answering(http(b"slow", f"Retry-After: {hint}", "Retry-After: 99", status="429 Slow"))
        ) as server:
            access = access_to(server.url)
            judged = classify(get(access), reply_of(driver, access, get(access)))
            assert isinstance(judged, Problem)
            assert judged.retry_after == RETRY_AFTER[hint]


def test_both_send_the_same_request_but_for_its_order() -> None:
    sent = []
    for driver in DRIVERS:
        with RawServer(answering(http())) as server:
            access = access_to(server.url)
            for request in (
                create(access),
                get(access),
                access.gateway.cancel(ID),
                access.gateway.list("?cursor=a b%2F"),
            ):
                play(driver, access, request)
            heads = [request.replace(str(server.port).encode(), b"port").lower() for request in server.requests]
            sent.append([{*head.split(b"\r\n")} - {b"connection: keep-alive", b"connection: close"} for head in heads])
    assert sent[0] == sent[1]
