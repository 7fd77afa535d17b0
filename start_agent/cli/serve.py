"""``start-agent serve``: serves a model over OpenAI's API."""

from __future__ import annotations

import argparse
from typing import Any

from start_agent import fields
from start_agent.build import SolverConfig
from start_agent.cli.exit_codes import ExitCode
from start_agent.cli.solving import add_options, hide_progress_bars, notice, run_to_end
from start_agent.errors import ConfigError, MissingExtraError
from start_agent.server.options import ServerOptions

_EXAMPLES = """examples:
  start-agent serve
  start-agent serve --model Qwen/QwQ-32B --engine vllm --temperature 0.6 --top-p 0.95 --api-key-file keys
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"model": "pocket", "messages": [{"role": "user", "content": "What is 48613 * 7957?"}]}'

For clients of OpenAI's API: base_url http://127.0.0.1:8000/v1. Each request may set its own seed. The decoding options
are the defaults for requests; limits are also the most that a request may ask for.
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        description="Serve a model over OpenAI's API: chat completions, responses, completions, containers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, {"server": ServerOptions}, leave_out=("seed",))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives; 0 after a signal, ``ENGINE_DIED`` if the engine died."""
    file, given = fields.read_yaml(arguments.config), vars(arguments)
    fields.refuse_unknown(file, [ServerOptions, *SolverConfig.models(file, given)], arguments.config)
    if "seed" in file:
        raise ConfigError(f"{arguments.config}: 'seed' is not an option of serve; each request may set its own")
    config, options = SolverConfig.from_layers(file, given), fields.build(ServerOptions, file, given)
    try:
        from start_agent.server.serving import new_event_loop
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "server") from error
    return run_to_end(_serve(config, options), new_event_loop)


async def _serve(config: SolverConfig, options: ServerOptions) -> int:
    from start_agent.server.serving import End, serve

    hide_progress_bars(config)
    end = await serve(config, options, on_notice=notice)
    if end is End.ENGINE_DIED:
        notice("the engine died; restart the server")
        return ExitCode.ENGINE_DIED
    return ExitCode.COMPLETE
