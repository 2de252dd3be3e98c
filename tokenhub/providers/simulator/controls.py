"""What POST /control sets on a simulator: faults, pacing, keys, models, its health.

Knows nothing of connections or wire formats.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from tokenhub.providers.simulator import faults
from tokenhub.providers.simulator.content import MODELS, Pacing
from tokenhub.providers.simulator.faults import RANDOM, TRANSIENT, Fault

FAULTY_MODELS_MAX = 1000
PACES = ("chunks", "interval_ms", "latency_ms")
DIALECTS = ("openai", "vllm", "vllm-old")
DRAWS = 1 << 32


@dataclass(slots=True)
class Controls:
    """The settings of a simulator.

    Args:
        dialect: what OpenAI and vLLM both have speaks; models named vllm-… and sim-reason… always
            speak vLLM's.
        seed, drawn: the next draw of `random` follows from these two.
    """

    pacing: Pacing = field(default_factory=Pacing)
    api_key: str = ""
    models: list[dict[str, Any]] = field(default_factory=list)
    health_status: int = 200
    dialect: str = "openai"
    seed: int = 0
    drawn: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set_models(None)

    def apply(self, wanted: dict[str, Any]) -> None:
        """Set what a control request names; null takes a setting back.

        Raises:
            ValueError, TypeError: a value will not do.
        """
        if "fault" in wanted:
            self.set_fault(
                str(wanted.get("model", "*")),
                str(wanted["fault"] or ""),
                times=int(wanted.get("times") or 0),
                retry_after_secs=wanted.get("retry_after"),
            )
        paces = {name: wanted[name] for name in PACES if name in wanted}
        self.set_pacing(**{k: None if v is None else max(int(v), 0) for k, v in paces.items()})
        if "api_key" in wanted:
            self.api_key = str(wanted["api_key"] or "")
        if "models" in wanted:
            self._set_models(wanted["models"])
        if "health_status" in wanted:
            self.health_status = int(wanted["health_status"] or 200)
        if "dialect" in wanted:
            self._set_dialect(wanted["dialect"] or DIALECTS[0])
        if "seed" in wanted:
            self.seed, self.drawn = int(wanted["seed"] or 0), 0

    def set_fault(
        self, model: str, fault: str, *, times: int = 0, retry_after_secs: float | None = None
    ) -> None:
        """Make a model ("*": every model) fail; "" heals it.

        Args:
            times: how many of its next requests; 0 is all.

        Raises:
            ValueError: there is no such fault.
        """
        self.faults.pop(model, None)
        if fault and len(self.faults) < FAULTY_MODELS_MAX:
            self.faults[model] = faults.parse(fault)
            self.faults[model].times = times
            self.faults[model].retry_after_secs = retry_after_secs

    def set_pacing(self, **pacing: int | None) -> None:
        """Set `chunks`, `interval_ms`, `latency_ms` of all requests; None: as the model does."""
        if pacing:
            self.pacing = replace(self.pacing, **pacing)

    def find_fault(self, model: str, header: str) -> Fault | None:
        """What shall go wrong with a request.

        Raises:
            ValueError: the header or the model names a fault that there is not.
        """
        fault = self._named_fault(model, header)
        if fault is not None and fault.name == RANDOM:
            return self._draw(fault.number)
        return fault

    def _named_fault(self, model: str, header: str) -> Fault | None:
        if header:
            return faults.parse(header)
        name = model if model in self.faults else "*"
        fault = self.faults.get(name)
        if fault is not None:
            if fault.times == 1:
                del self.faults[name]
            fault.times -= 1 if fault.times else 0
            return fault
        if model.startswith("fault-"):
            return faults.parse(model.removeprefix("fault-"))
        return None

    def _draw(self, percent: int) -> Fault | None:
        self.drawn += 1
        digest = hashlib.sha256(b"%d %d" % (self.seed, self.drawn)).digest()
        if int.from_bytes(digest[:4]) * 100 >= percent * DRAWS:
            return None
        return faults.parse(TRANSIENT[int.from_bytes(digest[4:8]) % len(TRANSIENT)])

    def _set_models(self, models: list[Any] | None) -> None:
        listed = [{"id": name} for name in MODELS] if models is None else models
        named = [each if isinstance(each, dict) else {"id": str(each)} for each in listed]
        if not all(isinstance(each.get("id"), str) for each in named):
            raise ValueError("each of models needs an id")
        self.models = named

    def _set_dialect(self, dialect: str) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}")
        self.dialect = dialect
