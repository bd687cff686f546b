"""From a request to the tokens of its prompt. May run in any thread."""

from llm_worker_rbee.domain.prompt_pieces import Piece
from llm_worker_rbee.engine.chat import ChatTemplate
from llm_worker_rbee.engine.llama import Vocabulary
from rbee_shared.contracts.tasks import ChatMessage, Prompted
from rbee_shared.errors import InvalidRequestError


def prompt_tokens(request: Prompted, vocabulary: Vocabulary, template: ChatTemplate | None) -> tuple[int, ...]:
    """The tokens to start from; at least one.

    `raw` prompts are the caller's own affair, control texts in them are control tokens. Everything else goes through
    the model's chat template if it has one, and is plain text if it has none.

    Raises:
        InvalidRequestError: messages for a model without a template, or a template that refuses them or the tools.
    """
    tokens: list[int] = []
    for number, piece in enumerate(_pieces(request, template)):
        tokens += vocabulary.tokenize(piece, add_special=number == 0)
    # a model without BOS and a prompt of no token: something must be decoded to sample from
    return tuple(tokens) or (vocabulary.first_token,)


def _pieces(request: Prompted, template: ChatTemplate | None) -> tuple[Piece, ...]:
    if request.messages is not None:
        if request.template == "raw" or template is None:
            raise _no_template("this request says raw" if template is not None else "this model has none")
        return template.render(request.messages, request.tools or ())
    prompt = request.prompt or ""
    if request.template == "raw":
        return (Piece(prompt, special=True),)
    if template is None:
        return (Piece(prompt, special=False),)
    return template.render((ChatMessage(role="user", content=prompt),), field="prompt")


def _no_template(why: str) -> InvalidRequestError:
    text = f"messages need a chat template, and {why}"
    return InvalidRequestError(
        text,
        hint="Send a prompt instead of messages.",
        details={"errors": [{"field": "messages", "constraint": "template", "message": text}]},
    )
