"""Judgements that are asked for at once: what is joined, and what becomes of it when it fails."""

import asyncio
import itertools
import math
from functools import partial

import pytest

from tests.engines.openai_server import FakeServer, wait_until
from tests.engines.test_openai import ASK, engine_for
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.openai.errors import LogprobsMissingError, ServerAnswerError
from vrprm_reward.errors import PromptTooLongError
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.parse import probability

pytestmark = pytest.mark.timeout(30)


def number(text):
    """Log-probabilities that tell the prompts of `prompts` apart."""
    digits = "".join(filter(str.isdigit, text.split("Question", 1)[-1]))
    return -float(digits or 1), -1.0


def prompts(count, more=""):
    return [Prompt((Message("user", (f"Question {n}.{more}",)),)) for n in range(2, 2 + count)]


def looks(image, count):
    """Prompts about an image."""
    return [Prompt((Message("user", (image, f"Question {n}.")),)) for n in range(2, 2 + count)]


def judge_all(engine, asked, share="a rollout"):
    async def together():
        return await asyncio.gather(*(engine.judge(prompt, share=share) for prompt in asked))

    return asyncio.run(together())


def lists_asked(server):
    return [request["prompt"] for request in server.asked() if "prompt" in request]


def chats_asked(server):
    """The conversations of each request that holds several."""
    asked = [request["messages"] for request in server.asked() if "messages" in request]
    return [messages for messages in asked if isinstance(messages[0], list)]


def images_sent(conversations):
    """Whether each conversation has the image itself (True) or its name (False)."""
    return [turns[0]["content"][0]["image_url"] is not None for turns in conversations]


@pytest.fixture
def image(picture):
    return FinalImage(picture)


def test_each_prompt_gets_its_own_answer_whatever_their_order_in_the_servers():
    with FakeServer(number, lists=True) as server, engine_for(server) as engine:
        engine.connect()
        judge_all(engine, prompts(1))  # how is found out by now
        found = judge_all(engine, prompts(5))
        texts = [f"<|im_start|>user\nQuestion {n}.<|im_end|>\n" for n in range(2, 7)]
        assert lists_asked(server)[1:] == [[f"{t}<|im_start|>assistant\n" for t in texts]]
        assert sum(one.prompt_tokens for one in found) == sum(map(len, lists_asked(server)[1]))
    assert [probability(one) for one in found] == [
        pytest.approx(1 / (1 + math.exp(1 - n))) for n in range(2, 7)
    ]


def test_rollouts_are_not_joined_with_each_other():
    async def two_rollouts(engine):
        asked = [(prompt, share) for share in "ab" for prompt in prompts(3)]
        await asyncio.gather(*(engine.judge(prompt, share=share) for prompt, share in asked))

    with FakeServer(number, lists=True) as server, engine_for(server) as engine:
        judge_all(engine, prompts(1))
        asyncio.run(two_rollouts(engine))
        assert sorted(map(len, lists_asked(server))) == [1, 3, 3]


def test_conversations_with_an_image_are_joined_and_the_image_is_sent_once(image):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        found = judge_all(engine, looks(image, 4))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0, -4.0])
        judge_all(engine, looks(image, 3))
        server.images.clear()  # as by one that needs the room
        judge_all(engine, looks(image, 2))
        assert list(map(images_sent, chats_asked(server))) == [
            [True, False, False, False],
            [False, False, False],
            [False, False],
            [True, False],
        ]
        assert len(server.asked()) == 4


@pytest.mark.parametrize(
    ("status", "together"),
    [
        (404, [2, 3]),  # the path is gone
        (405, [2, 3]),
        (422, [2, 3, 3]),  # named, and whole in case that the server had lost it
        (400, [2, 3, 3, 4]),  # for what stands in it: the next ones may be joined
        (413, [2, 3, 4]),
    ],
)
def test_what_is_refused_together_is_asked_for_one_at_a_time(image, status, together):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        judge_all(engine, looks(image, 2))
        server.faults.extend([status] * together.count(3))
        found = judge_all(engine, looks(image, 3))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])
        judge_all(engine, looks(image, 4))
        assert list(map(len, chats_asked(server))) == together
        alone = 3 + (0 if 4 in together else 4)
        assert len(server.asked()) == len(together) + alone


def test_what_a_server_never_manages_together_it_may_manage_one_at_a_time(image):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server, max_attempts=2) as engine,
    ):
        judge_all(engine, looks(image, 2))
        server.faults.extend([504] * 2)
        found = judge_all(engine, looks(image, 3))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])


