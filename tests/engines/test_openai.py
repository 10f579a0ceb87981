"""The engine over HTTP: what it sends, what it reads, and what it refuses to rely on."""

import asyncio
import pickle
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest

from tests.engines.openai_server import FakeServer
from vrprm_reward.engines.engine import Generation, Message, Prompt
from vrprm_reward.engines.openai.answers import cut_by_context, too_long
from vrprm_reward.engines.openai.engine import OpenAIEngine
from vrprm_reward.engines.openai.errors import (
    ServerAnswerError,
    ServerError,
    ServerRefusedError,
    ServersDisagreeError,
)
from vrprm_reward.engines.openai.http import call
from vrprm_reward.engines.openai.options import OpenAIOptions
from vrprm_reward.engines.openai.urls import parse_urls
from vrprm_reward.errors import EngineClosedError, InputError, PromptTooLongError
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.profile import packaged_conversation
from vrprm_reward.scoring.template import render_template

RENDER = partial(render_template, packaged_conversation())
ASK = Prompt((Message("system", ("Judge.",)), Message("user", ("Is it so?",))))
THINK = Prompt((Message("user", ("Think.",)),))


@contextmanager
def engine_for(*servers, **options):
    engine = OpenAIEngine(
        [server.url for server in servers],
        render=RENDER,
        options=OpenAIOptions(**{"first_pause": 0.01, **options}),
    )
    try:
        yield engine
    finally:
        engine.close()


def judge(engine, prompt=ASK, share=None):
    return asyncio.run(engine.judge(prompt, share=share))


def generate(engine, prompt=THINK, *, max_tokens=500, stop="</think>"):
    return asyncio.run(engine.generate(prompt, max_tokens=max_tokens, stop=stop, share=None))


@pytest.fixture
def image(picture):
    return FinalImage(picture)


def test_messages_images_and_fields_are_sent_as_the_protocol_says(image):
    prompt = Prompt(
        (
            Message("system", ("S",)),
            Message("user", ("before", image, "after")),
            Message("assistant", ("<think>x</think>\nStep 0: ",)),
        ),
        form="continue",
    )
    with FakeServer(model="vrprm-x") as server, engine_for(server) as engine:
        generate(engine, prompt, max_tokens=77)
        (request,) = server.asked()
    assert request["model"] == "vrprm-x"
    assert request["messages"] == [
        {"role": "system", "content": "S"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "before"},
                {"type": "image_url", "image_url": {"url": image.data_url()}},
                {"type": "text", "text": "after"},
            ],
        },
        {"role": "assistant", "content": "<think>x</think>\nStep 0: "},
    ]
    assert (request["continue_final_message"], request["add_generation_prompt"]) == (True, False)
    assert (request["temperature"], request["repetition_penalty"]) == (0.0, 1.0)
    assert (request["max_tokens"], request["stop"]) == (77, ["</think>"])
    assert request["include_stop_str_in_output"] is request["skip_special_tokens"] is True


def test_a_raw_prompt_goes_to_the_completions_route_unchanged(image):
    raw = Prompt((Message("user", ("Step 0: x\\boxed{",)),), form="raw")
    with FakeServer() as server, engine_for(server) as engine:
        judge(engine, raw)
        assert server.asked()[-1]["prompt"] == "Step 0: x\\boxed{"
        assert server.asked()[-1]["add_special_tokens"] is False
        with pytest.raises(Exception, match="raw prompt cannot have images"):
            judge(engine, Prompt((Message("user", ("x", image)),), form="raw"))


@pytest.mark.parametrize("how", ["kept", "trimmed", "reasoning", "reasoning_content"])
def test_generated_text_is_the_same_wherever_a_server_puts_thinking_and_stop(how):
    with FakeServer(trims_stop=how == "trimmed") as server, engine_for(server) as engine:
        if how.startswith("reasoning"):
            server.reasoning_field = how
        found = generate(engine)
        assert (found.text, found.finish) == ("<think>Looks fine.</think>", "stop")
        assert found.prompt_tokens == len("<|im_start|>user\nThink.<|im_end|>\n") + len(
            "<|im_start|>assistant\n"
        )
        cut = generate(engine, max_tokens=12)
        assert (cut.text, cut.finish, cut.generated_tokens) == ("<think>Looks", "length", 12)


