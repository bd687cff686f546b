"""Chat templates: those of the field, those that attack, how they are checked, and how they are stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import anyio
import httpx2
import psutil
import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tests.support import chat_templates as field
from tests.support.scripted_gguf import TEMPLATE, Script, write_scripted
from tests.support.template_attacks import BORNE, REFUSED
from tests.support.worker import RunningWorker, worker_process

from llm_worker_rbee.engine.chat import ChatTemplate, strings_of
from llm_worker_rbee.engine.template_check import checking
from llm_worker_rbee.engine.template_tree import Generation
from llm_worker_rbee.engine.template_trial import CPU_S, MEMORY_BYTES, fault_of
from rbee_shared.contracts.tasks import ChatMessage
from rbee_shared.errors import InvalidRequestError

pytestmark = pytest.mark.allow_blocking("the tests start processes and threads; the code under test runs in them")

LOOPS = REFUSED["loops"]
SPELLED = "{% for message in messages %}{{ message.content }}{% endfor %}"


class Texts:
    """A vocabulary's part that templates need."""

    def __init__(self, *controls: str, adds_bos: bool = False) -> None:
        self.bos, self.eos, self.adds_bos = "<s>", "</s>", adds_bos
        self._controls = ["<s>", "</s>", *controls]

    def control_texts(self) -> list[str]:
        return self._controls


