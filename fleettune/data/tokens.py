"""Exchanges as tokens: a template around the texts, cut to a model's length.

A template's markers are tokens of their own. Where a text happens to hold such words, they are
ordinary characters there: a user who writes "<|end|>" ends no answer.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer

from fleettune.data.exchanges import Exchange
from fleettune.records import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Text around a question and its answer.

    Attributes:
        before: What stands before a question.
        between: What stands between question and answer.
        after: What ends an answer; it is learned, so that a model knows when to stop. Empty: the
            token with which the model itself ends a text.
        reword: How a model is asked for a text of the same meaning; the text follows. Where it
            names brackets, the model is to put the new text between them.
    """

    before: str
    between: str
    after: str
    reword: str


REWORD = (
    "Say the text below in other words and keep its meaning. Do not answer it and do not comment "
    "on it; write the new text between [ and ]. Text: "
)
"""The request of Qin et al. (DAC 2024, docs/methods.md#self-paraphrase), in words of our own."""
POCKET = Template(
    before="<|user|>", between="<|bot|>", after="<|end|>", reword="say it another way: "
)
CHATML = Template(
    before="<|im_start|>user\n",
    between="<|im_end|>\n<|im_start|>assistant\n",
    after="<|im_end|>\n",
    reword=REWORD,
)
PLAIN = Template(before="Question: ", between="\nAnswer: ", after="", reword=REWORD)
LLAMA2 = Template(before="[INST] ", between=" [/INST] ", after="</s>", reword=REWORD)
LLAMA3 = Template(
    before="<|start_header_id|>user<|end_header_id|>\n\n",
    between="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    after="<|eot_id|>",
    reword=REWORD,
)
GEMMA = Template(
    before="<start_of_turn>user\n",
    between="<end_of_turn>\n<start_of_turn>model\n",
    after="<end_of_turn>\n",
    reword=REWORD,
)
PHI3 = Template(
    before="<|user|>\n", between="<|end|>\n<|assistant|>\n", after="<|end|>\n", reword=REWORD
)
TEMPLATES = {
    "pocket": POCKET,
    "chatml": CHATML,
    "gemma": GEMMA,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "phi3": PHI3,
    "plain": PLAIN,
}
"""Turns of a conversation as families of models were trained to read them; plain for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One exchange as tokens: a prompt and the supervised answer after it.

    Attributes:
        tokens: Prompt and answer, in order.
        prompt: Number of tokens of the prompt; the rest is supervised.
    """

    tokens: tuple[int, ...]
    prompt: int

    @property
    def supervised(self) -> int:
        """Number of supervised tokens."""
        return len(self.tokens) - self.prompt


_KNOWN = 100_000
_UNLIKELY = "\u2e3b \u16e0"
"""Letters that few vocabularies have."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns exchanges into examples with one tokenizer and template.

    Attributes:
        tokenizer: The model's tokenizer; it takes markers in a text for ordinary characters.
        template: Text around question and answer.
        max_tokens: Longest example, in tokens.
        before: Tokens before a question.
        between: Tokens between question and answer.
        after: Tokens that end an answer.
        known: Token ids of texts seen; every arm and night asks for the same ones again.
    """

    tokenizer: Tokenizer
    template: Template
    max_tokens: int
    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    known: dict[str, tuple[int, ...]] = field(
        default_factory=dict[str, tuple[int, ...]], compare=False, repr=False
    )

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text; no special token is added or read from it."""
        found = self.known.get(text)
        if found is None:
            if len(self.known) >= _KNOWN:
                self.known.clear()
            found = tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)
            self.known[text] = found
        return list(found)

    def example(self, exchange: Exchange, context: Sequence[Exchange] = ()) -> Example:
        """Returns an exchange as tokens, with earlier exchanges before it.

        Too long a question loses its end, too long a context its first exchanges, too long an
        answer what does not fit into half of `max_tokens`.
        """
        answer = [*self.ids(exchange.response)[: self.max_tokens // 2], *self.after]
        room = self.max_tokens - len(self.before) - len(self.between) - len(answer)
        question = self.ids(exchange.question)[: max(room, 1)]
        prompt = [*self.before, *question, *self.between]
        for earlier in reversed(context):
            turn = self.conversation([earlier])
            if len(turn) + len(prompt) + len(answer) > self.max_tokens:
                break
            prompt = turn + prompt
        return Example(tokens=(*prompt, *answer), prompt=len(prompt))

    @property
    def stop(self) -> int:
        """The token with which an answer ends."""
        return self.after[0]

    def request(self, text: str) -> tuple[int, ...]:
        """Returns the prompt that puts a text to the model, uncut."""
        return (*self.before, *self.ids(text), *self.between)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones."""
        return self.tokenizer.decode(list(tokens))

    def conversation(self, exchanges: Sequence[Exchange]) -> list[int]:
        """Returns a whole conversation as tokens, for the vendor's training."""
        return [
            token
            for exchange in exchanges
            for token in (
                *self.request(exchange.question),
                *self.ids(exchange.response),
                *self.after,
            )
        ]


