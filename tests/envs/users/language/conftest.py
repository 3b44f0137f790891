"""A tiny causal model made on the spot, and an endpoint that can be told to fail. Neither needs a network."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.users.language.prompts import PromptWords, PromptWriter, question
from recloop.envs.world.world import World

_SOME = "yes no 1 2 3 4 5 a b c d e click rating rated taken not shown now number"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world() -> World:
    """60 users who are written down, 24 items, three places."""
    made = boredom_world(
        BoredomWorldConfig(users=60, topics=2, items=24, slate_size=3, max_steps=5, dim=8, state_epochs=1,
                         user_epochs=1)
    )  # fmt: skip
    profile = torch.stack([torch.linspace(-2, 2, 60), (torch.arange(60) % 2).float()], dim=1)
    return replace(made, users=replace(made.users, profile=profile, profile_names=("age", "plan=paid")))


def _tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Whole words of this world's questions, in lower case."""
    core = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    writer = PromptWriter(world.signals, world.catalogue.titles, world.users.profile_names, PromptWords())
    texts = [_SOME, writer.words.role, *world.catalogue.titles, *(question(signal).text for signal in world.signals)]
    words = {word for text in texts for word, _ in core.pre_tokenizer.pre_tokenize_str(text.lower())}
    core.model = models.WordLevel({w: i for i, w in enumerate(["[UNK]", *sorted(words)])}, unk_token="[UNK]")
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[UNK]")


@pytest.fixture(scope="session")
def tiny(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny("gpt2")`, `tiny("llama")` or `tiny("sliding")` -> a folder with a model of 32 dimensions."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind in made:
            return made[kind]
        folder = tmp_path_factory.mktemp("models") / kind
        tokenizer = _tokenizer(world)
        sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512)  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model: Any
            if kind == "gpt2":
                model = GPT2LMHeadModel(
                    GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=512)
                )
            elif kind == "llama":
                model = LlamaForCausalLM(LlamaConfig(**sizes))
            else:
                model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=16))
            for weight in model.parameters():  # so that answers differ by persona and item, as a trained model's do
                if weight.dim() > 1:
                    weight.data.mul_(6)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[kind] = folder
        return folder

    return make


@dataclass
class Server:
    """A chat endpoint that says yes to a question the more, the longer it is; `fail` decides what else happens.

    Args:
        url: base URL.
        questions: texts in order of arrival.
        keys: the Authorization headers.
        fail: by the number of the call, from 0: a status, `hang`, `nonsense`, `prose`, `redirect`, or None to answer.
    """

    url: str = ""
    questions: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    fail: Callable[[int], Any] = lambda number: None
    retry_after: str | None = None

    @staticmethod
    def chance(text: str) -> float:
        return 0.2 + 0.6 * (len(text) % 7) / 6

    def answer(self, text: str) -> dict[str, Any]:
        yes = self.chance(text)
        listed = [(" Yes", 0.7 * yes), ("yes", 0.2 * yes), ("No", 0.9 * (1 - yes)), ("3", 0.06), ("4", 0.04)]
        top = [{"token": token, "logprob": math.log(p)} for token, p in listed]
        return {
            "choices": [{"message": {"content": "x"}, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1},
        }


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
            with lock:
                number = len(told.questions)
                told.questions.append(text)
                told.keys.append(self.headers["Authorization"])
            fault = told.fail(number)
            if fault == "hang":
                time.sleep(0.6)
                return
            status = fault if isinstance(fault, int) else 302 if fault == "redirect" else 200
            body = json.dumps(told.answer(text)).encode()
            if fault == "nonsense":
                body = b"<html>hello"
            elif fault == "prose":
                body = b'{"choices": [{"message": {"content": "Yes, I would."}}], "usage": null}'
            elif status != 200:
                body = f"no, {self.headers['Authorization']}".encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", told.url + "/elsewhere")
            if told.retry_after is not None and status != 200:
                self.send_header("Retry-After", told.retry_after)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    yield told
    listening.shutdown()
    listening.server_close()
    thread.join()
