"""What can go wrong while integrating.

Each error names the time, the step, the sample and the knob, and carries what was computed until then.
"""

from typing import Any


class IntegrationError(RuntimeError):
    """An integration did not reach its end; `trajectory` holds what it did reach, with NaN at the saves it did not."""

    def __init__(
        self, message: str, *, t: float, step: int, sample: tuple[int, ...], part: str = "", trajectory: Any = None
    ) -> None:
        super().__init__(message)
        self.t = t
        self.step = step
        self.sample = sample
        self.part = part
        self.trajectory = trajectory


class StepSizeUnderflow(IntegrationError):
    """No step above `dt_min` meets the tolerances."""


class MaxStepsReached(IntegrationError):
    """A sample used up `max_steps` accepted and rejected steps."""


class NonFiniteState(IntegrationError):
    """The state became NaN or infinite."""
