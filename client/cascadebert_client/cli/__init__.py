"""The commands that call a server: `classify`, `status`, `audit` and `gateway`."""

import sys
from collections.abc import Sequence

from .command_parser import CommandParser
from .command_table import add_commands, add_examples

__all__ = ["COMMANDS", "EXAMPLES", "main"]

COMMANDS = {
    "classify": "cascadebert_client.cli.classify:add_classify_parser",
    "status": "cascadebert_client.cli.status:add_status_parser",
    "audit": "cascadebert_client.cli.audit:add_audit_parser",
    "gateway": "cascadebert_gateway.parser:add_gateway_parser",
}
"""The function that adds each command."""

EXAMPLES = {
    "classify": """
cascadebert classify "a gorgeous film" "a dull one"
cascadebert classify --file reviews.csv --text sentence --output answers.jsonl
cascadebert classify --file pairs.tsv --text question --text-pair sentence --json
tail -f reviews.log | cascadebert classify --json
""",
    "status": """
cascadebert status
cascadebert status --url triton.example:8001 --model sst2 --json
""",
    "audit": """
cascadebert audit --model sst2
cascadebert audit --model sst2 --max-disagreement 0.02 --confidence 0.99
""",
    "gateway": """
cascadebert gateway
cascadebert gateway --url a:8001,b:8001 --host 0.0.0.0 --keys-file keys.txt
curl 127.0.0.1:8080/classify -d '{"text": "a gorgeous film"}'
""",
}
"""Lines for the end of each command's help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m cascadebert_client.cli`: the commands without the build package."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = CommandParser(prog="cascadebert", description="Call a cascade served by Triton.")
    add_commands(parser, COMMANDS, given)
    add_examples(parser, EXAMPLES)
    args = parser.parse_args(given)
    from .exit_codes import run_command  # it imports gRPC

    return run_command(args)
