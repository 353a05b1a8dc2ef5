"""The command line: ``python -m airflow_provider_flux.emulator --port 8088``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

from airflow_provider_flux.emulator.drawing import PillowMissing, require_pillow
from airflow_provider_flux.emulator.faults import FAULTS, FILE_FAULTS, FaultRule
from airflow_provider_flux.emulator.outcomes import OUTCOMES, OutcomeRule
from airflow_provider_flux.emulator.server import Emulator
from airflow_provider_flux.emulator.settings import CANCELS, CREATED_STATUSES, SHAPES

EXIT_USAGE = 2
NAME = "python -m airflow_provider_flux.emulator"
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def fault_rule(text: str) -> FaultRule:
    """Read ``ON:FAULT`` or ``ON:FAULT:PROBABILITY``; such a rule always applies.

    :param text: the option's value.
    """
    kind, _, rest = text.partition(":")
    fault, _, probability = rest.partition(":")
    return FaultRule(fault, kind, times=None, probability=float(probability or 1))


def outcome_rule(text: str) -> OutcomeRule:
    """Read ``OUTCOME`` or ``OUTCOME:PROBABILITY``; such a rule always applies.

    :param text: the option's value.
    """
    outcome, _, probability = text.partition(":")
    return OutcomeRule(outcome, times=None, probability=float(probability or 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="A local stand-in for a FLUX gateway: no real model, no cost.",
        epilog=f"Faults: {', '.join(FAULTS)}. On files: {', '.join(FILE_FAULTS)}. Outcomes: {', '.join(OUTCOMES)}.",
    )
    parser.add_argument(
        "--port", type=int, default=8088, help="port of the gateway (default %(default)s, 0: a free one)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--foreign-port", type=int, default=0, help="port of the second origin, which serves the files")
    parser.add_argument("--output-origin", help="origin that file addresses name, if other than the second origin")
    parser.add_argument("--speed", type=float, default=1.0, help="divides all run times")
    parser.add_argument("--run-time", type=float, help="a fixed run time in seconds")
    parser.add_argument("--key", default="emulator-key", help="the key to accept; an empty one accepts any key")
    parser.add_argument("--shape", choices=SHAPES, default="prediction", help="shape of the gateway's query answers")
    parser.add_argument("--created-status", type=int, choices=CREATED_STATUSES, help="HTTP status of a create")
    parser.add_argument("--cancel", choices=CANCELS, default="works", help="what the gateway's cancel does")
    parser.add_argument("--alias", action="store_true", help="name an internal alias in 'model'")
    parser.add_argument(
        "--fault", type=fault_rule, action="append", default=[], metavar="ON:FAULT[:PROB]", help="may be repeated"
    )
    parser.add_argument(
        "--outcome", type=outcome_rule, action="append", default=[], metavar="OUTCOME[:PROB]", help="may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds run times and chances")
    parser.add_argument("--output-life", type=float, default=3600.0, help="seconds that outputs are kept")
    parser.add_argument("--creates-per-minute", type=float, help="rate limit on creates")
    parser.add_argument("--small-pictures", action="store_true", help="draw thumbnails, for load tests")
    parser.add_argument("--tls-cert", help="certificate file, to serve https")
    parser.add_argument("--tls-key", help="key file of the certificate")
    parser.add_argument("--log-requests", action="store_true", help="print a line per request")
    return parser


def _emulator(options: argparse.Namespace) -> Emulator:
    names = (
        "speed",
        "run_time",
        "shape",
        "created_status",
        "cancel",
        "alias",
        "seed",
        "output_life",
        "creates_per_minute",
        "small_pictures",
        "output_origin",
    )
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    emulator = Emulator(
        host=options.host,
        port=options.port,
        foreign_port=options.foreign_port,
        tls=(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None,
        log=_print_line if options.log_requests else None,
        key=options.key or None,
        **settings,
    )
    for rule in options.fault:
        emulator.add_fault(rule)
    for rule in options.outcome:
        emulator.add_outcome(rule)
    return emulator


def _print_line(line: str) -> None:
    print(line, flush=True)


def banner(url: str, foreign_url: str, key: str) -> str:
    """Write what a person needs to know to use the emulator.

    :param url: the gateway origin.
    :param foreign_url: the second origin.
    :param key: the key to use; empty when any is accepted.
    """
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
    """Run the emulator until a signal ends it.

    :param arguments: the command line; ``None`` takes the process's own.
    :returns: the exit code.
    """
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