def test_a_finish_that_is_neither_stop_nor_length_is_an_error():
    with FakeServer() as server, engine_for(server) as engine:
        server._generate = lambda request, wanted: ("x", "content_filter", None)
        with pytest.raises(ServerAnswerError, match="content_filter"):
            generate(engine)


def test_a_prompt_beyond_the_context_is_too_long_with_both_numbers():
    with FakeServer(context=400) as server, engine_for(server) as engine:
        long = Prompt((Message("user", ("x" * 400,)),))
        for ask in (judge, generate):
            with pytest.raises(PromptTooLongError) as caught:
                ask(engine, long)
            assert caught.value.limit == 399
            assert caught.value.tokens > 400


def test_a_prompt_that_leaves_little_room_gets_what_room_there_is():
    with FakeServer(context=400, thinking="y" * 900) as server, engine_for(server) as engine:
        prompt = Prompt((Message("user", ("x" * 300,)),))
        found = generate(engine, prompt)
        assert found.finish == "context"
        assert found.prompt_tokens + found.generated_tokens == 400


def test_a_limit_of_the_servers_own_is_not_the_context():
    text = Generation("<think>Looks", "length", 1000, 100)
    assert cut_by_context(text, 500, 8000).finish == "length"
    assert cut_by_context(text, 500, 1101).finish == "context"
    assert cut_by_context(text, 500, None).finish == "context"
    assert cut_by_context(text, 100, 1100).finish == "length"


@pytest.mark.parametrize(
    ("words", "tokens", "limit"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested 2500 tokens "
         "(2499 in the messages, 1 in the completion).", 2500, 2047),
        ("'max_tokens' is too large: 1. This model's maximum context length is 2048 tokens and "
         "your request has 2050 input tokens (1 > 2048 - 2050).", 2050, 2047),
        ("You passed 2049 input tokens and requested 1 output tokens. However, the model's context "
         "length is only 2048 tokens, resulting in a maximum input length of 2047 tokens.",
         2049, 2047),
        ("The decoder prompt (length 3000) is longer than the maximum model length of 2048.",
         2048, 2047),
        ("The input (3000 tokens) is longer than the model's context length (2048 tokens).",
         3000, 2047),
        ("the prompt is too long", 2048, 2047),
    ],
)  # fmt: skip
def test_every_known_wording_of_a_prompt_that_is_too_long_is_understood(words, tokens, limit):
    error = too_long(ServerRefusedError("", status=400, words=words), 2048)
    assert error is not None
    assert (error.tokens, error.limit) == (tokens, limit)


def test_a_refusal_for_another_reason_is_passed_on_at_once():
    with FakeServer() as server, engine_for(server) as engine:
        judge(engine)
        before = len(server.requests)
        server.faults.append(400)
        with pytest.raises(ServerRefusedError, match="a fault on purpose"):
            judge(engine)
        assert len(server.requests) == before + 1


def test_a_wrong_key_is_refused_with_a_hint_and_the_right_one_is_accepted():
    with FakeServer(api_key="secret") as server:
        with engine_for(server) as engine, pytest.raises(ServerRefusedError, match="API key"):
            engine.connect()
        with engine_for(server, api_key="secret") as engine:
            assert "secret" not in repr(engine._options)
            judge(engine)


def test_a_key_is_sent_without_what_stands_around_it_and_a_blank_one_is_none():
    with (
        FakeServer(api_key="secret") as server,
        engine_for(server, api_key=" secret\r\n") as engine,
    ):
        judge(engine)
    assert OpenAIOptions(api_key=" \n").api_key is None
    with pytest.raises(InputError, match="API key has characters") as refused:
        OpenAIOptions(api_key="sec\nret-schlüssel")
    assert "ret-" not in str(refused.value)