def test_a_server_with_an_adapter_for_images_is_asked_for_one_at_a_time(image):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        known = server.reply
        listed = {"data": [{"id": server.model}, {"id": "image"}]}
        server.reply = lambda path, *more: (
            (200, listed) if path == "/v1/models" else known(path, *more)
        )
        assert len(judge_all(engine, looks(image, 3))) == 3
        assert chats_asked(server) == []


def test_when_one_at_a_time_fails_the_rest_is_called_off(image):
    with (
        FakeServer(number, names_images=True, context=400) as server,
        engine_for(server, max_in_flight=1) as engine,
    ):
        judge_all(engine, looks(image, 2))
        before = len(server.asked())
        long = Prompt((Message("user", (image, "x" * 500)),))
        with pytest.raises(PromptTooLongError):
            judge_all(engine, [long, *looks(image, 50)])
        assert len(server.asked()) - before < 10


def test_conversations_that_are_too_long_are_sent_once(image):
    with (
        FakeServer(number, chats=True, names_images=True, context=400) as server,
        engine_for(server) as engine,
    ):
        judge_all(engine, looks(image, 2))
        user = Message("user", (image, "Question 3." + "x" * 500))
        with pytest.raises(PromptTooLongError) as caught:
            judge_all(engine, [*looks(image, 1), Prompt((user,))])
        assert caught.value.limit == 399
        assert list(map(images_sent, chats_asked(server))) == [[True, False], [False, False]]
        assert len(server.asked()) == 2


@pytest.mark.parametrize("options", [{}, {"image_references": False}])
def test_an_image_that_cannot_be_named_is_not_sent_several_times_in_one_request(image, options):
    with (
        FakeServer(number, chats=True, names_images=bool(options)) as server,
        engine_for(server, **options) as engine,
    ):
        found = judge_all(engine, looks(image, 3))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])
        assert chats_asked(server) == []
        assert images_sent([request["messages"] for request in server.asked()]) == [True] * 3


def test_conversations_of_several_forms_are_no_one_request(image):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        ends = Message("assistant", ("Question 5: ",))
        going_on = [Prompt((*prompt.messages, ends), form="continue") for prompt in looks(image, 2)]
        judge_all(engine, [*looks(image, 2), *going_on])
        batches = [r for r in server.asked() if isinstance(r["messages"][0], list)]
        assert [request.get("continue_final_message") for request in batches] == [None, True]


@pytest.mark.parametrize("ignores", [False, True])
def test_conversations_are_sent_one_at_a_time_where_they_must_be(image, ignores):
    # Of its own accord the model says 1, which looks like a verdict under the constraint;
    # its log-probability is -0.7.
    with (
        FakeServer(
            number, chats=ignores, names_images=True, unconstrained="1", logprobs="raw"
        ) as server,
        engine_for(server) as engine,
    ):
        if ignores:  # the constraint, when there are several
            several = server._complete_several
            server._complete_several = lambda requests: several(
                [{**request, "structured_outputs": None} for request in requests]
            )
        found = judge_all(engine, looks(image, 3))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.3, -2.3, -3.3])
        assert chats_asked(server) == []
        assert len(server.asked()) == 3


def test_a_server_that_takes_one_prompt_at_a_time_is_asked_for_one_at_a_time():
    with FakeServer(number) as server, engine_for(server) as engine:
        assert len({one.log_p0 for one in judge_all(engine, prompts(4))}) == 4
        assert lists_asked(server) == []
        assert len(server.asked()) == 4


@pytest.mark.parametrize("with_image", [False, True])
def test_replicas_of_both_kinds_serve_one_fleet(with_image, image):
    asked = partial(looks, image) if with_image else prompts

    with (
        FakeServer(number, lists=True, chats=True, names_images=True) as one,
        FakeServer(number, names_images=True) as two,
        engine_for(one, two, max_in_flight=1) as engine,
    ):
        engine.connect()
        judge_all(engine, asked(1))
        names = map(str, itertools.count())  # those that go to the first server, if both are idle
        firsts = (name for name in names if hash((name, one.url)) < hash((name, two.url)))
        shares = list(itertools.islice(firsts, 6))

        async def many():
            return await asyncio.gather(
                *(engine.judge(p, share=share) for share in shares for p in asked(3))
            )

        found = asyncio.run(many())
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0] * 6)
        assert two.asked()
        assert max(map(len, chats_asked(one) if with_image else lists_asked(one))) == 3
        assert not [*chats_asked(two), *lists_asked(two)]


