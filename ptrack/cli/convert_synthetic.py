"""``ptrack convert synthetic``: clips of the synthetic world into a clip store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import convert, options
from ptrack.cli.console import Output


def synthetic(
    out: Annotated[Path, typer.Argument(help="The HDF5 file to write.")],
    clips: Annotated[int, typer.Option(help="Number of clips.", min=1)] = 16,
    start: Annotated[int, typer.Option(help="Number of the first clip.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="train, val (other actors, other photos) or all.")] = "train",
    seed: Annotated[int, typer.Option(help="Another seed gives other clips.")] = 0,
    frames: Annotated[int, typer.Option(help="Frames of each clip.")] = 24,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 256,
    points: Annotated[int, typer.Option(help="Points of each clip.")] = 256,
    supersampling: Annotated[
        float, typer.Option(help="Rendered pixels per pixel, along each side; 1 is fastest and jagged.")
    ] = 1.5,
    actors: Annotated[Path | None, typer.Option(help="Folder with more actors.")] = None,
    textures: Annotated[Path | None, typer.Option(help="Folder with more photos.")] = None,
    device: Annotated[str, typer.Option(help="Where clips are rendered: cpu, cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(help="Clips rendered at once; more keeps a GPU busy.", min=1)] = 1,
    codec: convert.Codec = "keep",
    quality: convert.Quality = 95,
    shards: convert.Shards = 1,
    workers: convert.Workers = 0,
    retries: options.Retries = 1,
    timeout: options.Timeout = None,
    dry_run: convert.DryRun = False,
    overwrite: options.Overwrite = False,
    json_mode: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render clips with exact tracks: ptrack convert synthetic train.h5 --clips 1000 --workers 2."""
    given = locals()
    from ptrack.data.convert import ConvertOptions
    from ptrack.data.sources.synthetic import Synthetic
    from ptrack.data.synthetic.config import SyntheticConfig

    wanted = ConvertOptions(**options.fields_of(ConvertOptions, given, clips=()))
    folders = {"actors_dir": str(actors) if actors else None, "textures_dir": str(textures) if textures else None}
    world = SyntheticConfig(**options.fields_of(SyntheticConfig, given, height=size, width=size, **folders))
    source = Synthetic(world, clips, start, device, batch)
    output = Output(json_mode, quiet)
    convert.run(source, out, wanted, convert.make_loader(workers, retries, timeout, output), dry_run, output)
