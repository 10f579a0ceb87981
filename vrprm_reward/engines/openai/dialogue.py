"""What is asked of a server, once it is known what it is and how it wants to be asked."""

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.openai import answers, probe, wire
from vrprm_reward.engines.openai.errors import ServerError, ServerRefusedError, ServersDisagreeError
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.options import OpenAIOptions
from vrprm_reward.engines.openai.probe import Ask
from vrprm_reward.engines.openai.servers import Fleet, Server
from vrprm_reward.engines.openai.wire import Json, Render, Route

_log = logging.getLogger(__name__)

_NOT_SEVERAL = (404, 405, 422)
"""Statuses of a server that takes no request of several prompts."""

_IMAGE_LOST = (400, 422)
"""Statuses of a server that does not have an image that was named."""


class Dialogue:
    """Asks the servers of a fleet, inside the fleet's event loop.

    Args:
        fleet: the servers.
        render: the profile's conversation template.
        thinking: opening and closing delimiter of the profile's thinking.
        options: times, limits, model.
    """

    def __init__(
        self, fleet: Fleet, render: Render, thinking: tuple[str, str], options: OpenAIOptions
    ) -> None:
        self.model = None if options.model == "auto" else options.model
        """Id of the model that all servers serve; None until one was asked."""
        self._fleet = fleet
        self._render = render
        self._thinking = thinking
        self._options = options

    async def check(self, server: Server) -> None:
        """Find out now what would be found out when it is needed.

        Raises:
            ServerError: the server must not be used.
        """
        model = await self.ready(server)
        await self._way(server, model, "chat")
        await self._several(server, model, "chat")
        if self._options.check_template:
            await self._several(server, model, "completions")

    async def ready(self, server: Server) -> str:
        """The served model's id, of a server whose model and template are right."""
        async with server.checking:
            server.raise_if_unusable()
            server.forget_after_silence()
            if server.model is None:
                server.raise_if_resting()
                ask = self._asker(server)
                try:
                    served = await probe.find_model(
                        ask, server.name, self.model or self._options.model
                    )
                    model = served.model
                    if self._options.check_template:
                        await probe.check_template(
                            ask, server.name, model, self._render, self._thinking
                        )
                except ServerError as error:
                    server.refuse(error)
                    raise
                if self.model not in (None, model):
                    raise ServersDisagreeError(
                        f"{server.name} serves {model!r} and another server {self.model!r}: all "
                        "must serve the same model"
                    )
                self.model = model
                server.found_usable(model, served.context)
                if served.adapts_to_images:
                    # vLLM forgets to where a request has several conversations.
                    server.several["chat"] = False
            assert server.model is not None
            return server.model

    async def generated(
        self, server: Server, prompt: Prompt, max_tokens: int, stop: str | None
    ) -> Generation:
        """A continuation of at most `max_tokens`, and no more than fit into the context."""
        route = wire.route_of(prompt)
        model = await self.ready(server)
        most = max_tokens if server.context is None else min(max_tokens, server.context - 1)
        answer = await self._fitting(server, model, prompt, route, max(1, most), stop)
        generation = answers.read_generation(
            answer, route, stop=stop, thinking=self._thinking, server=server.name
        )
        return answers.cut_by_context(generation, max_tokens, server.context)

    async def judged(self, server: Server, prompt: Prompt) -> Judgement:
        """One judgement in a request of its own."""
        model = await self.ready(server)
        route = wire.route_of(prompt)
        fields = wire.choice_fields(route, await self._way(server, model, route))
        try:
            answer = await self._post(server, model, prompt, route, fields)
        except ServerRefusedError as refusal:
            raise answers.too_long(refusal, server.context) or refusal from refusal
        return answers.read_judgement(answer, route, server.name)

    async def judged_together(
        self, server: Server, prompts: Sequence[Prompt], route: Route
    ) -> Sequence[Judgement] | None:
        """Judgements in one request; None where this server does not take several prompts."""
        model = await self.ready(server)
        way = await self._several(server, model, route)
        if not way:
            return None
        if any(prompt.images for prompt in prompts) and not await self._naming(server, model):
            return None  # each would hold the image once more
        fields = wire.choice_fields(route, way)
        try:
            if route == "chat":
                answer = await self._post_chats(server, model, prompts, fields)
            else:
                texts = [wire.rendered(prompt, self._render) for prompt in prompts]
                body = wire.texts_body(texts, model=model) | fields
                answer = await self._asker(server)("POST", wire.SEVERAL[route], body)
        except ServerRefusedError as refusal:
            if long := answers.too_long(refusal, server.context):
                raise long from refusal
            # For what stands in it, its size, its path? One at a time will tell.
            _log.info("one judgement at a time: %s", refusal)
            if refusal.status in _NOT_SEVERAL:
                server.several[route] = False
            return None
        return answers.read_judgements(answer, route, len(prompts), server.name)

    def _asker(self, server: Server) -> Ask:
        async def ask(method: str, path: str, body: Json | None = None) -> Json:
            base = server.url
            if path.startswith("../"):
                base, path = base.removesuffix("/v1"), path.removeprefix("..")
            answer = await self._fleet.call(server, method, base + path, body)
            answers.raise_if_broken_off(answer, server.name)
            return answer

        return ask

    async def _way(self, server: Server, model: str, route: Route) -> wire.Way:
        """How verdicts are asked for; found out once."""
        async with server.checking:
            server.raise_if_unusable()
            if route not in server.ways:
                try:
                    server.ways[route] = await probe.find_way(
                        self._asker(server), server.name, model, route
                    )
                except ServerError as error:
                    server.refuse(error)
                    raise
            return server.ways[route]

    async def _several(self, server: Server, model: str, route: Route) -> wire.Way | Literal[False]:
        """How several prompts are judged in one request, if at all; found out once."""
        async with server.checking:
            if route not in server.several:
                ask, known = self._asker(server), server.ways.get(route)
                way = await probe.takes_several(ask, server.name, model, route, known)
                server.several[route] = way or False
            return server.several[route]

    async def _naming(self, server: Server, model: str) -> bool:
        """Whether images may be named; found out once."""
        if not self._options.image_references:
            return False
        async with server.checking:
            if server.names_images is None:
                server.names_images = await probe.can_name_images(
                    self._asker(server), server.name, model
                )
            return server.names_images

    async def _post(
        self, server: Server, model: str, prompt: Prompt, route: Route, fields: Json
    ) -> Json:
        """One request about one prompt."""

        def body(named: AbstractSet[str], naming: bool) -> Json:
            more = wire.prompt_body(prompt, model=model, named=named, naming=naming)
            return more | fields

        return await self._naming_images(server, model, wire.PATHS[route], [prompt], body)

    async def _post_chats(
        self, server: Server, model: str, prompts: Sequence[Prompt], fields: Json
    ) -> Json:
        """One request about several conversations."""

        def body(named: AbstractSet[str], naming: bool) -> Json:
            return wire.chats_body(prompts, model=model, named=named, naming=naming) | fields

        return await self._naming_images(server, model, wire.SEVERAL["chat"], prompts, body)

    async def _naming_images(
        self,
        server: Server,
        model: str,
        path: str,
        prompts: Sequence[Prompt],
        body: Callable[[AbstractSet[str], bool], Json],
    ) -> Json:
        """One request. Images that the server has are named, unless it has lost them.

        Args:
            server: it is asked.
            model: the served model's id.
            path: where.
            prompts: what is asked, for their images.
            body: digests of images that are named, and whether images get names -> the request.
        """
        ask = self._asker(server)
        digests = list(dict.fromkeys(image.digest for p in prompts for image in p.images))
        naming = bool(digests) and await self._naming(server, model)
        named = {digest for digest in digests if digest in server.images} if naming else set()
        request = body(named, naming)
        try:
            answer = await ask("POST", path, request)
        except (ServerRefusedError, PassingFailure) as failure:
            for digest in named:
                server.images.pop(digest, None)
            if (
                isinstance(failure, PassingFailure)
                or failure.status not in _IMAGE_LOST
                or answers.too_long(failure, server.context)
                or (whole := body(set(), naming)) == request
            ):
                raise
            answer = await ask("POST", path, whole)
        if naming:
            server.saw(digests)
        return answer

    async def _fitting(
        self,
        server: Server,
        model: str,
        prompt: Prompt,
        route: Route,
        max_tokens: int,
        stop: str | None,
    ) -> Json:
        """As many tokens as fit into the context behind the prompt, at most `max_tokens`."""

        async def generate(most: int) -> Json:
            fields = wire.generation_fields(most, stop)
            return await self._post(server, model, prompt, route, fields)

        try:
            return await generate(max_tokens)
        except ServerRefusedError as refusal:
            long = answers.too_long(refusal, server.context)
            if long is None or max_tokens == 1:
                raise long or refusal from refusal
        # Servers say in many ways, or not at all, how long a prompt is that leaves too little
        # room. Asked for one token, they count it.
        try:
            single = await generate(1)
            room = long.limit + 1 - answers.prompt_tokens(single, server.name)
            return single if room <= 1 else await generate(min(room, max_tokens - 1))
        except ServerRefusedError as refusal:
            raise answers.too_long(refusal, server.context) or refusal from refusal
