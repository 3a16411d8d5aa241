"""How busy the trial slot is while models think: python benchmarks/ahead.py [CANDIDATES]

Trials are simulated and take a second. A model takes twice as long for a candidate, in all of its calls:
half for the plan, half for judge and analyst. Once with nothing beside the trial, once with four at a time.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab import engine
from asi_lab.lab import Store
from asi_lab.llm.model import Call, Message, Reply
from asi_lab.llm.scripted import Scripted
from tests import night, simulated_engine

TRIAL_SECONDS = 1.0
STAGES = 9  # at which a simulated trial stands still
WARM_UP = 8
LATENCY = {"planner": 1.0, "judge": 0.2, "analyst": 0.4}  # of the trial; the judge is asked three times
SETTINGS = """[baselines]
seeds = 2
max_seeds = 2
[agents]
models = ["openai:simulated"]
control = 0.0
repairs = 0
ahead = {ahead}
"""


class Thinker:
    """Plans a new gate each time, and takes its time."""

    def __init__(self) -> None:
        self._lock, self._plans = threading.Lock(), 0

    def __call__(self, messages: Sequence[Message], call: Call) -> Reply:
        """The next reply in a conversation."""
        role = night.ROLES.get(messages[0].content, "greeting")
        if role in LATENCY and len(messages) == 2:
            time.sleep(LATENCY[role] * TRIAL_SECONDS)
        if role != "planner":
            return night.Night()(messages, call)
        if len(messages) > 2:
            (number,) = re.findall(r"sigmoid\((\d+)\.0", messages[2].calls[0].arguments["content"])
            words = random.Random(int(number)).sample(range(10**6), 30)
            motivation = " ".join(f"word{word}" for word in words)
            plan = {"name": f"delta_net_gate_{number}", "motivation": motivation, "change": f"gate {number}"}
            return Reply(json.dumps(plan))
        with self._lock:
            self._plans += 1
            number = self._plans
        line = f"        o = o * torch.sigmoid({number}.0 + self.gate_proj(x)).unsqueeze(-1)\n"
        return night.call_tool(content=night.gated(line))


def busy(ahead: int, candidates: int) -> tuple[float, float]:
    """The share of time that the slot was busy after warm-up, and the seconds of a candidate."""
    with tempfile.TemporaryDirectory() as folder:
        lab = simulated_engine.make_lab(Path(folder), SETTINGS.format(ahead=ahead))
        executor = simulated_engine.SimulatedExecutor(TRIAL_SECONDS / STAGES)
        model = Scripted(Thinker(), "openai:simulated")
        engine.Engine(lab, simulated_engine.Silent(), executor, lambda name: model).search(candidates, None)
        with Store.open_readonly(lab.store) as store:
            events = store.events(0, 100_000)
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for event in events:
        state = event.data.get("state") if event.kind == "candidate_state" else None
        if event.candidate and event.candidate > WARM_UP and state:
            began.setdefault(event.candidate, event.time)
            if state not in ("judged", "analysed"):
                ended[event.candidate] = event.time
    spent = sum(ended[number] - began[number] for number in began)
    whole = max(ended.values()) - min(began.values())
    return spent / whole, whole / len(began)


def main() -> None:
    candidates = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    print(
        "| planned, judged and explained beside a trial | slot busy | seconds a candidate |\n|---:|---:|---:|"
    )
    for ahead in (0, 4):
        share, seconds = busy(ahead, candidates)
        print(f"| {ahead} | {share:.1%} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
