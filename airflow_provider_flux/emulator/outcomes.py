"""How a prediction ends, other than well."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_flux.emulator.rules import Rule

SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELED = "canceled"
ABORTED = "aborted"
STARTING = "starting"
PROCESSING = "processing"
TERMINAL = frozenset({SUCCEEDED, FAILED, CANCELED, ABORTED})
UNKNOWN_STATUS = "hibernating"

SENSITIVE = "The input or output was flagged as sensitive. Please try again with different inputs. (E005) ({reference})"
ALL_NSFW = "All generated images contained NSFW content. Try running it again with a different prompt."
INTERRUPTED = "Prediction interrupted; please retry (code: PA)"
DIRECTOR = "Director: unexpected error handling prediction ({code})"


@dataclass(frozen=True)
class Outcome:
    """What becomes of a prediction.

    :param name: the outcome's name in rules and in the ledger.
    :param status: the status at the end.
    :param error: text in ``error``; ``{reference}`` is filled in per prediction.
    :param log: a line added to ``logs`` at the end.
    :param output: what ``output`` holds after success: ``url``, ``data``, ``none``, ``empty``, ``short`` (one
        picture less), ``other_kind`` (a list in place of a string and the other way round).
    :param picture: what the file holds: ``normal``, ``black`` or ``other_format``.
    :param stays: the status in which it remains for ever.
    :param early: whether ``output`` is filled while the status is still ``processing``.
    :param forgotten: whether every query says that the id is unknown.
    :param removed: whether the data are gone as soon as it ends.
    """

    name: str
    status: str = SUCCEEDED
    error: str | None = None
    log: str = ""
    output: str = "url"
    picture: str = "normal"
    stays: str | None = None
    early: bool = False
    forgotten: bool = False
    removed: bool = False

    @property
    def moderated(self) -> bool:
        """Whether the content was refused."""
        return self.name in {"E005", "NSFW"}


def _failure(name: str, error: str | None, log: str = "") -> Outcome:
    return Outcome(name, status=FAILED, error=error, log=log)


def _director(code: str) -> Outcome:
    return _failure(code, DIRECTOR.format(code=code))


# Codes and texts: replicate.com/docs/reference/error-codes, replicate/cog-flux predict.py and replicate-python
# issue 453. The pages give a text for E005, PA, E9828 and the NSFW refusal; the others are worded alike.
_OUTCOMES = (
    Outcome("succeeded"),
    _failure("E005", SENSITIVE),
    _failure("NSFW", ALL_NSFW),
    _failure("PA", INTERRUPTED),
    _director("E1000"),
    _failure("E1001", "Out of memory. (E1001)"),
    _director("E6716"),
    _director("E8367"),
    _director("E8765"),
    _director("E9243"),
    _director("E9825"),
    _director("E9828"),
    _failure("E001", "ModelError: the model could not make a prediction. (E001) ({reference})"),
    _failure("E003", "Service is in high demand. Please try again later. (E003) ({reference})"),
    _failure("E004", "Service is temporarily unavailable. Please try again later. (E004) ({reference})"),
    _failure("KeyError", "KeyError: 'sample'"),
    _failure("code_in_logs", "Prediction failed.", log=DIRECTOR.format(code="E9828")),
    _failure("failed_without_error", None),
    Outcome("aborted", status=ABORTED),
    Outcome("canceled", status=CANCELED),
    Outcome("stuck", stays=PROCESSING),
    Outcome("stuck_starting", stays=STARTING),
    Outcome("unknown_status", status=UNKNOWN_STATUS, output="none"),
    Outcome("forgotten", forgotten=True),
    Outcome("data_removed", removed=True),
    Outcome("data_uri", output="data"),
    Outcome("null_output", output="none"),
    Outcome("empty_list", output="empty"),
    Outcome("short_list", output="short"),
    Outcome("other_kind", output="other_kind"),
    Outcome("other_format", picture="other_format"),
    Outcome("black_image", picture="black"),
    Outcome("early_output", early=True),
)
OUTCOMES: dict[str, Outcome] = {outcome.name: outcome for outcome in _OUTCOMES}


@dataclass(frozen=True)
class OutcomeRule(Rule):
    """Decides how matching predictions end.

    :param outcome: a name from :data:`OUTCOMES`.
    """

    outcome: str

    def __post_init__(self) -> None:
        """Refuse an outcome that does not exist."""
        super().__post_init__()
        if self.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {self.outcome!r}; known are {', '.join(OUTCOMES)}")
