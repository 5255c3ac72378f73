"""``agent model``: which checkpoints there are, what they are, and how good and fast they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.flags import Given, ListOutput, takes
from agent.cli.help import Commands
from agent.cli.output import Output, write_json, write_out
from agent.errors import ConfigError
from agent.settings.load import load_settings
from agent.text import visible

if TYPE_CHECKING:
    from agent.loading import LoadedModel

app = Commands(help="Checkpoints.")

Name = Annotated[str, typer.Argument(help="Like --model of agent solve.")]
MOST_INPUT_BYTES = 64 << 20


@app.command(name="list")
def list_models(
    output: ListOutput = Output.TEXT,
) -> None:
    """List the checkpoints on this machine: the embedded one, the hub's cache, `model_dirs`."""
    from model.checkpoint import hub

    folders = [Path(folder) for folder in load_settings({}).model_dirs]
    found = hub.list_models(folders)
    if output is Output.JSON:
        models = [
            {"name": m.name, "path": str(m.path), "size": m.size, "format": m.form} for m in found
        ]
        write_json({"models": models})
        return
    if not found:
        write_out("no checkpoints; point --model at a directory or a hub name\n")
    for item in found:
        size = f"{item.size / 1e6:,.1f} MB"
        form = visible(item.form)
        write_out(f"{visible(item.name):<40} {size:>13}  {form:<10} {visible(str(item.path))}\n")


@app.command()
def pull(name: Name, output: ListOutput = Output.TEXT) -> None:
    """Fetch the files of one checkpoint, or go on where that was broken off; check their hashes."""
    from model.checkpoint import hub
    from model.checkpoint.checkpoint import Checkpoint

    path = hub.resolve(name)
    checkpoint = Checkpoint.open(path)
    size = sum(file.stat().st_size for file in checkpoint.files)
    if output is Output.JSON:
        write_json({"name": name, "path": str(path), "size": size})
        return
    write_out(f"{visible(name)}: {size / 1e6:,.1f} MB of weights in {visible(str(path))}\n")


@app.command()
@takes("quantize", "device", "context")
def info(given: Given, name: Name = "embedded", output: ListOutput = Output.TEXT) -> None:
    """Load a checkpoint and say what it is, where it runs, and what fits."""
    from agent.loading import describe_model

    settings = load_settings(given)
    facts = describe_model(name, settings.quantize, settings.device, settings.context)
    if output is Output.JSON:
        write_json(facts)
        return
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else visible(str(value))
        write_out(f"{key.replace('_', ' ') + ':':<28}{shown}\n")


@app.command()
@takes("quantize", "device", "context", "mmproj")
def score(
    given: Given,
    name: Name,
    text: Annotated[Path | None, typer.Option("--text", help="A file of text.")] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="A file of ids: a JSON list, or numbers.")
    ] = None,
    messages: Annotated[
        Path | None, typer.Option("--messages", help="Chat messages in the OpenAI form, JSON.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another checkpoint to compare with.")
    ] = None,
    output: ListOutput = Output.TEXT,
) -> None:
    """Score a text: the log-probability of each token, the perplexity, the difference to another.

    Give one of --text, --ids and --messages.
    """
    from agent.loading import load_for
    from model.scoring import score as score_ids

    flag, file, content = _source({"--text": text, "--ids": ids, "--messages": messages})
    settings = load_settings(given)
    loaded = load_for(settings, name)
    numbers = _ids(flag, file, content, loaded)
    # As stored, so that a rounded checkpoint can be compared with itself.
    plain = settings.model_copy(update={"quantize": "none"})
    other = None if against is None else load_for(plain, against)
    if other is not None and min(numbers, default=0) < 0:
        _ids(flag, file, content, other)  # shows it the pictures
    found = score_ids(loaded.engine, numbers, None if other is None else other.engine)
    placed = loaded.engine.placement
    assert placed is not None
    facts: dict[str, Any] = {
        "model": name,
        "device": placed.device,
        "format": next(iter(placed.forms)),
        "ids": found.ids,
        "logprobs": found.logprobs,
        "perplexity": found.perplexity,
    }
    if found.against is not None:
        facts["against"] = {"model": against, **vars(found.against)}
    if output is Output.JSON:
        write_json(facts)
        return
    write_out(f"tokens:      {len(found.ids):,}\nperplexity:  {found.perplexity:.4f}\n")
    if (compared := found.against) is not None:
        write_out(
            f"against {visible(str(against))}: KL {compared.kl:.6f} nats, same likeliest id"
            f" {compared.top1:.2%}, largest difference {compared.largest:.4f}\n"
        )


@app.command()
@takes("quantize", "device", "context")
def bench(
    given: Given,
    name: Name = "embedded",
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.", min=1)] = 512,
    decode: Annotated[int, typer.Option(help="Tokens to decode.", min=1)] = 64,
    output: ListOutput = Output.TEXT,
) -> None:
    """Measure the rates of prefill and decode, the memory, and the share of read bandwidth."""
    from agent.loading import load_for
    from model.measuring import measure

    settings = load_settings(given)
    loaded = load_for(settings, name)
    facts = {"model": name, **measure(loaded.engine, prompt, decode)}
    if output is Output.JSON:
        write_json(facts)
        return
    for key, value in facts.items():
        shown = f"{value:,.2f}" if isinstance(value, float) else visible(str(value))
        write_out(f"{key.replace('_', ' ') + ':':<28}{shown}\n")


def _source(given: dict[str, Path | None]) -> tuple[str, Path, str]:
    """Return the one flag that was given, its file, and what is in it."""
    files = {flag: file for flag, file in given.items() if file is not None}
    if len(files) != 1:
        raise ConfigError("give one of --text, --ids and --messages")
    ((flag, file),) = files.items()
    return flag, file, _content(file)


def _content(file: Path) -> str:
    try:
        if file.is_file() and file.stat().st_size > MOST_INPUT_BYTES:
            raise ConfigError(f"{file} is larger than {MOST_INPUT_BYTES >> 20} MiB")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as text: {error}") from error


def _ids(flag: str, file: Path, content: str, loaded: LoadedModel) -> list[int]:
    """Return the ids that a file gives: tokenised text, numbers, or rendered messages."""
    if flag == "--text":
        return loaded.chat.encode_text(content)
    try:
        if flag == "--messages":
            return loaded.chat.encode_conversation(json.loads(content))
        given = json.loads(content) if content.lstrip().startswith("[") else content.split()
        return [int(number) for number in given]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file} does not hold what {flag} takes: {reason}") from error
