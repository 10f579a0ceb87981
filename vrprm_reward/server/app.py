"""The HTTP application: routes, their descriptions, and errors as JSON."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.server import metrics
from vrprm_reward.server.schema import (
    ErrorBody,
    Refusal,
    RewardRequest,
    RewardResponse,
    ScoreRequest,
    ScoreResponse,
    StateBody,
)
from vrprm_reward.server.security import OPEN_ROUTE, TOKEN_IN_URL_ROUTE, Guard
from vrprm_reward.server.service import Service
from vrprm_reward.server.settings import ServerSettings

_log = logging.getLogger(__name__)

_ERRORS = {
    400: "The connection or the request was broken off.",
    401: "No valid token.",
    404: "This route is off.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or rollouts.",
    415: "Not JSON.",
    422: "Something in the request cannot be used; `items` says what.",
    503: "The queue is full, or the server is loading or going down.",
    504: "It was not scored in time; the same request again joins what is in work.",
}


def create_app(
    reward: ProcessReward,
    settings: ServerSettings = ServerSettings(),  # noqa: B008  frozen
    *,
    on_failure: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """A FastAPI application that scores with `reward`.

    Args:
        reward: its `ascore` is called once per request, concurrently, and must not block the
            event loop. It is handed images as bytes only, never paths or URLs. It stays the
            caller's to close.
        settings: limits and secrets.
        on_failure: called in the event loop when the model cannot be loaded; None: it is logged,
            and `/ready` never says yes.

    Returns:
        The application; its `state.service` has the parts.
    """
    service = Service(reward, settings)

    async def load() -> None:
        try:
            await service.load()
        except Exception as error:  # noqa: BLE001  whatever a model may raise
            if on_failure is None:
                _log.exception("the model cannot be loaded")
            else:
                on_failure(error)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        if settings.unscored_reward is None:
            _log.info("/get_reward is off: --unscored-reward turns it on")
        elif settings.unscored_reward > 0:
            _log.warning(
                "--unscored-reward %g is above the lowest reward, 0: rollouts that this server "
                "fails to score are rewarded",
                settings.unscored_reward,
            )
        yield
        await service.close()
        loading.cancel()

    app = FastAPI(
        title="vrprm-reward",
        summary="Visual process rewards: how likely each step of a solution is correct.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _add_routes(app, service)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    routes = frozenset(path for each in app.routes if (path := getattr(each, "path", None)))
    app.add_middleware(Guard, tokens=settings.tokens, metrics=service.metrics, routes=routes)
    _describe(app, secured=bool(settings.tokens))
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/score",
        response_model=ScoreResponse,
        responses=_errors(400, 401, 408, 413, 415, 422, 503, 504),
        openapi_extra=_body_of(ScoreRequest),
    )
    async def score(request: Request) -> Response:
        """Score a batch of rollouts, step by step."""
        return _json(await service.score(request))

    @app.post(
        "/get_reward",
        response_model=RewardResponse,
        responses=_errors(400, 401, 404, 408, 413, 415, 422, 503),
        openapi_extra=_body_of(RewardRequest),
    )
    async def get_reward(request: Request) -> Response:
        """Answer OpenRLHF's remote reward model client."""
        return _json(await service.get_reward(request))

    @app.get("/health", response_model=StateBody)
    async def health() -> Response:
        """Whether the server is alive. Needs no token."""
        return _json(StateBody(status="alive"))

    @app.get(
        "/ready",
        response_model=StateBody,
        responses={**_errors(401), 503: {"model": StateBody, "description": "Not now."}},
    )
    async def ready() -> Response:
        """Whether the model is loaded and answering."""
        if service.admission.draining:
            return _json(StateBody(status="draining"), 503)
        if not service.readiness.loaded.is_set():
            return _json(StateBody(status="loading"), 503)
        if not await service.readiness.is_ready():
            return _json(StateBody(status="not_answering"), 503)
        return _json(StateBody(status="ready"))

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **_errors(401),
        },
    )
    async def show_metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _json(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    answer = _json(refusal.body, refusal.status)
    answer.headers.update(refusal.headers)
    return answer


async def _not_found(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in the form that all errors have here."""
    assert isinstance(error, HTTPException)
    code = {404: "no_such_route", 405: "method"}.get(error.status_code, "request")
    refusal = Refusal(error.status_code, code, "see /openapi.json for the routes and their methods")
    refusal.headers.update(error.headers or {})
    return await _refused(request, refusal)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {s: {"model": ErrorBody, "description": _ERRORS[s]} for s in statuses}


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _ways_in(path: str) -> list[dict[str, list[str]]]:
    ways: list[dict[str, list[str]]] = [] if path == OPEN_ROUTE else [{"bearer": []}]
    return [*ways, {"in_url": []}] if path == TOKEN_IN_URL_ROUTE else ways


def _describe(app: FastAPI, *, secured: bool) -> None:
    """Complete the OpenAPI description: bodies are read by hand, so their schemas are added."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = generated()
            parts = description.setdefault("components", {})
            _, found = models_json_schema(
                [(ScoreRequest, "validation"), (RewardRequest, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            parts.setdefault("schemas", {}).update(found["$defs"])
            if secured:
                parts["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "in_url": {"type": "apiKey", "in": "query", "name": "token"},
                }
                for path, methods in description["paths"].items():
                    for operation in methods.values():
                        operation["security"] = _ways_in(path)
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
