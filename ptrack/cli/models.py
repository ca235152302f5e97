"""``ptrack models``: what can be loaded by name."""

from __future__ import annotations

from ptrack.cli import options
from ptrack.cli.console import Output


def models(json: options.Json = False) -> None:
    """List the models, their licences and where their weights are."""
    from ptrack.models.zoo import DEFAULT_MODEL
    from ptrack.models.zoo import models as known

    output = Output(json_mode=json)
    rows = [
        [f"{m.name} (default)" if m.name == DEFAULT_MODEL else m.name, m.summary, m.licence, m.weights, m.package]
        for m in known().values()
    ]
    output.table("Models", ["name", "what it is", "licence", "weights", "from"], rows)
    output.document(
        [
            {
                "name": m.name,
                "summary": m.summary,
                "licence": m.licence,
                "weights": m.weights,
                "file": m.file or None,
                "bytes": m.size,
                "sha256": m.sha256 or None,
                "options": m.options,
                "package": m.package,
            }
            for m in known().values()
        ]
    )
