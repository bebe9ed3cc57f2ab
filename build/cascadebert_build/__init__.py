"""Build, verify, publish and serve a cascade: the Python API.

::

    import cascadebert_build as cascadebert

    config = cascadebert.load_config("cascade.toml")
    cascadebert.build(config, "model_repository")
    with cascadebert.serve("model_repository") as server:
        print(server.url)

`build` does all steps, and `tune`, `publish` and `evaluate` one each. The command line is built on
these functions. Importing this package needs only the base dependencies: each function imports
torch, transformers and the other large packages when it needs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascadebert_core.policy import Policy

    from .config.schema import CascadeConfig
    from .pipeline.build import CascadeBuild
    from .pipeline.evaluate import Evaluated
    from .repository.publish import Publication
    from .server.ports import Ports
    from .server.tritonserver import TritonServer

__all__ = ["build", "evaluate", "load_config", "publish", "serve", "tune"]

# PyPI's ONNX Runtime sends events to Microsoft from 1.32 on, unless this is set before it is
# imported. Set the variable to 0 to send them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_Path = str | os.PathLike[str]


def load_config(path: _Path) -> CascadeConfig:
    """Read and check a cascade.toml.

    Args:
        path: The file; relative paths in it are relative to its folder.

    Returns:
        The cascade's settings, complete with defaults.

    Raises:
        UsageError: The file is missing or a value in it is wrong.
    """
    from .config.cascade_toml import config_from_file

    return config_from_file(Path(path))


def build(
    config: CascadeConfig,
    repository: _Path,
    *,
    work_dir: _Path | None = None,
    force: bool = False,
    keep: int = 3,
    quick: bool = False,
) -> Publication:
    """Build a cascade from its checkpoints and publish it: export, compile, verify, tune, publish.

    Args:
        config: The cascade's settings.
        repository: The Triton model repository; it is created if it does not exist.
        work_dir: Folder of the artefacts; None is `work/<cascade>` beside cascade.toml.
        force: Whether steps are repeated that are up to date.
        keep: Newest versions of the cascade that stay published.
        quick: Whether checks and timing are bounded to about a minute. What they leave out is a
            verdict in the policy's certificate.

    Returns:
        What was published: version, policy, and the models that were written.

    Raises:
        UsageError: The settings or the data do not allow the build.
        CheckFailed: An artefact did not pass its check.
        EngineError: A TensorRT engine cannot be built here.
    """
    return _build(config, work_dir, force=force, quick=quick).build(Path(repository), keep)


def tune(config: CascadeConfig, *, work_dir: _Path | None = None, force: bool = False) -> Policy:
    """Choose temperatures and thresholds on the held-out rows of an exported cascade.

    Args:
        config: The cascade's settings, with the goals.
        work_dir: Folder of the artefacts; None is `work/<cascade>` beside cascade.toml.
        force: Whether logits and times are measured again.

    Returns:
        The policy with its operating points and their certificate; it is in the work folder too.

    Raises:
        UsageError: A member is not exported, a goal cannot be met, or the rows cannot show it.
        CheckFailed: An artefact cannot run on this machine.
    """
    return _build(config, work_dir, force=force).tune()


def publish(
    config: CascadeConfig,
    repository: _Path,
    *,
    work_dir: _Path | None = None,
    keep: int = 3,
) -> Publication:
    """Publish a verified and tuned cascade in a model repository, as a new version.

    Args:
        config: The cascade's settings.
        repository: The Triton model repository; it is created if it does not exist.
        work_dir: Folder of the artefacts; None is `work/<cascade>` beside cascade.toml.
        keep: Newest versions of the cascade that stay published.

    Returns:
        What was published: version, policy, and the models that were written.

    Raises:
        UsageError: A check has not passed, nothing was tuned, or the repository cannot be written.
        EngineError: An engine does not hold the calls of its stage.
    """
    return _build(config, work_dir).publish(Path(repository), keep)


def evaluate(
    config: CascadeConfig,
    *,
    work_dir: _Path | None = None,
    force: bool = False,
    data: str | None = None,
    data_format: str | None = None,
    all_rows: bool = False,
    operating_point: str | None = None,
    threshold: float | Sequence[float] | None = None,
) -> Evaluated:
    """Evaluate a tuned cascade offline: accuracy, deferral, exits and confidence.

    Args:
        config: The cascade's settings.
        work_dir: Folder of the artefacts; None is `work/<cascade>` beside cascade.toml.
        force: Whether logits are computed again.
        data: Rows in the place of the held-out rows, with the same columns; None takes the
            held-out rows that chose neither temperatures nor thresholds.
        data_format: Format of the file `data`, such as "csv"; None is what its ending tells.
        all_rows: Whether the held-out rows that did choose count as well.
        operating_point: Name of an operating point; None is the policy's default one.
        threshold: A threshold for every stage that may defer, or one for each, in the place of an
            operating point.

    Returns:
        The figures, with the answer for every row and what they are made from.

    Raises:
        UsageError: Nothing is tuned, or an argument is wrong.
        CheckFailed: An artefact cannot run on this machine.
    """
    from .pipeline.evaluate import evaluate_build

    return evaluate_build(
        _build(config, work_dir, force=force),
        data=data,
        data_format=data_format,
        all_rows=all_rows,
        operating_point=operating_point,
        threshold=threshold,
    )


def serve(
    repository: _Path,
    cascades: Sequence[str] = (),
    *,
    ports: Ports | None = None,
    versions: Mapping[str, Sequence[int]] | None = None,
    instances: Mapping[str, int] | None = None,
    threads: Mapping[str, int] | None = None,
    log_path: _Path | None = None,
    log_requests: str | None = None,
    log_text: bool | None = None,
    tls_cert: _Path | None = None,
    tls_key: _Path | None = None,
    tls_client_ca: _Path | None = None,
) -> AbstractContextManager[TritonServer]:
    """Serve published cascades on this machine with the embedded Triton server, over loopback.

    Args:
        repository: The Triton model repository.
        cascades: Names of the cascades; empty is all that are published.
        ports: Ports of the endpoints; None picks free ones.
        versions: Versions to serve, by the cascade's name; the default is what was published or
            loaded last.
        instances: Number of instances by stage model or cascade, or for all stages under ""; the
            default fits this machine.
        threads: Threads of each instance, likewise.
        log_path: File for the server's output.
        log_requests: Which requests are lines of that output: "errors", "all" or "none"; the
            default is what config.pbtxt says, or errors.
        log_text: Whether these lines hold the texts; the default is what config.pbtxt says, or no.
        tls_cert: The server's certificate (PEM), if its gRPC port is to speak TLS.
        tls_key: The private key of `tls_cert`.
        tls_client_ca: The authority whose certificates callers must show (mutual TLS).

    Returns:
        A context manager that yields the running server, and stops it at the end.

    Raises:
        UsageError: There is nothing to serve, or this environment cannot serve it.
        CheckFailed: The server or a model does not start.
    """
    from .server.ports import Ports
    from .server.serve import serve_cascades
    from .server.serve_parameters import LogSettings
    from .server.tls import tls_of

    cert, key, authority = (
        None if path is None else Path(path) for path in (tls_cert, tls_key, tls_client_ca)
    )
    return serve_cascades(
        Path(repository),
        cascades,
        ports=ports or Ports(0, 0, 0),
        versions=versions,
        instances=instances,
        threads=threads,
        log_path=None if log_path is None else Path(log_path),
        log=LogSettings(log_requests, log_text),
        tls=tls_of(cert, key, authority),
    )


def _build(
    config: CascadeConfig, work_dir: _Path | None, *, force: bool = False, quick: bool = False
) -> CascadeBuild:
    from .pipeline.build import CascadeBuild
    from .pipeline.workspace import workspace_of

    folder = None if work_dir is None else Path(work_dir)
    return CascadeBuild(config, workspace_of(config, folder), force=force, quick=quick)
