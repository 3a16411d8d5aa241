"""Both clients over real sockets: what is common as one contract, then what is particular to each."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from typing import Any

import pytest

from asi_lab.errors import ConfigError
from asi_lab.llm import (
    Busy,
    Call,
    Cancelled,
    Message,
    ModelError,
    NoTools,
    NotReady,
    Reply,
    TokenUsage,
    Tool,
    ToolCall,
    TooLong,
    Unreachable,
)
from asi_lab.llm.ollama import Ollama, embed, installed
from asi_lab.llm.openai import OpenAI
from asi_lab.llm.wire import bare, said

ASK = [Message("system", "Be brief."), Message("user", "Grüße?")]
WRITE = Tool(
    "write_code",
    "Writes the file.",
    {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
)
CLOSED = {
    "type": "object",
    "properties": {"idea": {"type": "string"}},
    "required": ["idea"],
    "additionalProperties": False,
}
WIRE_TOOL = {
    "type": "function",
    "function": {"name": "write_code", "description": "Writes the file.", "parameters": WRITE.parameters},
}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def timeless(reply: Reply) -> Reply:
    assert 0.0 < reply.seconds < 30.0
    return Reply(reply.text, reply.calls, reply.finish, reply.usage)


class TestContract:
    """What holds whichever server answers."""

    def test_name(self, provider: Any, server: Any) -> None:
        assert provider.model(server.address, "a/b:30b").name == f"{provider.name}:a/b:30b"

    def test_text_comes_in_pieces_and_as_a_whole(self, provider: Any, server: Any) -> None:
        server.answer("Hel", "lo", " wörld\n")
        heard: list[str] = []
        reply = provider.model(server.address).complete(ASK, Call(on_text=heard.append))
        assert timeless(reply) == Reply("Hello wörld\n", (), "stop", TokenUsage(11, 7))
        assert heard == ["Hel", "lo", " wörld\n"]

    def test_thinking_is_no_part_of_the_text(self, provider: Any, server: Any) -> None:
        server.answer("Yes", thinking="Let me see.")
        heard: list[str] = []
        assert provider.model(server.address).complete(ASK, Call(on_text=heard.append)).text == "Yes"
        assert heard == ["Yes"]

    def test_plain_request(self, provider: Any, server: Any) -> None:
        server.answer("Hi")
        provider.model(server.address).complete(ASK, Call(temperature=0.25))
        (body,) = server.bodies
        assert body["model"] == "big:30b"
        assert body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Grüße?"},
        ]
        assert body["stream"] is True
        assert not body.get("tools")
        assert "format" not in body
        assert "response_format" not in body
        assert body.get("temperature", body.get("options", {}).get("temperature")) == 0.25

    def test_key_is_sent(self, provider: Any, server: Any) -> None:
        server.answer("Hi")
        provider.model(server.address).complete(ASK, Call())
        assert server.requests[0].headers["authorization"] == f"Bearer {provider.key}"

    def test_tools_are_offered(self, provider: Any, server: Any) -> None:
        server.answer("Hi")
        provider.model(server.address).complete(ASK, Call(tools=(WRITE,)))
        assert server.bodies[0]["tools"] == [WIRE_TOOL]

    def test_one_call(self, provider: Any, server: Any) -> None:
        server.answer(calls=[("write_code", {"code": "x = 'ä'\n"})])
        reply = provider.model(server.address).complete(ASK, Call(tools=(WRITE,)))
        (call,) = reply.calls
        assert (call.name, call.arguments) == ("write_code", {"code": "x = 'ä'\n"})
        assert (reply.text, reply.finish) == ("", "calls")

    def test_two_calls_beside_text(self, provider: Any, server: Any) -> None:
        server.answer("So: ", calls=[("write_code", {"code": "a" * 50}), ("read_code", {})])
        reply = provider.model(server.address).complete(ASK, Call(tools=(WRITE,)))
        assert [(c.name, c.arguments) for c in reply.calls] == [
            ("write_code", {"code": "a" * 50}),
            ("read_code", {}),
        ]
        assert (reply.text, reply.finish) == ("So: ", "calls")

    def test_cut_off_by_length(self, provider: Any, server: Any) -> None:
        server.answer("def f(", reason="length")
        reply = provider.model(server.address).complete(ASK, Call())
        assert (reply.text, reply.finish) == ("def f(", "length")

    def test_calls_cut_off_by_length(self, provider: Any, server: Any) -> None:
        server.answer(calls=[("read_code", {})], reason="length")
        assert provider.model(server.address).complete(ASK, Call(tools=(WRITE,))).finish == "length"

    def test_usage_may_be_absent(self, provider: Any, server: Any) -> None:
        server.answer("Hi", usage=None)
        assert provider.model(server.address).complete(ASK, Call()).usage == TokenUsage(None, None)

    @pytest.mark.parametrize(
        ("headers", "after"),
        [
            ({"Retry_After": "7"}, 7.0),
            ({"retry_after_ms": "1500", "Retry_After": "2"}, 1.5),
            ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
            ({"Retry_After": "-3"}, None),
            ({"Retry_After": "inf"}, None),
            ({}, None),
        ],
    )
    def test_too_many_requests(
        self, provider: Any, server: Any, headers: dict[str, str], after: float | None
    ) -> None:
        server.refuse(429, "slow down", **headers)
        with pytest.raises(Busy, match="slow down") as busy:
            provider.model(server.address).complete(ASK, Call())
        assert busy.value.after == after

    @pytest.mark.parametrize("status", [502, 503])
    def test_a_server_that_loads_is_not_ready(self, provider: Any, server: Any, status: int) -> None:
        server.refuse(status, "Loading model", Retry_After="2")
        with pytest.raises(NotReady) as fault:
            provider.model(server.address).complete(ASK, Call())
        where = provider.server(server.address)
        assert str(fault.value) == f"{where} is not ready ({status}): Loading model"
        assert fault.value.after == 2.0

    @pytest.mark.parametrize("status", [408, 500, 504])
    def test_faults_of_the_server_are_busy(self, provider: Any, server: Any, status: int) -> None:
        server.refuse(status, "out of memory")
        with pytest.raises(Busy, match=rf"\({status}\): out of memory"):
            provider.model(server.address).complete(ASK, Call())
        assert len(server.requests) == 1  # waiting is the business of others

    def test_a_refused_request_is_not_busy(self, provider: Any, server: Any) -> None:
        server.refuse(400, "no\x1b[31m such\nthing")
        with pytest.raises(ModelError) as fault:
            provider.model(server.address).complete(ASK, Call())
        where = provider.server(server.address)
        assert str(fault.value) == f"{where} refuses the request (400): no such thing"
        assert type(fault.value) is ModelError

    def test_missing_model(self, provider: Any, server: Any) -> None:
        server.refuse(404, "model 'big:30b' not found")
        with pytest.raises(ModelError) as fault:
            provider.model(server.address).complete(ASK, Call())
        advice = {
            "ollama": "Get it with `ollama pull big:30b`.",
            "openai": "Set agents.models to one that it lists.",
        }[provider.name]
        where = provider.server(server.address)
        assert str(fault.value) == f"{where} has no model big:30b: model 'big:30b' not found. {advice}"
        assert type(fault.value) is ModelError

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_access(self, provider: Any, server: Any, status: int) -> None:
        server.refuse(status, "no access")
        with pytest.raises(ModelError, match=rf"\({status}\)") as fault:
            provider.model(server.address).complete(ASK, Call())
        assert type(fault.value) is ModelError

    def test_no_tool_support(self, provider: Any, server: Any) -> None:
        server.refuse(400, "registry.ollama.ai/library/big:30b does not support tools")
        with pytest.raises(NoTools, match="cannot call tools"):
            provider.model(server.address).complete(ASK, Call(tools=(WRITE,)))

    def test_no_connection_is_busy(self, provider: Any) -> None:
        address = f"http://127.0.0.1:{closed_port()}"
        with pytest.raises(Unreachable) as busy:
            provider.model(address).complete(ASK, Call())
        advice = {
            "ollama": "is it running? Start it with `ollama serve`.",
            "openai": "check that it runs, and the network",
        }[provider.name]
        assert str(busy.value) == f"{provider.server(address)} cannot be reached; {advice}"

    def test_slow_pieces_are_waited_for(self, provider: Any, server: Any) -> None:
        server.answer(*"abcdef", pause=0.25)
        reply = provider.model(server.address).complete(ASK, Call(timeout=1.0))
        assert reply.text == "abcdef"
        assert reply.seconds > 1.0

    @pytest.mark.parametrize("pieces", [(), ("Hel",)])
    def test_silence_is_busy(self, provider: Any, server: Any, pieces: tuple[str, ...]) -> None:
        server.silence(*pieces)
        with pytest.raises(Busy) as busy:
            provider.model(server.address).complete(ASK, Call(timeout=0.3))
        assert str(busy.value) == f"{provider.server(server.address)} was silent for 0.3 s"
        assert server.hung_up.wait(20.0)

    @pytest.mark.parametrize("pieces", [(), ("Hel", "lo")])
    def test_broken_connection_is_busy(self, provider: Any, server: Any, pieces: tuple[str, ...]) -> None:
        server.cut(*pieces)
        with pytest.raises(Busy, match=r"^the connection to .* broke \("):
            provider.model(server.address).complete(ASK, Call())

    def test_an_answer_without_an_end_is_busy(self, provider: Any, server: Any) -> None:
        server.lines()
        with pytest.raises(Busy, match="broke off its answer before the end"):
            provider.model(server.address).complete(ASK, Call())

    @pytest.mark.parametrize("line", ['{"message": {"content', "[1, 2]", "7", '"text"', '{"message": 5}'])
    def test_garbled_lines_are_busy(self, provider: Any, server: Any, line: str) -> None:
        server.lines(line)
        with pytest.raises(Busy, match=r"cannot be read|before the end"):
            provider.model(server.address).complete(ASK, Call())

    def test_a_fault_in_the_middle_is_busy(self, provider: Any, server: Any) -> None:
        server.fault("the runner has stopped")
        with pytest.raises(Busy, match="the runner has stopped"):
            provider.model(server.address).complete(ASK, Call())

    @pytest.mark.parametrize("pieces", [(), ("",), (" ", "\n")])
    def test_empty_answers_are_busy(self, provider: Any, server: Any, pieces: tuple[str, ...]) -> None:
        server.answer(*pieces)
        with pytest.raises(Busy) as busy:
            provider.model(server.address).complete(ASK, Call())
        assert str(busy.value) == f"{provider.name}:big:30b gave an empty answer (it ended with 'stop')"

    @pytest.mark.parametrize("pieces", [(), ("Hel",)])
    def test_cancelling_ends_silence_at_once(
        self, provider: Any, server: Any, pieces: tuple[str, ...]
    ) -> None:
        server.silence(*pieces)
        call = Call()

        def cancel() -> None:
            while not server.requests:  # importing a client may take longer than any fixed wait
                time.sleep(0.05)
            time.sleep(0.3)
            call.cancelled.set()

        timer = threading.Thread(target=cancel, daemon=True)
        timer.start()
        with pytest.raises(Cancelled):
            provider.model(server.address).complete(ASK, call)
        assert server.hung_up.wait(20.0)  # so that the server stops working on it
        timer.join()

    def test_cancelling_in_the_middle_of_an_answer(self, provider: Any, server: Any) -> None:
        server.answer(*"abcdefgh", pause=0.1)
        heard: list[str] = []
        call = Call(on_text=lambda piece: (heard.append(piece), call.cancelled.set())[0])
        with pytest.raises(Cancelled):
            provider.model(server.address).complete(ASK, call)
        assert heard == ["a"]

    def test_cancelled_beforehand_asks_nothing(self, provider: Any, server: Any) -> None:
        call = Call()
        call.cancelled.set()
        with pytest.raises(Cancelled):
            provider.model(server.address).complete(ASK, call)
        assert server.requests == []

    def test_what_the_listener_raises_comes_through(self, provider: Any, server: Any) -> None:
        server.silence("Hel")

        def listen(piece: str) -> None:
            raise ValueError("no more")

        with pytest.raises(ValueError, match=r"^no more$"):
            provider.model(server.address).complete(ASK, Call(on_text=listen))
        assert server.hung_up.wait(20.0)

    def test_calls_at_the_same_time(self, provider: Any, server: Any) -> None:
        for _ in range(4):
            server.answer("a", "b", "c", pause=0.05)
        model, replies = provider.model(server.address), []
        threads = [
            threading.Thread(target=lambda: replies.append(model.complete(ASK, Call()).text))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == ["abc"] * 4

    @pytest.mark.parametrize("status", [0, 200, 400, 401, 404, 413, 422, 429, 500])
    def test_no_error_shows_the_key(self, provider: Any, server: Any, status: int) -> None:
        echo = f"bad key {provider.key}, again: {provider.key[:5]}\u200b{provider.key[5:]}"
        if status == 200:
            server.fault(echo)
        elif status == 0:
            server.answer(reason=echo)
        else:
            server.refuse(status, echo)
        model = provider.model(server.address)
        with pytest.raises(ModelError) as fault:
            model.complete(ASK, Call(tools=(WRITE,)))
        shown = [str(fault.value), repr(fault.value), *traceback.format_exception(fault.value)]
        shown += [repr(model), str(model), repr(fault.value.__cause__), repr(fault.value.__context__)]
        assert provider.key not in "".join(shown)


class TestOllama:
    """What only Ollama has."""

    def test_conversation_with_tools(self, server: Any) -> None:
        server.answer("Done")
        call = ToolCall("write_code", {"code": "x"}, "call_2_0")
        talk = [*ASK, Message("assistant", "", (call,)), Message("tool", "ok", (), "call_2_0", "write_code")]
        Ollama("m", server.address).complete(talk, Call(tools=(WRITE,)))
        assert server.bodies[0]["messages"][2:] == [
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "write_code", "arguments": {"code": "x"}}}],
            },
            {"role": "tool", "content": "ok", "tool_name": "write_code"},
        ]
        assert server.requests[0].path == "/api/chat"

    def test_schema_and_options(self, server: Any) -> None:
        server.answer('{"idea": "x"}')
        Ollama("m", server.address).complete(ASK, Call(schema=CLOSED, temperature=0.0))
        (body,) = server.bodies
        assert body["format"] == CLOSED
        assert body["options"] == {"temperature": 0.0, "num_ctx": 16384, "num_predict": 8192}
        assert body["keep_alive"] == "30m"

    def test_calls_have_no_id(self, server: Any) -> None:
        server.answer(calls=[("read_code", {"deep": {"n": [1]}})])
        reply = Ollama("m", server.address).complete(ASK, Call(tools=(WRITE,)))
        assert reply.calls == (ToolCall("read_code", {"deep": {"n": [1]}}, ""),)

    def test_window_grows_with_the_prompt_and_never_shrinks(self, server: Any) -> None:
        model = Ollama("m", server.address, context=40_000)
        for length in (10, 24_000, 30_000, 10, 200_000, 10):
            server.answer("Hi")
            model.complete([Message("user", "a" * length)], Call())
        windows = [body["options"]["num_ctx"] for body in server.bodies]
        assert windows == [16384, 16384, 32768, 32768, 40_000, 40_000]

    def test_window_counts_bytes_and_tools(self, server: Any) -> None:
        wide = Tool("t", "ü" * 13_000, {"type": "object", "properties": {}})
        for tools in ((), (wide,)):
            server.answer("Hi")
            Ollama("m", server.address).complete(ASK, Call(tools=tools))
        assert [body["options"]["num_ctx"] for body in server.bodies] == [16384, 32768]

    def test_a_small_context_is_kept_to(self, server: Any) -> None:
        server.answer("Hi")
        Ollama("m", server.address, context=2048).complete(ASK, Call())
        assert server.bodies[0]["options"]["num_ctx"] == 2048

    def test_host_from_the_environment(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OLLAMA_HOST", server.address.removeprefix("http://"))
        server.answer("Hi")
        assert Ollama("m").complete(ASK, Call()).text == "Hi"

    def test_no_tools_only_where_tools_were_sent(self, server: Any) -> None:
        server.refuse(400, "m does not support tools")
        with pytest.raises(ModelError) as fault:
            Ollama("m", server.address).complete(ASK, Call())
        assert type(fault.value) is ModelError

    @pytest.mark.parametrize("host", ["ftp://x", "127.0.0.1:port", "127.0.0.1:99999"])
    def test_wrong_host(self, host: str) -> None:
        with pytest.raises(ConfigError) as fault:
            Ollama("m", host)
        assert str(fault.value) == (
            "Ollama's server should be an address such as 127.0.0.1:11434 or http://host:11434; "
            f"found {host!r}. Set agents.ollama_host or OLLAMA_HOST."
        )

    def test_installed(self, server: Any) -> None:
        assert list(installed(server.address)) == ["big:30b", "small:1b"]
        assert [seen.path for seen in server.requests] == ["/api/tags"]

    def test_installed_without_server(self) -> None:
        port = closed_port()
        with pytest.raises(Busy) as busy:
            installed(f"127.0.0.1:{port}")
        assert str(busy.value) == (
            f"Ollama at 127.0.0.1:{port} cannot be reached; is it running? Start it with `ollama serve`."
        )

    def test_embed(self, server: Any) -> None:
        server.vectors = [[1, 0.5], [0.25, -1.0]]
        assert embed(server.address, "small:1b", ["a", "b"]) == [[1.0, 0.5], [0.25, -1.0]]
        (seen,) = server.requests
        assert seen.path == "/api/embed"
        assert seen.body == {"model": "small:1b", "input": ["a", "b"], "keep_alive": "30m"}

    def test_embed_nothing_asks_nothing(self, server: Any) -> None:
        assert embed(server.address, "small:1b", []) == []
        assert server.requests == []

    @pytest.mark.parametrize("vectors", [[[1.0]], [[1.0], [1.0, 2.0]]])
    def test_embed_of_the_wrong_shape(self, server: Any, vectors: list[list[float]]) -> None:
        server.vectors = vectors
        with pytest.raises(Busy, match=f"should give 2 vectors of one length; it gave {len(vectors)}"):
            embed(server.address, "small:1b", ["a", "b"])

    def test_embed_with_a_missing_model(self, server: Any) -> None:
        server.refuse(404, 'model "tiny" not found, try pulling it first')
        with pytest.raises(ModelError, match="`ollama pull tiny`"):
            embed(server.address, "tiny", ["a"])


class TestOpenAI:
    """What only OpenAI and compatible servers have."""

    def test_conversation_with_tools(self, server: Any) -> None:
        server.answer("Done")
        call = ToolCall("write_code", {"code": "x"}, "id_0")
        talk = [*ASK, Message("assistant", "", (call,)), Message("tool", "ok", (), "id_0", "write_code")]
        OpenAI("m", f"{server.address}/v1").complete(talk, Call(tools=(WRITE,)))
        function = {"name": "write_code", "arguments": '{"code": "x"}'}
        assert server.bodies[0]["messages"][2:] == [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "id_0", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "ok", "tool_call_id": "id_0"},
        ]
        assert server.requests[0].path == "/v1/chat/completions"

    def test_usage_is_asked_for(self, server: Any) -> None:
        server.answer("Hi")
        OpenAI("m", f"{server.address}/v1").complete(ASK, Call())
        assert server.bodies[0]["stream_options"] == {"include_usage": True}

    @pytest.mark.parametrize("strict", [True, False])
    def test_schema(self, server: Any, strict: bool) -> None:
        schema = CLOSED if strict else CLOSED | {"required": []}
        server.answer('{"idea": "x"}')
        OpenAI("m", f"{server.address}/v1").complete(ASK, Call(schema=schema))
        assert server.bodies[0]["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": strict},
        }

    def test_calls_keep_their_ids(self, server: Any) -> None:
        server.answer(calls=[("a", {"x": 1}), ("b", {})])
        reply = OpenAI("m", f"{server.address}/v1").complete(ASK, Call(tools=(WRITE,)))
        assert reply.calls == (ToolCall("a", {"x": 1}, "id_0"), ToolCall("b", {}, "id_1"))

    @pytest.mark.parametrize("text", ['{"code": "x', "[1, 2]", "print(1)"])
    def test_arguments_that_are_no_object_are_kept_as_written(self, server: Any, text: str) -> None:
        server.answer(calls=[("write_code", text)])
        reply = OpenAI("m", f"{server.address}/v1").complete(ASK, Call(tools=(WRITE,)))
        assert reply.calls == (ToolCall("write_code", {"_raw": text}, "id_0"),)

    def test_calls_without_index(self, server: Any) -> None:
        def delta(**call: Any) -> str:
            chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
            return str(chunk).replace("'", '"').replace("None", "null")

        end = '{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}'
        server.lines(
            delta(id="x", function={"name": "a", "arguments": "{"}),
            delta(function={"arguments": "}"}),
            delta(id="y", function={"name": "b", "arguments": "{}"}),
            end,
            pieces=(),
        )
        reply = OpenAI("m", f"{server.address}/v1").complete(ASK, Call(tools=(WRITE,)))
        assert reply.calls == (ToolCall("a", {}, "x"), ToolCall("b", {}, "y"))

    @pytest.mark.parametrize("parameter", ["stream_options", "response_format", "temperature"])
    @pytest.mark.parametrize("by_name", [True, False])
    def test_a_refused_parameter_is_left_out_for_good(
        self, server: Any, parameter: str, by_name: bool
    ) -> None:
        if by_name:
            server.refuse(400, "Unsupported value", param=parameter, code="unsupported_value")
        else:
            server.refuse(422, f"body.{parameter}: extra fields not permitted")
        server.answer("Hi")
        server.answer("Ho")
        model = OpenAI("m", f"{server.address}/v1")
        replies = [model.complete(ASK, Call(schema=CLOSED)).text for _ in range(2)]
        assert replies == ["Hi", "Ho"]
        assert [parameter in body for body in server.bodies] == [True, False, False]
        others = {"stream_options", "response_format", "temperature"} - {parameter}
        assert all(others < set(body) for body in server.bodies)

    def test_parameters_are_refused_one_after_the_other(self, server: Any) -> None:
        server.refuse(400, "unknown field stream_options")
        server.refuse(400, "unknown field temperature")
        server.answer("Hi")
        assert OpenAI("m", f"{server.address}/v1").complete(ASK, Call()).text == "Hi"
        assert set(server.bodies[2]) == {"model", "messages", "stream"}

    def test_a_server_that_refuses_regardless_is_given_up(self, server: Any) -> None:
        for _ in range(2):
            server.refuse(400, "temperature is wrong")
        with pytest.raises(ModelError, match=r"refuses the request \(400\): temperature is wrong"):
            OpenAI("m", f"{server.address}/v1").complete(ASK, Call())
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("Too many tokens in temperature.", "context_length_exceeded"),
            ("This model's maximum context length is 4096 tokens.", None),
        ],
    )
    def test_too_long(self, server: Any, message: str, code: str | None) -> None:
        server.refuse(400, message, code=code)
        with pytest.raises(TooLong) as fault:
            OpenAI("m", f"{server.address}/v1").complete(ASK, Call())
        assert str(fault.value) == f"the conversation is too long for openai:m: {message}"
        assert len(server.requests) == 1

    @pytest.mark.parametrize("in_the_middle", [False, True])
    def test_an_empty_account_is_not_busy(self, server: Any, in_the_middle: bool) -> None:
        if in_the_middle:
            server.fault("no credit", code="insufficient_quota")
        else:
            server.refuse(429, "no credit", code="insufficient_quota", Retry_After="3")
        with pytest.raises(ModelError, match="is used up: no credit") as fault:
            OpenAI("m", f"{server.address}/v1").complete(ASK, Call())
        assert type(fault.value) is ModelError

    def test_refused_key(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        server.refuse(401, "Incorrect API key provided: sk-w****")
        with pytest.raises(ModelError) as fault:
            OpenAI("m", f"{server.address}/v1").complete(ASK, Call())
        assert str(fault.value) == (
            f"OPENAI_API_KEY is refused by the model server at {server.address}/v1 (401). Set another key."
        )

    def test_no_key_is_needed_where_a_server_is_named(self, server: Any) -> None:
        server.answer("Hi")
        server.refuse(401, "who are you?")
        model = OpenAI("m", f"{server.address}/v1")
        assert model.complete(ASK, Call()).text == "Hi"
        assert server.requests[0].headers["authorization"] == "Bearer no-key"
        with pytest.raises(ModelError) as fault:
            model.complete(ASK, Call())
        assert str(fault.value) == (
            f"the model server at {server.address}/v1 asks for a key (401). Set OPENAI_API_KEY."
        )

    def test_server_from_the_environment(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.address}/v1")
        server.answer("Hi")
        assert OpenAI("m").complete(ASK, Call()).text == "Hi"

    def test_openai_itself_needs_a_key(self) -> None:
        with pytest.raises(ModelError, match="OPENAI_API_KEY; it is not set"):
            OpenAI("m")

    @pytest.mark.parametrize("key", ["sk-ä", "sk-a sk-b", "sk-a\nsk-b"])
    def test_malformed_keys_are_not_shown(self, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ModelError) as fault:
            OpenAI("m")
        assert str(fault.value) == (
            "OPENAI_API_KEY should be one word of plain characters; it holds others. Copy the key again."
        )

    @pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost", "http://", "http://x:port"])
    def test_wrong_address(self, address: str) -> None:
        with pytest.raises(ConfigError) as fault:
            OpenAI("m", address)
        assert str(fault.value) == (
            "an OpenAI-compatible server should be an address such as http://127.0.0.1:8000/v1; "
            f"found {address!r}. Set agents.openai_base_url or OPENAI_BASE_URL."
        )


class TestWords:
    """What is shown of servers."""

    def test_addresses_without_passwords(self) -> None:
        assert bare("https://user:secret@host:1/v1") == "https://host:1/v1"
        assert bare("user:secret@host") == "host"
        assert bare("http://host/a@b?key=secret") == "http://b"
        assert bare("http://host/v1?user=a@b&key=secret") == "http://b"
        assert bare("http://user:se/cr?et@host/v1#x") == "http://host/v1"

    def test_server_text_is_harmless_and_short(self) -> None:
        assert said("a\x1b[2Jb\n c sk-1", "sk-1", "") == "ab c ***"
        assert len(said("x" * 1000)) == 300
