"""A language model with honest mistakes, for whole searches: what it answers in one night of ten candidates.

    1   a good idea, the file by a tool
    2   a mean over the whole sequence: the checker is told, and makes it a running mean
    3   a wrong axis: the debugger is told, and mends it by an edit
    4   the idea of 1 again; asked for another one, it has one
    5   no tools, and the answer is cut off in the middle of the file
    6   prose instead of a tool call; reminded, it calls the tool
    7   a reasoning model without tools and with careless JSON
    8   nothing usable however often it is asked
    9   an import that is out of bounds, mended by the checker
    10  a file that cannot run, and repairs that do not help

`answer` plays it in the process; `serve` puts it behind a real server that speaks OpenAI's protocol.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from asi_lab.common.syntax import without_prose
from asi_lab.llm import prompting
from asi_lab.llm.model import Call, Message, Reply, ToolCall
from asi_lab.scoring import references

CANDIDATES = 10
SEED = references.source("delta_net")
ROLES = {prompt.system: name for name, prompt in prompting.load_all().items()}


def changed(*edits: tuple[str, str]) -> str:
    """The seed's code with some lines replaced."""
    code = SEED
    for old, new in edits:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


BETA = "        self.beta_proj = nn.Linear(width, num_heads, bias=False)\n"
NORM = "        o = rms_norm(o, self.norm_weight, self.norm_eps)\n"
STRENGTH = "        beta = torch.sigmoid(self.beta_proj(x))\n"
GATE = BETA + "        self.gate_proj = nn.Linear(width, num_heads, bias=False)\n"


def gated(line: str) -> str:
    """The seed with a projection per head, used in `line` behind the norm of the output."""
    return changed((BETA, GATE), (NORM, NORM + line))


LINES = {
    1: "        o = o * torch.sigmoid(self.gate_proj(x)).unsqueeze(-1)\n",
    2: "        o = o + torch.tanh(self.gate_proj(x)).unsqueeze(-1) * v.mean(dim=1, keepdim=True)\n",
    3: "        o = o * torch.sigmoid(self.gate_proj(x)).unsqueeze(1)\n",
    4: "        o = o * (1.0 + torch.tanh(self.gate_proj(x)).unsqueeze(-1))\n",
    5: "        o = o + torch.sigmoid(self.gate_proj(x)).unsqueeze(-1) * v\n",
    6: "        o = o * torch.nn.functional.softplus(self.gate_proj(x)).unsqueeze(-1)\n",
    7: "        o = o - 0.5 * torch.sigmoid(self.gate_proj(x)).unsqueeze(-1) * q\n",
    9: "        o = o * torch.exp(-torch.relu(self.gate_proj(x))).unsqueeze(-1)\n",
    10: "        o = o * missing_name(self.gate_proj(x)).unsqueeze(-1)\n",
}
RUNNING = (
    "        count = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)[:, None, None]\n"
    "        o = o + torch.tanh(self.gate_proj(x)).unsqueeze(-1) * (v.cumsum(dim=1) / count)\n"
)
IDEAS = {
    1: "A sigmoid gate for every head on the normalised output lets a token shut heads whose memory holds "
    "nothing for it, which the seed cannot: every read goes out at full size, useful or not.",
    2: "The values' average over the text is a summary of the topic that a matrix memory spreads thinly; "
    "adding it head by head helps tokens that need the theme more than a single association.",
    3: "Scaling reads per position damps punctuation and function words, whose recalls are noise in the "
    "residual stream, and leaves nouns and names alone, on which the next words depend.",
    4: "Tanh centred at one makes amplification possible as well as damping: heads with sharp recall may "
    "speak louder than the norm allows, so rare but certain retrievals win over many vague ones.",
    5: "A direct path carries the token's own value around the memory, so that local content need not be "
    "written into the state and read again, which frees capacity for associations over long distances.",
    6: "Softplus keeps the amplitude positive and without an upper end, which preserves the sign of what was "
    "retrieved while confident queries scale linearly with their evidence instead of saturating.",
    7: "Subtracting a share of the query removes the component of the answer that merely echoes the "
    "question, a bias of normalised lookups that wastes channels of the projection behind them.",
    9: "An exponential penalty on surprising tokens mutes retrieval exactly where the features fire hard, "
    "acting as a soft refusal when keys collide in the memory.",
    10: "A learned squashing of unknown form might interpolate between all gates that were tried so far and "
    "choose its shape by gradient descent alone, letting depth decide its steepness.",
}


def call_tool(**arguments: str) -> Reply:
    """A call of the one tool."""
    return Reply("", (ToolCall("write_code_file", dict(arguments)),), "calls")


NAMES = {number: f"delta_net_night_{number}" for number in range(1, CANDIDATES + 1)}


def final(number: int, idea: int | None = None) -> str:
    """The closing object of a plan."""
    plan = {
        "name": NAMES[number],
        "motivation": IDEAS[idea or number],
        "change": f"mechanism {number} behind the output norm",
    }
    return json.dumps(plan)


def block(code: str) -> str:
    """A fenced file."""
    return f"```python\n{code}```\n"


