"""Twenty clips from a store into a store, end to end, on a loopback S3 server (moto's).

    python -m scripts.check_s3

Tracks with two workers, again, and in three shards into another folder; what must hold ends in "ok".
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from tests.batch.many import check, make_clips, timed

CLIPS = 20


def main() -> None:
    import fsspec
    from moto.server import ThreadedMotoServer

    from ptrack.batch.places import open_place
    from ptrack.batch.report import folder_status

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    keys = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    os.environ.update({f"AWS_{name}": value for name, value in keys.items()})
    os.environ["AWS_ENDPOINT_URL"] = "http://{}:{}".format(*server.get_host_and_port())
    store = fsspec.filesystem("s3", use_listings_cache=False)
    store.mkdir("videos")
    with tempfile.TemporaryDirectory() as name:
        make_clips(Path(name) / "clips", CLIPS, 0)
        for path in (Path(name) / "clips").iterdir():
            store.put_file(str(path), f"videos/clips/{path.name}")
        options = ["--model", "static", "--workers", "2"]
        seconds = timed("s3://videos/out", "s3://videos/clips/", *options)
        found = folder_status(open_place("s3://videos/out"))
        check(f"{len(found.rows)} clips in {seconds:.0f} s", found.complete and len(found.rows) == CLIPS)
        names = [n for n in open_place("s3://videos/out").sizes() if not n.endswith(".json")]
        whole = {n: store.cat_file(f"videos/out/{n}") for n in names}
        check(f"{len(whole)} files", len(whole) == 2 * CLIPS)
        before = {n: store.info(f"videos/out/{n}")["LastModified"] for n in whole}
        seconds = timed("s3://videos/out", "s3://videos/clips/", *options)
        after = {n: store.info(f"videos/out/{n}")["LastModified"] for n in whole}
        check(f"a second run takes {seconds:.0f} s and uploads no result", before == after)
        for i in range(3):
            timed("s3://videos/parts", "s3://videos/clips/", *options, "--shard", f"{i}/3")
        parts = {n: store.cat_file(f"videos/parts/{n}") for n in whole}
        check("shards 0/3, 1/3, 2/3 give the same bytes", parts == whole)
    server.stop()


if __name__ == "__main__":
    main()
