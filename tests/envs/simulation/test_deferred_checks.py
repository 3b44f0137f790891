"""What is wrong is raised at once on the CPU, and on a GPU as soon as the answer has come by itself."""

import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation import deferred_checks as module
from recloop.envs.simulation.deferred_checks import DeferredChecks

YES, NO = torch.tensor(True), torch.tensor(False)


class LateEvent:
    """Stands for a CUDA event: the copies before it have arrived once `there` is set."""

    there = False

    def record(self) -> None: ...

    def query(self) -> bool:
        return LateEvent.there


def said(what: str) -> RecloopError:
    return RecloopError(what)


def test_on_the_cpu_a_fault_is_raised_at_once() -> None:
    faults = DeferredChecks(torch.device("cpu"))
    faults.look(NO, lambda: said("nothing"))
    with pytest.raises(RecloopError, match="here"):
        faults.look(YES, lambda: said("here"))


def test_on_a_gpu_a_fault_is_raised_by_the_first_look_after_its_answer_came(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty
    monkeypatch.setattr(module.torch.cuda, "Event", LateEvent)
    monkeypatch.setattr(module.torch, "empty", lambda shape, dtype, pin_memory: real(shape, dtype=dtype))
    monkeypatch.setattr(LateEvent, "there", False)
    faults = DeferredChecks(torch.device("cuda"))
    for wrong, what in ((NO, "first"), (YES, "second"), (YES, "third")):
        faults.look(wrong, lambda what=what: said(what))  # nobody waits
    LateEvent.there = True
    with pytest.raises(RecloopError, match="second"):
        faults.look(NO, lambda: said("fourth"))
    faults.look(NO, lambda: said("fifth"))  # what came of the fault is not told again
