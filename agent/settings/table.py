"""The table of options: every setting with its group, help, default, bounds and flag.

The flags of all commands, the variables, the keys of the files and the tables of ``docs/usage.md``
come from here. A repository is not trusted, so its ``.agent.toml`` may only say how to work on it.
What decides who is trusted with what (the sandbox, its network and size, the model) is the user's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from agent.settings.option import Group, option, option_of
from model.chat.effort import means_none, plain_word, read_effort
from sandboxes.mounts import environment_of, parse_mount
from tools.profiles.profile import ProfileError, load_profile

Thinking = Literal["auto", "preserve", "drop", "off"]
SandboxKind = Literal["docker", "bubblewrap", "local"]
NetworkMode = Literal["none", "bridge"]
Quantize = Literal["none", "int8", "int4"]
Drafts = Literal["auto", "copy", "mtp", "off"]
ExpertPlace = Literal["auto", "cpu", "gpu"]
KvForm = Literal["auto", "bf16", "int8", "fp8"]
Constrain = Literal["off", "calls", "edits"]
Approve = Literal["never", "edits", "commands", "all"]


_LINTERS = "(ruff|mypy|tsc|eslint|go|cargo)"


class Settings(BaseModel):
    """One run's settings. Times are seconds, sizes tokens or MiB as named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = option(
        "embedded",
        Group.MODEL,
        "'embedded', a checkpoint directory, or a hub name.",
        flag="--model",
        short="-m",
        metavar="NAME",
        min_length=1,
    )
    model_dirs: tuple[str, ...] = option(
        (),
        Group.MODEL,
        "Folders whose checkpoints `agent model list` shows too.",
    )
    quantize: Quantize = option(
        "none",
        Group.MODEL,
        "Round the model's weights: less memory, faster on a CPU.",
        flag="--quantize",
        more="See [performance](performance.md).",
    )
    device: str = option(
        "auto",
        Group.MODEL,
        "Where the model runs: auto, cpu, cuda or cuda:N.",
        flag="--device",
        metavar="DEVICE",
        more="`auto` takes a GPU that can run it and holds it.",
        pattern=r"^(auto|cpu|cuda|cuda:\d{1,3})$",
    )
    context: int | None = option(
        None,
        Group.MODEL,
        "The most tokens of a session.",
        flag="--context",
        metavar="TOKENS",
        shown="what the checkpoint allows",
        more="More than that stretches the model's positions (YaRN), which may cost some quality on"
        " short texts.",
        ge=1024,
    )
    experts: ExpertPlace = option(
        "auto",
        Group.MODEL,
        "Where a mixture's experts are beside a GPU: in its memory or the host's.",
        flag="--experts",
        more="`cpu` computes them there; `auto` does so if only the rest fits the GPU.",
    )
    mmproj: str | None = option(
        None,
        Group.MODEL,
        "A GGUF file with the model's vision tower.",
        flag="--mmproj",
        metavar="FILE",
        shown="the checkpoint's own, or the one beside a GGUF file",
        more="See [vision](vision.md#the-tower).",
        min_length=1,
    )
    kv_memory: int | None = option(
        None,
        Group.MODEL,
        "Memory for the model's state; what is idle beyond it is parked on disk.",
        flag="--kv-memory",
        metavar="MIB",
        shown="half of what is free",
        ge=1,
    )
    kv: KvForm = option(
        "auto",
        Group.MODEL,
        "How keys and values are kept: in 8 bits they take half the memory.",
        flag="--kv",
        more="`auto` takes `int8` where a context that was asked for fits no other way; `fp8` needs"
        " a GPU that has it. See [state](state.md#keys-and-values-in-8-bits).",
    )
    drafts: Drafts = option(
        "auto",
        Group.MODEL,
        "Where a pass takes tokens from that it tries where that pays.",
        flag="--drafts",
        more="`copy`: from the text so far; `mtp`: from the checkpoint's own layer. It changes the"
        " time, never what comes out ([speculation](speculation.md)).",
    )

    constrain: Constrain = option(
        "off",
        Group.MODEL,
        "Let the model write well-formed calls alone; with 'edits' also only text of the file.",
        flag="--constrain",
        more="See [Tools](tools.md#constrained-calls).",
    )
    tools: str = option(
        "qwen",
        Group.MODEL,
        "The tools as the model sees them: 'qwen', 'editor', 'lean', or a TOML file.",
        flag="--tools",
        metavar="PROFILE",
        more="See [Tools](tools.md#profiles).",
        min_length=1,
    )

    sandbox: SandboxKind = option(
        "docker",
        Group.SANDBOX,
        "Where commands run. 'local' has no isolation at all.",
        flag="--sandbox",
        short="-s",
        more="See [Sandboxes](sandboxes.md).",
    )
    network: NetworkMode = option(
        "none", Group.SANDBOX, "What network commands have.", flag="--network"
    )
    mounts: tuple[str, ...] = option(
        (),
        Group.SANDBOX,
        "A folder or file that commands may read, or write with rw. May be repeated.",
        flag="--mount",
        metavar="HOST[:INSIDE][:rw]",
    )
    pass_env: tuple[str, ...] = option(
        (),
        Group.SANDBOX,
        "A variable that commands get: yours, or with this value. May be repeated.",
        flag="--env",
        metavar="NAME[=VALUE]",
    )
    memory_mb: int = option(4096, Group.SANDBOX, "Memory of the sandbox, in MiB.", ge=64)
    disk_mb: int = option(4096, Group.SANDBOX, "Disk of the sandbox, in MiB.", ge=64)
    cpus: float = option(
        2.0, Group.SANDBOX, "Processors of the sandbox.", gt=0, allow_inf_nan=False
    )
    ignored_files: bool = option(
        False,
        Group.SANDBOX,
        "Copy files that an ignore rule covers, too: .venv, node_modules.",
        flag="--ignored-files",
    )
    folder_alone: bool = option(
        False,
        Group.SANDBOX,
        "Work on the folder given alone, not on the repository that it lies in.",
        flag="--folder-alone",
    )

    image: str | None = option(
        None,
        Group.IMAGE,
        "The Docker image to run commands in.",
        flag="--image",
        short="-i",
        metavar="IMAGE",
        shown="our base image",
        repository=True,
        min_length=1,
    )
    dockerfile: str | None = option(
        None,
        Group.IMAGE,
        "A Dockerfile that makes the image.",
        more="See [Sandboxes](sandboxes.md#a-repositorys-own-image).",
        repository=True,
        min_length=1,
    )
    devcontainer: str | None = option(
        None,
        Group.IMAGE,
        "A devcontainer.json that names or makes the image.",
        repository=True,
        min_length=1,
    )
    setup: tuple[str, ...] = option(
        (), Group.IMAGE, "Commands for the image, run once.", repository=True
    )
    setup_files: tuple[str, ...] = option(
        (), Group.IMAGE, "What the set-up and the Dockerfile see.", repository=True
    )
    build: bool = option(
        False,
        Group.IMAGE,
        "Build the image that the repository asks for, if it is not there.",
        flag="--build",
        more="See [Sandboxes](sandboxes.md#a-repositorys-own-image).",
    )
    workdir: str | None = option(
        None,
        Group.IMAGE,
        "Where the repository lies in a container.",
        shown="/workspace",
        pattern=r"^/.+",
    )
    search_path: str | None = option(
        None, Group.IMAGE, "What goes before the image's PATH.", min_length=1
    )
    writable: bool = option(False, Group.IMAGE, "Commands may change the whole container.")
    account: str | None = option(None, Group.IMAGE, "Whom a writable container runs commands as.")
    image_tree: bool = option(False, Group.IMAGE, "Work on the image's own files at workdir.")

    check: str | None = option(
        None,
        Group.CHECK,
        "Command that passes once the task is done.",
        flag="--check",
        short="-c",
        metavar="COMMAND",
        more="It is run before the model begins and after its patch.",
        repository=True,
        min_length=1,
    )
    check_timeout: float = option(
        600.0, Group.CHECK, "Seconds for the check.", repository=True, gt=0, allow_inf_nan=False
    )
    n: int = option(
        1,
        Group.CHECK,
        "Attempts at the same time; the first that passes --check wins.",
        flag="--n",
        metavar="N",
        short="-n",
        more="See [Several attempts](#several-attempts).",
        ge=1,
        le=64,
    )

    max_steps: int = option(
        100,
        Group.LIMITS,
        "Turns of the model at most.",
        flag="--max-steps",
        metavar="N",
        repository=True,
        ge=1,
    )
    max_tokens: int | None = option(
        None,
        Group.LIMITS,
        "Tokens of the session at most, prompts included.",
        flag="--max-tokens",
        metavar="N",
        shown="the context length",
        repository=True,
        ge=1,
    )
    max_turn_tokens: int = option(
        8192,
        Group.LIMITS,
        "Tokens of one turn at most.",
        flag="--max-turn-tokens",
        metavar="N",
        repository=True,
        ge=1,
    )
    max_wall_time: float | None = option(
        None,
        Group.LIMITS,
        "Seconds at most, from the first turn.",
        flag="--max-wall-time",
        metavar="SECONDS",
        repository=True,
        gt=0,
        allow_inf_nan=False,
    )
    command_timeout: float = option(
        120.0,
        Group.LIMITS,
        "Seconds for one command of the model.",
        repository=True,
        gt=0,
        allow_inf_nan=False,
    )

    diagnostics: str = option(
        "auto",
        Group.CONTEXT,
        "Linters whose new findings an edit's result tells: auto, off, or names.",
        more="See [Tools](tools.md#diagnostics).",
        repository=True,
        pattern=rf"^(auto|off|{_LINTERS}(, ?{_LINTERS})*)$",
    )
    thinking: Thinking = option(
        "auto",
        Group.CONTEXT,
        "Keep the model's reasoning in its context; drop that of earlier user turns; or off.",
        flag="--thinking",
        more="`auto` preserves, but where the chat template does not think by itself it is off.",
        repository=True,
    )
    effort: str = option(
        "auto",
        Group.CONTEXT,
        "How much to think: none, low, medium, high, xhigh, or auto (the template's own).",
        flag="--effort",
        metavar="LEVEL",
        more="See [Thinking](thinking.md).",
        repository=True,
    )
    think_budget: int | None = option(
        None,
        Group.CONTEXT,
        "Tokens of reasoning in one turn at most; near it, a sentence's end closes it.",
        flag="--think-budget",
        metavar="N",
        shown="no limit of its own",
        more="See [Thinking](thinking.md#a-budget).",
        repository=True,
        ge=0,
    )
    think_budget_session: int | None = option(
        None,
        Group.CONTEXT,
        "Tokens of reasoning in all turns of a session at most.",
        flag="--think-budget-session",
        metavar="N",
        shown="no limit of its own",
        repository=True,
        ge=0,
    )
    compact: bool = option(
        True,
        Group.CONTEXT,
        "Compact a context that is nearly full.",
        flag="--compact",
        more="See [Long runs](#long-runs).",
    )
    compact_at: float = option(
        0.85,
        Group.CONTEXT,
        "How full, as a part of the context length.",
        flag="--compact-at",
        metavar="PART",
        gt=0,
        lt=1,
        allow_inf_nan=False,
    )
    map_tokens: int | None = option(
        None,
        Group.CONTEXT,
        "Tokens for a map of the code in the first prompt.",
        shown="1024; 0 below 32,768 tokens of context",
        repository=True,
        ge=0,
        le=32_768,
    )

    seed: int = option(
        0,
        Group.SAMPLING,
        "Seed of the sampling.",
        flag="--seed",
        metavar="N",
        more="Attempt *i* uses seed + *i* - 1.",
        ge=0,
        lt=2**63,
    )
    temperature: float | None = option(
        None,
        Group.SAMPLING,
        "0 is greedy.",
        flag="--temperature",
        metavar="T",
        short="-t",
        shown="the checkpoint's",
        repository=True,
        ge=0,
        le=10,
        allow_inf_nan=False,
    )

    approve: Approve = option(
        "never",
        Group.APPROVAL,
        "What to ask for at the terminal before it runs.",
        flag="--approve",
        more="See [Control](control.md).",
    )
    mcp_from_repo: bool = option(
        False,
        Group.APPROVAL,
        "Start the MCP servers that the repository lists; they run outside the sandbox.",
        flag="--mcp-from-repo",
    )

    keep_state: bool = option(True, Group.STORAGE, "Save the model's state after each step.")
    warm_cache_mb: int = option(
        4096,
        Group.STORAGE,
        "MiB for states of prompt beginnings that later runs start from; 0 stores none.",
        ge=0,
    )

    @property
    def online(self) -> bool:
        """True if commands reach the network."""
        return self.network != "none"

    def kept(self) -> dict[str, Any]:
        """Return the values as records keep them: of variables the names alone."""
        names = tuple(entry.partition("=")[0] for entry in self.pass_env)
        return self.model_dump() | {"pass_env": names}

    @model_validator(mode="before")
    @classmethod
    def _turn_thinking_off(cls, values: Any) -> Any:
        """Read the effort ``none`` as ``thinking = "off"``, which it is another way to say."""
        effort = values.get("effort") if isinstance(values, dict) else None
        if isinstance(effort, str) and means_none(effort):
            return {**values, "thinking": "off", "effort": "auto"}
        return values

    @field_validator("effort")
    @classmethod
    def _check_effort(cls, word: str) -> str:
        return read_effort(word) or plain_word(word)

    @field_validator("network", mode="before")
    @classmethod
    def _accept_booleans(cls, value: Any) -> Any:
        """Read the booleans that older sessions and files have."""
        words = {"true": "bridge", "false": "none", "1": "bridge", "0": "none"}
        return words.get(str(value).lower(), value)

    @field_validator("drafts", mode="before")
    @classmethod
    def _accept_switches(cls, value: Any) -> Any:
        """Read the yes and no that older sessions and files have."""
        words = {"true": "auto", "false": "off", "1": "auto", "0": "off"}
        return words.get(str(value).lower(), value)

    @field_validator("mounts", "pass_env", "setup", "setup_files", "model_dirs", mode="before")
    @classmethod
    def _split_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Read one text as a list: of commands a single one, else parted by commas."""
        if not isinstance(value, str):
            return value
        parts = [value] if info.field_name == "setup" else value.split(",")
        return tuple(part.strip() for part in parts if part.strip())

    @field_validator("tools")
    @classmethod
    def _check_profile(cls, name: str) -> str:
        try:
            load_profile(name)
        except ProfileError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("mounts")
    @classmethod
    def _check_mounts(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for mount in mounts:
            parse_mount(mount)
        return mounts

    @field_validator("pass_env")
    @classmethod
    def _check_names(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        environment_of(entries, {})
        return entries


OPTIONS = {name: option_of(field) for name, field in Settings.model_fields.items()}
REPOSITORY_KEYS = frozenset(name for name, row in OPTIONS.items() if row.repository)
IMAGE_KEYS = frozenset({"image", "dockerfile", "devcontainer"})
"""The keys that name an image; one source gives one of them."""
