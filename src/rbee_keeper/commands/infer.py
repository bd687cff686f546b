"""`infer`: one prompt, one answer. The answer goes to stdout, everything else to stderr."""

from pathlib import Path
from typing import Annotated, Any

import typer


def infer(
    prompt: Annotated[str | None, typer.Argument(help="What to say to the model; `-` or nothing: read stdin.")] = None,
    *,
    prompt_option: Annotated[str | None, typer.Option("--prompt", "-p", help="The same as an option.")] = None,
    node: Annotated[str | None, typer.Option("--node", "-a", help="Which machine; default: the queen chooses.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="builtin:NAME, a .gguf file, or an id of the catalog.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="cpu, cuda, metal or vulkan.")] = None,
    device: Annotated[str | None, typer.Option(help="An index with --backend, or an id such as cuda:1.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop after this many tokens [256].")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy [0.7].")] = None,
    top_p: Annotated[float | None, typer.Option(help="[0.95]")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 considers every token [40].")] = None,
    min_p: Annotated[float | None, typer.Option(help="[0.05]")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, build and device: same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given often.")] = None,
    template: Annotated[
        str | None, typer.Option(help="auto: the model's chat template; raw: the bare prompt [auto].")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions that stand before the prompt.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds, exit 124.")] = None,
    queen_url: Annotated[str | None, typer.Option(help="A queen that runs already [RBEE_QUEEN_URL].")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Her token [RBEE_TOKEN_FILE, ~/.rbee/token].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the answer and errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Every event as one line of JSON on stdout.")] = False,
) -> None:
    """Ask a model. Wakes whatever sleeps, and puts back to sleep what it woke."""
    from rbee_keeper.inference import Answering, bounded_timeout, run_inference  # noqa: PLC0415
    from rbee_keeper.prompt import device_named, model_named, read_prompt  # noqa: PLC0415
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415

    sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    with command(quiet=quiet, events=json) as run:
        settings = load_settings(queen_url=queen_url, token_file=token_file)
        request = {
            **spoken_to_model(read_prompt(prompt, prompt_option), system),
            "model": model_named(model, node) if model is not None else None,
            "node": node,
            "backend": backend,
            "device": device_named(device),
            "seed": seed,
            "stop": stop or None,
            "template": template,
            **sampling,
        }
        answering = Answering(
            request={name: value for name, value in request.items() if value is not None},
            timeout_s=bounded_timeout(timeout),
        )
        run(run_inference, settings, answering)


def spoken_to_model(prompt: str, system: str | None) -> dict[str, Any]:
    """A plain prompt, or a conversation when it starts with instructions."""
    if system is None:
        return {"prompt": prompt}
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}]}
