"""The only retry layer: which faults are tried again, when, and how often."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import numpy as np
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt
from tenacity.stop import stop_before_delay

from evolve.llm.exchange import Reason
from evolve.llm.settings import LlmSettings

RETRYABLE = frozenset({Reason.RATE_LIMITED, Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION})


@dataclass(frozen=True)
class Fault:
    """Why one attempt gave no answer. `retry_after`: seconds that the endpoint asked to wait.

    `begun`: part of the answer had arrived; it is paid for, so it is not asked for again.
    """

    reason: Reason
    detail: str = ""
    retry_after: float | None = None
    begun: bool = False

    @property
    def retryable(self) -> bool:
        return self.reason in RETRYABLE and not self.begun


def retrying(settings: LlmSettings, remaining_s: float, rng: np.random.Generator) -> AsyncRetrying:
    """Calls an attempt again while it returns a retryable Fault, and returns the last result.

    No attempt starts after `remaining_s`; when the next would, the fault is returned at once.
    """

    def wait(state: RetryCallState) -> float:
        fault = _fault(state)
        jitter = float(rng.random())
        if fault is not None and fault.retry_after is not None:
            return fault.retry_after + jitter * settings.backoff_s
        exponent = min(state.attempt_number - 1, 30)
        longest = min(settings.backoff_max_s, settings.backoff_s * 2.0**exponent)
        return longest * (0.5 + jitter / 2)

    return AsyncRetrying(
        retry=retry_if_result(lambda result: isinstance(result, Fault) and result.retryable),
        stop=stop_after_attempt(settings.attempts) | stop_before_delay(remaining_s),
        wait=wait,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )


def _fault(state: RetryCallState) -> Fault | None:
    result = state.outcome.result() if state.outcome else None
    return result if isinstance(result, Fault) else None


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (seconds or an HTTP date); None without."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError, OSError):
        return None
