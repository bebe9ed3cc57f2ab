"""The line on stderr of a command that fails."""

import json


def error_line(command: str, kind: str, message: str, exit_code: int, *, as_json: bool) -> str:
    """Return the line: words, or one JSON object for programs.

    Args:
        command: The command's name.
        kind: The name of the exception.
        message: What was wrong, and the remedy.
        exit_code: The command's exit code.
        as_json: Whether the command was called with --json.
    """
    if not as_json:
        return f"cascadebert {command}: error: {message}"
    error = {"command": command, "type": kind, "message": message, "exit_code": exit_code}
    return json.dumps({"error": error})
