"""Files that name other files are not followed: ffmpeg would open them, or wait for them for ever."""

from __future__ import annotations

import pytest

from ptrack.errors import InputError
from ptrack.video import open_source

POINTING = {
    "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n",  # without an end: it would be asked for more
    "list of files": "ffconcat version 1.0\nfile '{0}'\n",
    "stream": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", POINTING)
def test_a_file_that_names_other_files_is_refused(kind, tmp_path):
    (tmp_path / "a.mp4").write_text(POINTING[kind].format(tmp_path / "other.mp4"))
    with pytest.raises(InputError, match=r"a\.mp4 is a playlist .* give the video itself"):
        open_source(tmp_path / "a.mp4")
