"""The faults that a request can meet, by name."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_flux.emulator.rules import Rule, Subject

AFTER_ACCEPT = "_after_accept"

# Answered instead of the request; nothing is accepted.
STATUS_FAULTS = (
    "400",
    "401",
    "402",
    "403",
    "403_quota",
    "404",
    "408",
    "409",
    "413",
    "422",
    "429",
    "429_header",
    "429_date",
    "429_body",
    "429_text",
    "429_upstream",
    "500",
    "500_invalid_request",
    "502",
    "503",
    "503_model_not_found",
    "504",
    "524",
)
SHAPE_FAULTS = (
    "html",
    "redirect",
    "redirect_302",
    "redirect_307",
    "wrong_shape",
    "not_an_object",
    "null_body",
    "empty",
    "failure_in_200",
    "empty_envelope",
    "huge_body",
)
WIRE_FAULTS = ("hang", "reset_before_accept", "truncated_json", "cut_body", "slow")
# Carried out first, then the answer is lost: a create made its prediction.
LOST_ANSWERS = (
    "hang",
    "reset",
    "truncated",
    "cut_body",
    "500",
    "502",
    "503",
    "504",
    "524",
    "html",
    "redirect",
    "wrong_shape",
    "empty",
    "failure_in_200",
    "huge_body",
)
FAULTS = (*STATUS_FAULTS, *SHAPE_FAULTS, *WIRE_FAULTS, *(name + AFTER_ACCEPT for name in LOST_ANSWERS))
# Only files meet these. They are no part of FAULTS, from which seeded plans are drawn: a new entry would change them.
FILE_FAULTS = (
    "gone",
    "svg",
    "wrong_type",
    "cut_unannounced",
    "endless",
    "trickle",
    "redirect_metadata",
    "redirect_private",
)
FAULT_KINDS = ("create", "get", "cancel", "list", "file", "models", "balance", "other", "any")


@dataclass(frozen=True)
class FaultRule(Rule):
    """Plays a fault on matching requests.

    :param fault: a name from :data:`FAULTS`, or from :data:`FILE_FAULTS` on ``file``.
    :param on: the kind of request, one of :data:`FAULT_KINDS`.
    :param retry_after: seconds named by the hint of a 429, where ``None`` stands for 1; a 503 hints only when set.
    :param delay: seconds that the ``slow`` fault adds.
    """

    fault: str
    on: str = "create"
    retry_after: float | None = None
    delay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a fault or a kind of request that does not exist."""
        super().__post_init__()
        if self.fault not in (*FAULTS, *FILE_FAULTS):
            raise ValueError(f"unknown fault {self.fault!r}; known are {', '.join((*FAULTS, *FILE_FAULTS))}")
        if self.fault in FILE_FAULTS and self.on != "file":
            raise ValueError(f"only a file can meet the fault {self.fault!r}")
        if self.on not in FAULT_KINDS:
            raise ValueError(f"unknown kind of request {self.on!r}; known are {', '.join(FAULT_KINDS)}")

    def matches(self, subject: Subject) -> bool:
        """Tell whether the rule speaks about this request.

        :param subject: the request at hand.
        """
        return self.on in ("any", subject.on) and super().matches(subject)

    @property
    def after_accept(self) -> bool:
        """Whether the request is carried out before its answer is lost."""
        return self.fault.endswith(AFTER_ACCEPT)

    @property
    def base(self) -> str:
        """The fault without the moment at which it strikes."""
        return self.fault.removesuffix(AFTER_ACCEPT).removesuffix("_before_accept").removesuffix("_json")