def make_encoder(tokenizer: Tokenizer, template: Template, max_tokens: int) -> Encoder:
    """Returns the encoder of a tokenizer, which from now on reads no marker in a text.

    Special tokens are never read in a text. A marker that the tokenizer has as an added token, but
    not as a special one, is made special; white space is none.
    """
    tokenizer.encode_special_tokens = False
    around = tuple(
        tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        for text in (template.before, template.between, template.after)
    )
    added = tokenizer.get_added_tokens_decoder()
    markers = {added[token].content for ids in around for token in ids if token in added}
    special = [AddedToken(content, special=True) for content in sorted(markers) if content.strip()]
    tokenizer.add_special_tokens(special)  # pyright: ignore[reportUnknownMemberType] - its stub
    tokenizer.encode_special_tokens = True
    before, between, after = around
    return Encoder(tokenizer, template, max_tokens, before, between, after)


@lru_cache(maxsize=8)
def open_encoder(folder: Path, template: str, max_tokens: int) -> Encoder:
    """Returns the encoder of the tokenizer in a model's folder.

    Raises:
        ValueError: If the folder holds no ``tokenizer.json``, the template is unknown or needs an
            end of text that the model has not, or `max_tokens` leaves no room for a question beside
            the template and half an answer.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"model folder {folder} holds no tokenizer.json; save the tokenizer there")
    if template not in TEMPLATES:
        raise ValueError(f"model.template must be one of {sorted(TEMPLATES)}, got {template!r}")
    with _told(file):
        tokenizer, around = Tokenizer.from_file(str(file)), TEMPLATES[template]
        if not around.after:
            around = replace(around, after=_end_of_text(tokenizer, folder, template))
        encoder = make_encoder(tokenizer, around, max_tokens)
        encoder.ids(_UNLIKELY)  # some can be read and fail at the first word that they do not know
    if not encoder.after:
        raise ValueError(
            f"tokenizer in {folder} drops {encoder.template.after!r}, with which an answer ends in "
            f"the template {template!r}; choose the template of its family"
        )
    least = 2 * (len(encoder.before) + len(encoder.between) + len(encoder.after)) + 1
    if max_tokens < least:
        raise ValueError(
            f"model.max_tokens must be >= {least} tokens with the template {template!r} and the "
            f"tokenizer in {folder}, got {max_tokens}"
        )
    return encoder


def _end_of_text(tokenizer: Tokenizer, folder: Path, template: str) -> str:
    """Returns the token that ends a text of the model, the first ``eos_token_id`` of its config."""
    file = folder / "config.json"
    config = read_json(file.read_bytes() if file.is_file() else b"", str(file))
    found = cast(dict[str, Any], config if isinstance(config, dict) else {}).get("eos_token_id")
    ids = cast(list[Any], found) if isinstance(found, list) else [found]
    word = (
        tokenizer.id_to_token(ids[0]) if ids and isinstance(ids[0], int) and ids[0] >= 0 else None
    )
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if word is None or word not in added:
        raise ValueError(
            f"model.template={template} ends an answer with the model's own end of text, but "
            f"eos_token_id in {file} is {found!r}, which is no added token of its tokenizer; "
            f"choose the template of its family: {', '.join(TEMPLATES)}"
        )
    return word


@contextmanager
def _told(file: Path) -> Generator[None]:
    """Tells what goes wrong with a tokenizer as a ValueError that names its file."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except BaseException as error:
        # its library raises nothing narrower than Exception, and a panic is none
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"{file} cannot be read as a tokenizer ({str(error)[:200]}); copy or save it anew"
        ) from error