def said(*turns: dict[str, Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(turn) for turn in turns]


def rendered(source: str, *turns: dict[str, Any], tools: tuple[dict[str, Any], ...] = (), limit_s: float = 1.0) -> str:
    template = ChatTemplate(source, Texts(), limit_s=limit_s)
    return "".join(piece.text for piece in template.render(said(*turns), tools))


def as_hugging_face(source: str, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """What the library that most templates were written for makes of them."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=time.strftime)
    return environment.from_string(source).render(
        messages=[{"role": "", "content": "", **turn} for turn in turns],
        tools=tools,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )


@pytest.mark.parametrize("conversation", field.CONVERSATIONS)
@pytest.mark.parametrize(
    ("name", "with_tools"), [*((name, False) for name in field.ALL), *((name, True) for name in field.TAKE_TOOLS)]
)
def test_templates_of_the_field_are_rendered_as_their_library_does(
    name: str, conversation: str, with_tools: bool
) -> None:
    turns, tools = field.CONVERSATIONS[conversation], [field.WEATHER] if with_tools else None
    try:
        expected = as_hugging_face(field.ALL[name], turns, tools)
    except (TypeError, TemplateError):
        with pytest.raises(InvalidRequestError, match="refuses this conversation"):
            rendered(field.ALL[name], *turns, tools=tuple(tools or ()))
    else:
        assert rendered(field.ALL[name], *turns, tools=tuple(tools or ())) == expected


@pytest.mark.parametrize("expression", field.EXPRESSIONS)
def test_filters_methods_and_operators_give_what_jinja_gives(expression: str) -> None:
    turns = [field.SYSTEM, field.USER, field.called({"b": [1, 2.5, None], "a": {"x": True}})]

    assert rendered(f"{{{{ {expression} }}}}", *turns) == as_hugging_face(f"{{{{ {expression} }}}}", turns, None)


def test_a_conversation_with_a_tool_word_by_word() -> None:
    text = rendered(field.QWEN, *field.CONVERSATIONS["tool called"], tools=(field.WEATHER,))

    assert text.endswith(
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}\n'
        '</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n{"t": 21}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n"
    )
    assert '{"type": "function", "function": {"name": "weather", "description": "The weather <here> & now"' in text


def test_a_message_has_the_keys_that_were_sent_and_always_a_content() -> None:
    written = "{{ messages|tojson(separators=(',', ':')) }}"

    assert rendered(written, {"role": "user", "content": "x"}) == '[{"role":"user","content":"x"}]'
    assert rendered(written, field.called("{}")) == (
        '[{"role":"assistant","content":"","tool_calls":'
        '[{"id":"call00001","type":"function","function":{"name":"weather","arguments":"{}"}}]}]'
    )
    assert rendered(written, {"role": "tool", "content": "21", "name": "weather", "tool_call_id": "c"}) == (
        '[{"role":"tool","content":"21","name":"weather","tool_call_id":"c"}]'
    )


def test_without_tools_the_variable_is_none_and_documents_are_not_defined() -> None:
    assert rendered("{{ tools is none }} {{ documents is defined }}", field.USER) == "True False"


@pytest.mark.parametrize(("source", "name"), [(SPELLED, "tools"), ("{{ raise_exception('No!') }}", "messages")])
def test_a_refusal_names_the_field(source: str, name: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        rendered(source, field.USER, tools=(field.WEATHER,) if name == "tools" else ())

    (error,) = refusal.value.details["errors"]
    assert (error["field"], error["constraint"]) == (name, "template")
    assert error["message"] == refusal.value.message
    assert "raw" in refusal.value.hint


def test_the_text_that_the_tokenizer_adds_is_not_there_twice() -> None:
    for adds_bos, expected in ((True, "hi"), (False, "<s>hi")):
        template = ChatTemplate("{{ bos_token }}hi", Texts(adds_bos=adds_bos))
        assert template.render(said(field.USER))[0].text == expected


def test_control_texts_are_plain_text_wherever_the_user_writes_them() -> None:
    evil = "x<|end|>y<s>"
    template = ChatTemplate(
        "{{ messages|tojson }}{{ tools|tojson }}<|end|>"
        "{% for m in messages %}{{ m.name }}{{ m.content|trim|upper }}{{ m.tool_call_id }}{% endfor %}",
        Texts("<|end|>"),
    )
    function = {"name": evil, "arguments": {evil: [evil, {evil: evil}]}}
    pieces = template.render(
        said(
            {"role": "system", "content": evil, "name": evil},
            {"role": "assistant", "tool_calls": [{"id": evil, "function": function}]},
            {"role": "tool", "content": evil, "tool_call_id": evil},
        ),
        [{"type": evil, "function": {evil: evil, "parameters": {"properties": {evil: {"enum": [evil]}}}}}],
    )

    special = "".join(piece.text for piece in pieces if piece.special)
    plain = [piece.text for piece in pieces if not piece.special]
    assert special.count("<|end|>") == 1, "the template's own"
    assert "<s>" not in special
    assert set(plain) == {"<|end|>", "<s>"}
    assert len(plain) == 2 * (10 + 5 + 4), "messages, tools, and what is written apart"
    assert "\ue000" not in "".join(piece.text for piece in pieces)


def test_a_template_s_complaint_shows_what_the_user_wrote() -> None:
    template = ChatTemplate("{{ raise_exception('not ' ~ messages[0].content) }}", Texts("<|end|>"))

    with pytest.raises(InvalidRequestError, match=r"refuses this conversation: not a<\|end\|>b$"):
        template.render(said({"role": "user", "content": "a<|end|>b"}))


def test_more_control_texts_than_anybody_needs_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="control texts"):
        ChatTemplate(SPELLED, Texts()).render(said({"role": "user", "content": "<s>" * 300_000}))


# attacks

_UNDER_LIMITS = """
import json, time
from llm_worker_rbee.domain.render_limits import Meter, TooMuchError
from llm_worker_rbee.engine.template_sandbox import COMPILE_ERRORS, RENDER_ERRORS, compile_template
from tests.support.peak_memory import most_memory_bytes
from tests.support.template_attacks import BORNE, REFUSED
outcomes = {}
for name, source in {**REFUSED, **BORNE}.items():
    began = time.process_time()
    meter = Meter(time.monotonic, 0.3)
    try:
        variables = {"messages": [{"role": "user", "content": "hi"}], "x": "abc"}
        compile_template(source).render(meter, {key: meter.keep_all(value) for key, value in variables.items()})
        outcome = ""
    except (TooMuchError, *RENDER_ERRORS, *COMPILE_ERRORS) as error:
        outcome = type(error).__name__
    outcomes[name] = [outcome, time.process_time() - began]
print(json.dumps([outcomes, most_memory_bytes()]))
"""


@pytest.fixture(scope="module")
def attacked() -> tuple[dict[str, tuple[str, float]], int]:
    """How each attack ended and after how many seconds, all in one process; and the most memory that it had."""
    done = subprocess.run(
        [sys.executable, "-c", _UNDER_LIMITS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])},
        capture_output=True,
        timeout=100,
        check=True,
    )
    outcomes, peak_bytes = json.loads(done.stdout)
    return {name: (str(error), float(took_s)) for name, (error, took_s) in outcomes.items()}, int(peak_bytes)


@pytest.mark.parametrize("name", REFUSED)
def test_an_attack_is_refused(attacked: tuple[dict[str, tuple[str, float]], int], name: str) -> None:
    error, took_s = attacked[0][name]

    assert error
    assert error != "MemoryError"
    assert took_s < 3


@pytest.mark.parametrize("name", BORNE)
def test_what_costs_much_and_does_no_harm_is_borne(
    attacked: tuple[dict[str, tuple[str, float]], int], name: str
) -> None:
    error, took_s = attacked[0][name]

    assert error in {"", "TooMuchError"}, "of time, on a slow machine"
    assert took_s < 3


def test_attacks_take_little_memory(attacked: tuple[dict[str, tuple[str, float]], int]) -> None:
    assert attacked[1] < 400 * 1024 * 1024


@pytest.mark.parametrize("name", ["loops", "sorted again and again", "compared again and again"])
def test_an_attack_lets_other_threads_run(name: str) -> None:
    turns = 0
    with ThreadPoolExecutor(1) as pool:
        doomed = pool.submit(rendered, REFUSED[name], field.USER, limit_s=0.5)
        while not doomed.done():
            turns += 1
            time.sleep(0.001)

    assert isinstance(doomed.exception(), InvalidRequestError)
    assert turns > 2


# the time

_COUNTED = "{% for a in range(messages[0].content|int) %}{% endfor %}done"


def test_a_thread_that_stopped_a_rendering_goes_on_200_times() -> None:
    """Renderings of about the limit: some end, some are stopped, and nothing is left behind for what comes next."""
    template = ChatTemplate(_COUNTED, Texts(), limit_s=0.005)
    began_s = time.monotonic()
    ends = []
    for number in range(200):
        turns = (100, 20_000, 99_999)[number % 3]
        try:
            template.render(said({"role": "user", "content": str(turns)}))
            ends.append("done")
        except InvalidRequestError as refusal:
            ends.append(refusal.message)
        assert sum(range(1000)) == 499_500  # an exception that came late would come here

    assert set(ends) == {"done", "the model's chat template takes longer than 0.005 s"}
    assert time.monotonic() - began_s < 30


def test_endless_renderings_at_once_all_end_and_the_next_one_is_served() -> None:
    source = "{% if messages[0].content == 'bomb' %}" + LOOPS + "{% endif %}fine"
    template = ChatTemplate(source, Texts(), limit_s=0.3)
    began_s = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        doomed = [pool.submit(template.render, said({"role": "user", "content": "bomb"})) for _ in range(12)]
        errors = [future.exception() for future in doomed]

    assert all(isinstance(error, InvalidRequestError) for error in errors)
    assert time.monotonic() - began_s < 5
    assert template.render(said(field.USER))[0].text == "fine"


def test_many_threads_render_at_once_without_a_word_of_another() -> None:
    template = ChatTemplate(field.LLAMA3, Texts())

    def render(number: int) -> str:
        turns = said({"role": "user", "content": f"number {number}."}, field.ANSWER) * 9
        return "".join(piece.text for piece in template.render(turns))

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(render, range(64)))

    assert [text.count(f"number {number}.") for number, text in enumerate(texts)] == [9] * 64


# the check before a worker is ready


def fault(source: str, limit_s: float = 5.0) -> str:
    with checking(source, strings_of(Texts()), limit_s) as check:
        found = check.finish()
    assert check._child is not None
    assert not psutil.pid_exists(check._child.pid)
    return found


@pytest.mark.parametrize("name", field.ALL)
def test_templates_of_the_field_pass_their_check(name: str) -> None:
    assert fault(field.ALL[name]) == ""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param("{% for %}", r"is not valid: Expected .* \(line 1\)", id="no template"),
        pytest.param("\n\n{{ x|nothing }}", r"No filter named 'nothing'\. \(line 3\)", id="no such filter"),
        pytest.param("{{ 'a' * 3000000000 }}", "makes a value of more than", id="a bomb"),
        pytest.param(REFUSED["text out"], "prints more than", id="too long"),
        pytest.param(LOOPS, "takes longer than 1 s", id="endless"),
        pytest.param("{% if tools %}" + LOOPS + "{% endif %}", "takes longer than 1 s", id="endless with tools"),
        pytest.param("{{ " * 50_000, "is not valid", id="deep"),
        pytest.param("a" * 200_000, "more than 131072 characters", id="a long source"),
    ],
)
def test_a_template_at_fault(source: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):  # the pattern is searched for in what was found
        raise AssertionError(fault(source))
    assert fault_of({"source": source, "strings": strings_of(Texts()), "limit_s": 1.0}) == fault(source)


@pytest.mark.parametrize(
    "source",
    ["{{ raise_exception('never') }}", "{{ messages[7].content.nothing }}", "{{ 1 // 0 }}", "{{ 1 + 'a' }}", ""],
)
def test_a_template_that_refuses_is_not_at_fault(source: str) -> None:
    assert fault(source) == ""


def test_a_check_that_takes_too_long_is_ended() -> None:
    assert fault(LOOPS, limit_s=0.1).startswith("was not ready after")


@pytest.mark.parametrize(
    ("killed_by", "why"),
    [(signal.SIGSEGV, "ended with status -11"), (signal.SIGXCPU, f"more than {CPU_S} s of processor time")],
)
def test_a_check_whose_child_dies(killed_by: signal.Signals, why: str) -> None:
    with checking(LOOPS, strings_of(Texts())) as check:
        assert check._child is not None
        check._child.send_signal(killed_by)
        assert why in check.finish()


def test_the_child_has_its_limits() -> None:
    with checking(LOOPS, strings_of(Texts())) as check:
        assert check._child is not None
        process = psutil.Process(check._child.pid)
        if not hasattr(process, "rlimit"):
            pytest.skip("psutil cannot read another process's limits here")
        wanted = {psutil.RLIMIT_AS: MEMORY_BYTES, psutil.RLIMIT_CPU: CPU_S, psutil.RLIMIT_CORE: 0}
        give_up_s = time.monotonic() + 4
        while any(process.rlimit(kind)[1] != limit for kind, limit in wanted.items()):
            assert time.monotonic() < give_up_s
            time.sleep(0.01)


def test_a_block_that_is_left_early_leaves_no_child() -> None:
    with pytest.raises(KeyError), checking(LOOPS, strings_of(Texts())) as check:
        raise KeyError

    assert check._child is not None
    assert check._child.returncode == -signal.SIGKILL


def test_a_template_at_fault_is_told_to_every_request_and_not_compiled() -> None:
    template = ChatTemplate(field.CHATML, Texts(), fault="takes longer than 1 s")

    with pytest.raises(InvalidRequestError, match="chat template takes longer than 1 s"):
        template.render(said(field.USER))


def test_a_template_that_was_not_checked_is_compiled_under_the_same_bounds() -> None:
    compiled = threading.Thread(target=ChatTemplate, args=("{{ 'a'*3000000000 }}", Texts()))
    compiled.start()
    compiled.join(10)

    assert not compiled.is_alive()
    assert ChatTemplate("{% for %}", Texts()).fault.startswith("is not valid")


# through a worker


async def refused(worker: RunningWorker, **body: Any) -> dict[str, Any]:
    response = await worker.client.post("/execute", json=body)
    assert response.status_code == 400
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == "INVALID_REQUEST"
    return error


async def test_a_conversation_with_tools_reaches_the_model(tmp_path: Path) -> None:
    source = "{{ tools|tojson if tools }}" + TEMPLATE
    model = write_scripted(tmp_path / "model.gguf", Script(b"abc", template=source, n_ctx=4096))
    turns = [field.USER, field.called({"city": "<|end|>"}), field.RESULT]
    async with worker_process(tmp_path, "--n-ctx", "4096", model=model) as worker:
        await worker.until_ready()
        plain = await worker.execute(messages=turns, max_tokens=5)
        with_tools = await worker.execute(messages=turns, tools=[field.WEATHER], max_tokens=5)

    assert plain.text == with_tools.text == "abc"
    written = json.dumps([field.WEATHER], ensure_ascii=False).replace(" ", "▁")  # as this tokenizer has it
    assert with_tools.end["prompt_tokens"] - plain.end["prompt_tokens"] == len(written.encode())


async def test_tools_for_a_template_that_takes_none(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "model.gguf", Script(b"abc", template=TEMPLATE))
    async with worker_process(tmp_path, model=model) as worker:
        await worker.until_ready()
        error = await refused(worker, messages=[field.USER], tools=[field.WEATHER])

    assert error["details"]["errors"][0]["field"] == "tools"


async def test_a_model_with_a_template_at_fault_answers_raw_prompts(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "model.gguf", Script(b"abc", template=LOOPS))
    async with worker_process(tmp_path, model=model) as worker:
        await worker.until_ready()
        error = await refused(worker, messages=[field.USER])
        prompt = await refused(worker, prompt="x")
        answer = await worker.execute(prompt="x", template="raw")

    assert prompt["details"]["errors"][0]["field"] == "prompt"
    assert "takes longer than 1 s" in error["message"]
    assert answer.text == "abc"


async def test_a_template_bomb_ends_while_another_answer_streams_on(tmp_path: Path) -> None:
    source = "{% if messages[0].content == 'bomb' %}" + LOOPS + "{% endif %}" + TEMPLATE
    script = Script(b"abcdefgh ", forever=True, template=source, n_ctx=32_768)
    model = write_scripted(tmp_path / "model.gguf", script)
    async with worker_process(tmp_path, "--slots", "2", "--n-ctx", "32768", model=model) as worker:
        await worker.until_ready()
        body = {"messages": [field.USER], "max_tokens": 30_000}
        async with worker.client.stream("POST", "/execute", json=body) as response:
            chunks = response.aiter_bytes()
            assert b"started" in await anext(chunks)
            taken = _Taken()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(taken.take, chunks)
                with anyio.fail_after(3):
                    error = await refused(worker, messages=[{"role": "user", "content": "bomb"}])
                during = taken.count
                tasks.cancel_scope.cancel()

    assert during > 10
    assert error["details"]["errors"][0]["field"] == "messages"
    assert "takes longer than 1 s" in error["message"]


class _Taken:
    """Counts what a stream brings."""

    count = 0

    async def take(self, chunks: Any) -> None:
        try:
            async for _ in chunks:
                self.count += 1
        except httpx2.StreamError:
            return
