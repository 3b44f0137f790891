"""Users played by a language model, local or behind an endpoint, and fast users fitted to its answers."""

from recloop.envs.users.language.answers import AnswerModel, Prompt
from recloop.envs.users.language.endpoint import Endpoint, EndpointConfig
from recloop.envs.users.language.local import LocalConfig, LocalModel
from recloop.envs.users.language.prompts import PromptWords
from recloop.envs.users.language.store import AnswerStore
from recloop.envs.users.language.users import LanguageModelUsers

__all__ = [
    "AnswerModel",
    "AnswerStore",
    "Endpoint",
    "EndpointConfig",
    "LanguageModelUsers",
    "LocalConfig",
    "LocalModel",
    "Prompt",
    "PromptWords",
]
