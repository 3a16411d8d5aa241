"""What training one model asks of a device, counted without training it."""

from __future__ import annotations

import msgspec


class Demand(msgspec.Struct, frozen=True):
    """One model in training as its code would hold it, in bytes.

    weights       as training computes with them
    twins         float32 twins of bfloat16 weights; 0 in other number formats
    gradients     as the optimizer takes them
    moments       of AdamW
    activations   the most that lives beside those during a step, in forward or backward
    evaluation    the most that lives beside the float32 weights while full rows are answered
    resident      what a process of ours holds before it has a model; `private` of it is shared with no other

    `params` are all parameters; `flops` the floating-point operations of a token's forward and backward pass
    that torch knows a formula for; `rate` those a second that this device reaches in a large product of
    matrices, None where the count was made for another device. `device` is `cpu` or `cuda`.
    """

    device: str
    params: int
    weights: int
    twins: int
    gradients: int
    moments: int
    activations: int
    evaluation: int
    resident: int
    private: int
    flops: float
    rate: float | None = None

    @property
    def state(self) -> int:
        """What stays from step to step."""
        return self.weights + self.twins + self.gradients + self.moments

    @property
    def training(self) -> int:
        """The most that a step holds."""
        return self.state + self.activations

    @property
    def answering(self) -> int:
        """The most that answering the scorer holds, once training is over."""
        return 4 * self.params + self.evaluation

    @property
    def peak(self) -> int:
        """The most that a trial holds of the device."""
        return max(self.training, self.answering)
