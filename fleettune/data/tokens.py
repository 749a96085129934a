"""Exchanges as tokens: a template around the texts, cut to a model's length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from fleettune.data.exchanges import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Text around a question and its answer.

    Attributes:
        before: What stands before a question.
        between: What stands between question and answer.
        after: What ends an answer; it is learned, so that a model knows when to stop.
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
PLAIN = Template(before="Question: ", between="\nAnswer: ", after="\n\n", reword=REWORD)
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


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns exchanges into examples with one tokenizer and template.

    Attributes:
        tokenizer: The model's tokenizer.
        template: Text around question and answer.
        max_tokens: Longest example, in tokens.
        known: Token ids of texts seen; every arm and night asks for the same ones again.
    """

    tokenizer: Tokenizer
    template: Template
    max_tokens: int
    known: dict[str, tuple[int, ...]] = field(
        default_factory=dict[str, tuple[int, ...]], compare=False, repr=False
    )

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without special tokens added."""
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
        before, between, after = (
            self.ids(self.template.before),
            self.ids(self.template.between),
            self.ids(self.template.after),
        )
        answer = [*self.ids(exchange.response)[: self.max_tokens // 2], *after]
        room = self.max_tokens - len(before) - len(between) - len(answer)
        prompt = [*before, *self.ids(exchange.question)[: max(room, 1)], *between]
        for earlier in reversed(context):
            turn = [
                *before,
                *self.ids(earlier.question),
                *between,
                *self.ids(earlier.response),
                *after,
            ]
            if len(turn) + len(prompt) + len(answer) > self.max_tokens:
                break
            prompt = turn + prompt
        return Example(tokens=(*prompt, *answer), prompt=len(prompt))

    @property
    def stop(self) -> int:
        """The token with which an answer ends."""
        return self.ids(self.template.after)[0]

    def request(self, text: str) -> tuple[int, ...]:
        """Returns the prompt that puts a text to the model, uncut."""
        return (
            *self.ids(self.template.before),
            *self.ids(text),
            *self.ids(self.template.between),
        )

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones."""
        return self.tokenizer.decode(list(tokens))

    def conversation(self, exchanges: Sequence[Exchange]) -> list[int]:
        """Returns a whole conversation as tokens, for the vendor's training."""
        text = "".join(
            self.template.before
            + exchange.question
            + self.template.between
            + exchange.response
            + self.template.after
            for exchange in exchanges
        )
        return self.ids(text)


@lru_cache(maxsize=8)
def open_encoder(folder: Path, template: str, max_tokens: int) -> Encoder:
    """Returns the encoder of the tokenizer in a model's folder.

    Raises:
        ValueError: If the folder holds no ``tokenizer.json``, the template is unknown, or
            `max_tokens` leaves no room for a question beside the template and half an answer.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ValueError(f"model folder {folder} holds no tokenizer.json; save the tokenizer there")
    if template not in TEMPLATES:
        raise ValueError(f"model.template must be one of {sorted(TEMPLATES)}, got {template!r}")
    encoder = Encoder(Tokenizer.from_file(str(file)), TEMPLATES[template], max_tokens)
    around = (encoder.template.before, encoder.template.between, encoder.template.after)
    least = 2 * sum(len(encoder.ids(text)) for text in around) + 1
    if max_tokens < least:
        raise ValueError(
            f"model.max_tokens must be >= {least} tokens with the template {template!r} and the "
            f"tokenizer in {folder}, got {max_tokens}"
        )
    return encoder