def plans() -> dict[int, list[Reply]]:
    """The planner's replies, by candidate."""
    whole = f"{block(gated(LINES[5]))}\n```json\n{final(5)}\n```"
    cut = whole.index("def forward(\n")
    thoughts = "<think>The user wants one change. {not json} Let me see...</think>\n"
    careless = final(7).replace('"}', '",}').replace('{"name"', "{'name'")
    importing = gated(LINES[9]).replace("from typing import Any\n", "import os\nfrom typing import Any\n", 1)
    tooled = {n: [call_tool(content=gated(LINES[n])), Reply(final(n))] for n in (1, 2, 3, 10)}
    return tooled | {
        4: [call_tool(content=gated(LINES[4])), Reply(final(4, idea=1))],
        5: [Reply(whole[:cut], finish="length"), Reply(whole[cut:])],
        6: [
            Reply(f"I would gate the output. {final(6)}"),
            call_tool(content=gated(LINES[6])),
            Reply(final(6)),
        ],
        7: [Reply(f"{thoughts}{block(gated(LINES[7]))}\n{careless}")],
        8: [Reply("As a language model I like gates.")] * 3,
        9: [call_tool(content=importing), Reply(final(9))],
    }


DONE = Reply(json.dumps({"fixed": True, "changes": "put right what was measured"}))


def repairs() -> dict[int, list[Reply]]:
    """The replies of checker and debugger, by candidate; the last one is repeated."""

    def edit(old: str, new: str) -> str:
        return f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"

    return {
        2: [call_tool(content=gated(RUNNING)), DONE],
        3: [call_tool(edits=edit(LINES[3], LINES[3].replace("unsqueeze(1)", "unsqueeze(-1) ** 2"))), DONE],
        9: [call_tool(edits=edit("import os\n", "")), DONE],
        10: [call_tool(content=gated(LINES[10] + "        o = o + 0.0\n")), DONE],
    }


OPINION = {
    "complexity_reason": "fewer parts than the reference",
    "complexity": 7,
    "efficiency_reason": "as fast",
    "efficiency": 6,
    "novelty_reason": "known elsewhere",
}
REFERENCES = {"delta_net": 5, "gated_delta_net": 9}
"""What this judge gives to the two references, in every part."""
MARKED = ("complexity", "efficiency", "novelty")
SECTION = "The measured table shows it; a difference within noise is none."
ANALYSIS = {
    "design_evaluation": SECTION,
    "experimental_results_with_ablation": SECTION,
    "expectation_vs_reality": SECTION,
    "theoretical_explanation_with_evidence": SECTION,
    "synthesis_and_insights": SECTION,
    "weaknesses": ["recall over long distances"],
}


class Night:
    """Answers by role; the number of the plan is that of the candidate."""

    def __init__(self) -> None:
        self._plans, self._repairs = plans(), repairs()
        self._number = self._mended = 0
        self._marks = iter(range(10_000))
        self.asked: list[str] = []

    def __call__(self, messages: Sequence[Message], call: Call | None = None) -> Reply:
        """The next reply in a conversation."""
        del call
        role = ROLES.get(messages[0].content, "greeting")
        if messages[-1].role == "user" and len(messages) <= 2:
            self.asked.append(role)
        if role == "planner":
            if len(messages) == 2:
                self._number += 1
            return self._plans[self._number].pop(0)
        if role == "planner_after_duplicate":
            return call_then(messages, gated(LINES[4]), final(4))
        if role in ("checker", "debugger"):
            if len(messages) == 2:
                self._mended += 1
            other = gated(LINES[self._number] + f"        o = o * {1 + self._mended / 100}\n")
            code, said = self._repairs.get(self._number, [call_tool(content=other), DONE])
            return code if len(messages) == 2 else said
        if role == "judge":
            for name, mark in REFERENCES.items():
                if without_prose(references.source(name)) in messages[1].content:
                    return Reply(json.dumps(OPINION | dict.fromkeys(MARKED, mark)))
            return Reply(json.dumps(OPINION | {"novelty": 4 + next(self._marks) % 3}))
        answers: dict[str, Any] = {
            "novelty": {"reason": "another mechanism", "is_repeated": False, "repeated_ids": []},
            "summariser": {"experience": "Gates on the output lowered the loss."},
            "analyst": ANALYSIS,
            "components": {"components": [{"family": "gating", "label": "sigmoid per head"}]},
            "provenance": {"reason": "nothing of it was read", "origin": "originality"},
        }
        return Reply(json.dumps(answers[role]) if role in answers else "ready")


def call_then(messages: Sequence[Message], code: str, said: str) -> Reply:
    """First the file, then the closing object."""
    return call_tool(content=code) if len(messages) == 2 else Reply(said)


@contextmanager
def serve(night: Night, *, echo: bool = False) -> Iterator[str]:
    """Put a night behind a server on this machine; gives the address for `openai_base_url`. With `echo` it
    says the key that it was given in its analyses."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages = [Message(m["role"], m.get("content") or "") for m in body["messages"]]
            with lock:
                reply = night(messages)
            if echo:
                key = self.headers["Authorization"].removeprefix("Bearer ")
                reply = msgspec.structs.replace(reply, text=reply.text.replace(SECTION, f"{SECTION} {key}"))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for part in _events(reply):
                self.wfile.write(b"data: " + json.dumps(part).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _events(reply: Reply) -> Iterator[dict[str, Any]]:
    head = {"id": "night", "object": "chat.completion.chunk", "created": 0, "model": "night"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    for start in range(0, len(reply.text), 500):
        yield chunk({"role": "assistant", "content": reply.text[start : start + 500]})
    for index, one in enumerate(reply.calls):
        function = {"name": one.name, "arguments": json.dumps(one.arguments)}
        yield chunk(
            {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": function}]}
        )
    yield chunk({}, {"stop": "stop", "length": "length", "calls": "tool_calls"}[reply.finish])
    yield head | {
        "choices": [],
        "usage": {"prompt_tokens": 900, "completion_tokens": 300, "total_tokens": 1200},
    }