def test_a_request_that_cannot_be_written_is_not_repeated_and_shows_no_header():
    async def ask():
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer secret\n"}) as client:
            await call(client, "a server", "GET", f"{server.url}/models")

    with FakeServer() as server, pytest.raises(ServerError, match="check the API key") as refused:
        asyncio.run(ask())
    assert "secret" not in str(refused.value)


def test_an_image_is_sent_once_and_then_named_where_the_server_can(image):
    prompt = Prompt((Message("user", ("look", image)),))
    with FakeServer(names_images=True) as server, engine_for(server) as engine:
        generate(engine, prompt)
        for _ in range(3):
            judge(engine, prompt)
        sent = [r["messages"][0]["content"][1]["image_url"] for r in server.asked()]
        assert [part is not None for part in sent] == [True, False, False, False]
        server.images.clear()
        judge(engine, prompt)
        sent = [r["messages"][0]["content"][1]["image_url"] for r in server.asked()]
        assert [part is not None for part in sent[4:]] == [False, True]


def test_an_image_is_sent_each_time_where_the_server_cannot_name_it(image):
    prompt = Prompt((Message("user", ("look", image)),))
    with FakeServer(names_images=False) as server:
        for options in ({}, {"image_references": False}):
            with engine_for(server, **options) as engine:
                judge(engine, prompt)
                judge(engine, prompt)
        assert len(server.asked()) == 4
        for request in server.asked():
            assert request["messages"][0]["content"][1] == {
                "type": "image_url",
                "image_url": {"url": image.data_url()},
            }


def test_servers_of_different_models_are_refused():
    with FakeServer(model="a") as one, FakeServer(model="b") as two:
        with engine_for(one, two) as engine, pytest.raises(ServersDisagreeError, match=r"'[ab]'"):
            engine.connect()
        with engine_for(one, model="c") as engine, pytest.raises(ServersDisagreeError, match="'c'"):
            engine.connect()


def test_the_identity_has_model_and_servers_and_no_password():
    with FakeServer(model="vrprm-4b") as server:
        url = server.url.replace("http://", "http://me:hidden@")
        engine = OpenAIEngine([url], render=RENDER)
        assert engine.identity == f"auto @ {server.url}"
        engine.connect()
        assert engine.identity == f"vrprm-4b @ {server.url}"
        engine.close()


def test_the_engine_pickles_and_works_from_many_event_loops():
    with FakeServer() as server, engine_for(server) as engine:
        first = judge(engine)
        assert judge(engine) == first
        copy = pickle.loads(pickle.dumps(engine))
        assert judge(copy) == first
        copy.close()


def test_a_closed_engine_says_so():
    with FakeServer() as server:
        with engine_for(server) as engine:
            judge(engine)
        with pytest.raises(EngineClosedError):
            judge(engine)
        engine.close()


@pytest.mark.parametrize("urls", ["http://a/v1", [], ["ftp://a/v1"], ["a:80"], ["http://a/v1?x=1"]])
def test_what_is_no_list_of_base_urls_is_refused(urls):
    with pytest.raises(InputError, match="base URL"):
        OpenAIEngine(urls, render=RENDER)


def test_base_urls_get_their_v1():
    assert parse_urls(["http://a:80", "http://a:81/", "https://b/x/v1/"]) == (
        "http://a:80/v1", "http://a:81/v1", "https://b/x/v1",
    )  # fmt: skip
    with pytest.raises(InputError, match="twice"):
        parse_urls(["http://a:80", "http://a:80/v1/"])


@pytest.mark.parametrize("urls", [["http://me:hidden@a/v1"] * 2, ["http://me:hidden@a/v1?x=1"]])
def test_a_password_in_a_base_url_is_not_shown(urls):
    with pytest.raises(InputError, match="http://a/v1") as refused:
        parse_urls(urls)
    assert "hidden" not in str(refused.value)


def test_the_qwen_strings_are_those_of_the_real_tokenizer():
    from tests.qwen_vocabulary import PLAIN_TOKENS, SPECIAL_TOKENS

    assert OpenAIOptions().added_tokens == {*SPECIAL_TOKENS, *PLAIN_TOKENS}
