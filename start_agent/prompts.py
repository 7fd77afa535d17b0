"""Questions → prompt ids, and whether the prompt has already opened (or closed) the thinking."""

from __future__ import annotations

from dataclasses import dataclass

from start_agent.errors import PromptError, QuestionError
from start_agent.tokenizer import Message, Tokenizer, first_line

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The custom of the field's math evaluations (Qwen2.5-Math, R1)."""

PROMPTING = "start_agent.json"
"""The file in a model's folder that says which instruction the model is used to: ``{"instruction": "..."}``."""

THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
"""The tags of the known families: Qwen, QwQ, R1; Magistral; Sky-T1."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question.

    Attributes:
        token_ids: what the engine is given first.
        thinking: False where the prompt itself has closed the thinking; the model then answers at once.
        think_end: the marker that ends the thinking. A model that never writes it thinks until its end of sequence.
    """

    token_ids: tuple[int, ...]
    thinking: bool = True
    think_end: str = "</think>"


def render_prompt(tokenizer: Tokenizer, question: str, *, system: str = "", instruction: str = "") -> Prompt:
    """Render a question through the model's chat template.

    The template's own text is encoded with its special tokens, what people wrote (``question``, ``system``) as
    plain text: a special token spelled out in a question does not become one.

    Args:
        tokenizer: the model's.
        question: what the user asks; surrounding white space is dropped.
        system: a system message; none where empty.
        instruction: a sentence that follows the question, in a paragraph of its own; none where empty.

    Raises:
        QuestionError: an empty question.
        PromptError: no chat template, or a template that fails or drops the question.
    """
    if not question.strip():
        raise QuestionError("the question is empty")
    if tokenizer.render_chat is None:
        raise PromptError("this model has no chat template: use a chat or reasoning model, or add one to its tokenizer")
    texts = {"user": "\n\n".join(part for part in (question.strip(), instruction) if part), "system": system}
    # Characters of the private use area stand in for the texts while the template is rendered.
    stand_ins = {role: f"\ue000{role}\ue001" for role, text in texts.items() if text}
    messages: list[Message] = [
        {"role": role, "content": stand_ins[role]} for role in ("system", "user") if role in stand_ins
    ]
    try:
        rendered = tokenizer.render_chat(messages)
    except Exception as error:  # templates are programs of other people: whatever they raise is theirs
        raise PromptError(f"the model's chat template fails on this question: {first_line(error)}") from error
    if any(rendered.count(stand_in) != 1 for stand_in in stand_ins.values()):
        raise PromptError("the model's chat template does not show each message exactly once")
    ids: list[int] = []
    rest = rendered
    for role, stand_in in sorted(stand_ins.items(), key=lambda item: rendered.index(item[1])):
        fixed, rest = rest.split(stand_in)
        ids += tokenizer.encode_template(fixed) + tokenizer.encode(texts[role])
    ids += tokenizer.encode_template(rest)
    # A template that leaves the opening to the model may name its tags in a system message of its own.
    begin, end = next(
        (tags for text in (rest, rendered) for tags in THINK_TAGS if tags[0] in text or tags[1] in text), THINK_TAGS[0]
    )
    return Prompt(tuple(ids), thinking=rest.rfind(begin) >= rest.rfind(end), think_end=end)