@pytest.mark.parametrize(
    ("fault", "together"),
    [
        ("no_json", []),  # the page that a proxy has for paths unknown to it
        (500, []),
        ("abort", [3]),
        (408, [3]),
        (429, [3]),
        (503, [3]),
        (504, [3]),
    ],
)
def test_a_server_that_is_busy_when_it_is_asked_what_it_takes_is_asked_again(
    image, fault, together
):
    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        judge_all(engine, looks(image, 1))  # all else is found out by now
        server.faults.append(fault)
        found = judge_all(engine, looks(image, 3))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])
        assert list(map(len, chats_asked(server))) == together


def test_calls_are_joined_where_tasks_begin_at_once_too(image):
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("needs Python 3.12")

    async def together(engine):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await asyncio.gather(*(engine.judge(p, share="x") for p in looks(image, 3)))

    with (
        FakeServer(number, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        found = asyncio.run(together(engine))
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])


def test_nothing_is_rendered_here_for_a_server_whose_template_was_not_compared():
    with FakeServer(lists=True) as server, engine_for(server, check_template=False) as engine:
        judge_all(engine, prompts(3))
        assert lists_asked(server) == []
        assert len(server.asked()) == 3


def test_conversations_are_joined_whether_or_not_the_template_was_compared():
    raw = Prompt((Message("user", ("Question 2.",)),), form="raw")
    with (
        FakeServer(number, lists=True, chats=True) as server,
        engine_for(server, check_template=False) as engine,
    ):
        judge_all(engine, [*prompts(3), raw, raw])
        assert list(map(len, chats_asked(server))) == [3]
        assert lists_asked(server) == ["Question 2.", "Question 2."]


def test_what_fails_fails_for_all_that_were_joined_with_its_own_error():
    with FakeServer(number, lists=True, context=400) as server, engine_for(server) as engine:
        judge_all(engine, prompts(1))
        with pytest.raises(PromptTooLongError) as caught:
            judge_all(engine, [*prompts(2), *prompts(1, more="x" * 500)])
        assert caught.value.limit == 399
        server.logprobs = "chosen"
        with pytest.raises(LogprobsMissingError):
            judge_all(engine, prompts(2))


@pytest.mark.parametrize("fault", [500, "cut", "half", (429, "0.01")])
@pytest.mark.parametrize("with_image", [False, True])
def test_a_joined_request_is_tried_again_as_any_other(fault, with_image, image):
    asked = partial(looks, image) if with_image else prompts
    with (
        FakeServer(number, lists=True, chats=True, names_images=True) as server,
        engine_for(server) as engine,
    ):
        judge_all(engine, asked(2))
        server.faults.append(fault)
        found = judge_all(engine, asked(3))
        together = chats_asked(server) if with_image else lists_asked(server)
        assert list(map(len, together)) == [2, 3, 3]
        assert [one.log_p0 - one.log_p1 for one in found] == pytest.approx([-1.0, -2.0, -3.0])


def test_an_answer_that_lacks_one_of_the_prompts_is_an_error():
    with FakeServer(number, lists=True) as server, engine_for(server) as engine:
        judge_all(engine, prompts(1))
        whole = server._complete_several
        server._complete_several = lambda requests: (
            200,
            whole(requests)[1] | {"choices": whole(requests)[1]["choices"][1:]},
        )
        with pytest.raises(ServerAnswerError, match=r"3 prompts with choices \['0', '1'\]"):
            judge_all(engine, prompts(3))


def test_one_call_that_is_cancelled_leaves_the_others_their_answer_and_all_end_the_request():
    async def cancelled(engine, server, how_many):
        calls = [asyncio.create_task(engine.judge(p, share="x")) for p in prompts(3)]
        while not server.in_flight:
            await asyncio.sleep(0.01)
        for call in calls[:how_many]:
            call.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    with FakeServer(number, lists=True) as server, engine_for(server) as engine:
        judge_all(engine, prompts(1))
        server.delay = 0.3
        found = asyncio.run(cancelled(engine, server, 1))
        assert isinstance(found[0], asyncio.CancelledError)
        assert [one.log_p0 - one.log_p1 for one in found[1:]] == pytest.approx([-2.0, -3.0])
        assert server.disconnected == 0

        found = asyncio.run(cancelled(engine, server, 3))
        assert all(isinstance(each, asyncio.CancelledError) for each in found)
        wait_until(lambda: server.disconnected == 1)
        assert len(judge_all(engine, prompts(2), share="x")) == 2


def test_a_call_that_is_cancelled_right_away_leaves_nothing_behind():
    async def at_once_cancelled(engine):
        call = asyncio.create_task(engine.judge(ASK, share="x"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return await engine.judge(ASK, share="x")

    with FakeServer(lists=True) as server, engine_for(server) as engine:
        judge_all(engine, prompts(1))
        assert asyncio.run(at_once_cancelled(engine)).log_p1 < 0
