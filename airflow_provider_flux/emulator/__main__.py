"""The command line: ``python -m airflow_provider_flux.emulator --port 8088``."""

from __future__ import annotations

import argparse
import functools
import json
import signal
import sys
from collections.abc import Sequence

from airflow_provider_flux.emulator.drawing import PillowMissing, require_pillow
from airflow_provider_flux.emulator.rules import FAULTS, FILE_FAULTS, OUTCOMES, FaultRule, OutcomeRule
from airflow_provider_flux.emulator.server import Emulator
from airflow_provider_flux.emulator.settings import CANCELS, CREATED_STATUSES, SHAPES

EXIT_USAGE = 2
NAME = "python -m airflow_provider_flux.emulator"
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def fault_rule(text: str) -> FaultRule:
    """Read ``ON:FAULT`` or ``ON:FAULT:PROBABILITY``; such a rule always applies."""
    kind, _, rest = text.partition(":")
    fault, _, probability = rest.partition(":")
    return FaultRule(fault, kind, times=None, probability=float(probability or 1))


def outcome_rule(text: str) -> OutcomeRule:
    """Read ``OUTCOME`` or ``OUTCOME:PROBABILITY``; such a rule always applies."""
    outcome, _, probability = text.partition(":")
    return OutcomeRule(outcome, times=None, probability=float(probability or 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="A local stand-in for a FLUX gateway: no real model, no cost.",
        epilog=f"Faults: {', '.join(FAULTS)}. On files: {', '.join(FILE_FAULTS)}. Outcomes: {', '.join(OUTCOMES)}.",
    )
    add = parser.add_argument
    add("--port", type=int, default=8088, help="port of the gateway (default %(default)s, 0: a free one)")
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--foreign-port", type=int, default=0, help="port of the second origin, which serves the files")
    add("--output-origin", help="origin that file addresses name, if other than the second origin")
    add("--speed", type=float, default=1.0, help="divides all run times")
    add("--run-time", type=float, help="a fixed run time in seconds")
    add("--key", default="emulator-key", help="the key to accept; an empty one accepts any key")
    add("--shape", choices=SHAPES, default="prediction", help="shape of the gateway's query responses")
    add("--created-status", type=int, choices=CREATED_STATUSES, help="HTTP status of a create")
    add("--cancel", choices=CANCELS, default="works", help="what the gateway's cancel does")
    add("--alias", action="store_true", help="name an internal alias in 'model'")
    add("--fault", type=fault_rule, action="append", default=[], metavar="ON:FAULT[:PROB]", help="may be repeated")
    add("--outcome", type=outcome_rule, action="append", default=[], metavar="OUTCOME[:PROB]", help="may be repeated")
    add("--seed", type=int, default=0, help="seeds run times and chances")
    add("--output-life", type=float, default=3600.0, help="seconds that outputs are kept")
    add("--creates-per-minute", type=float, help="rate limit on creates")
    add("--small-pictures", action="store_true", help="draw thumbnails, for load tests")
    add("--tls-cert", help="certificate file, to serve https")
    add("--tls-key", help="key file of the certificate")
    add("--log-requests", action="store_true", help="print a line per request")
    return parser


def _emulator(options: argparse.Namespace) -> Emulator:
    given = dict(vars(options))
    faults, outcomes, key = given.pop("fault"), given.pop("outcome"), given.pop("key")
    tls = (given.pop("tls_cert"), given.pop("tls_key"))
    log = functools.partial(print, flush=True) if given.pop("log_requests") else None
    emulator = Emulator(tls=tls if all(tls) else None, log=log, key=key or None, **given)
    for rule in faults:
        emulator.add_fault(rule)
    for rule in outcomes:
        emulator.add_outcome(rule)
    return emulator


def banner(url: str, foreign_url: str, key: str) -> str:
    """Write what a person needs to know to use the emulator; an empty key says that any is accepted."""
    connection = json.dumps({"conn_type": "flux", "host": url, "password": key or "any"}, separators=(",", ":"))
    return "\n".join(
        (
            "LOCAL STAND-IN for a FLUX gateway: no real model runs, nothing costs anything.",
            f"  gateway     {url}",
            f"  files       {foreign_url}  (the second origin, which also answers for foreign hosts)",
            f"  key         {key or '(any)'}",
            f"  connection  AIRFLOW_CONN_FLUX_DEFAULT='{connection}'",
            f"  ledger      {url}/_emulator/ledger",
            f"  control     GET {url}/_emulator/state; POST faults, outcomes, settings, finish, reset",
            "Stop it with Ctrl-C.",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulator until a signal ends it, and return the exit code."""
    options = _parser().parse_args(arguments)
    # blocked before the thread starts, so that sigwait below gets them and no handler can race with it
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        require_pillow()
        emulator = _emulator(options).start()
    except (PillowMissing, ValueError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot listen on {options.host}, port {options.port}: {error.strerror or error}")
    print(banner(emulator.url, emulator.foreign_url, options.key), flush=True)
    try:
        signal.sigwait(END_SIGNALS)
    finally:
        emulator.stop()
    print("The local stand-in has ended.", flush=True)
    return 0


def _fail(message: str) -> int:
    print(f"{NAME}: {message}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
