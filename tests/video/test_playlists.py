"""Files that name other files are not followed: ffmpeg would open them, or wait for them for ever."""

from __future__ import annotations

import pytest

from ptrack.errors import InputError
from ptrack.video import open_source

POINTING = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n",  # without an end: it would be asked for more
    "a.mp4": "ffconcat version 1.0\nfile '{0}'\n",
    "b.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", POINTING)
def test_a_file_that_names_other_files_is_refused(name, tmp_path):
    (tmp_path / name).write_text(POINTING[name].format(tmp_path / "other.mp4"))
    with pytest.raises(InputError, match=r"is a playlist .* give the video itself"):
        open_source(tmp_path / name)
