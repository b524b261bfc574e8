"""Requests to stop: SIGINT (Ctrl-C), SIGTERM (a scheduler), SIGHUP (a closed terminal)."""

import signal
from contextlib import suppress
from types import FrameType
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_SECONDS = 60


class StopSignals:
    """Context in which the first stop signal is noted in `received`; a second one of its kind ends the process.

    A signal that the process ignores (SIGHUP under `nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the first signal; 0 if there was none."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        with suppress(ValueError):  # only the main thread has signal handlers
            heeded = [number for number in STOP if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        signal.signal(number, self._previous[number])


def outlive_stop_signals(worker: int) -> None:
    """Set up a loader process: terminals and schedulers signal it too, and the last step still needs its batches.

    SIGTERM is obeyed after a minute, in case the training process is gone.
    """
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
