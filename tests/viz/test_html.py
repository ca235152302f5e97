from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ptrack.errors import InputError, OutputError, TracksError
from ptrack.video import open_source
from ptrack.viz.html import viewer_html, write_viewer
from ptrack.viz.html.builder import FrameCode, frame_times, viewer_data
from ptrack.viz.pairing import open_video_of, paired
from tests.viz.scenes import H, W, make_tracks, numbered_frame, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, [numbered_frame(i) for i in range(12)])
    return path


def _data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def _number(frame: np.ndarray) -> int:
    return int((1 << np.flatnonzero(frame[H // 2, 8::16, 0] > 127)).sum())


def test_the_page_holds_the_tracks_exactly(clip, tmp_path):
    tracks = make_tracks()
    write_viewer(tracks, open_source(str(clip)), tmp_path / "out.html")
    data = _data((tmp_path / "out.html").read_text())
    xy = np.frombuffer(base64.b64decode(data["xy"]), "<f4").reshape(12, 6, 2)
    np.testing.assert_array_equal(xy, tracks.tracks)
    flags = np.frombuffer(base64.b64decode(data["visible"]), np.uint8).reshape(12, 6)
    np.testing.assert_array_equal(flags, tracks.visible)
    assert data["ids"] == tracks.ids.tolist()
    assert data["frames"] == list(range(12))


def test_the_embedded_video_has_frame_i_at_time_i(clip, tmp_path):
    tracks = make_tracks()
    write_viewer(tracks, open_source(str(clip)), tmp_path / "out.html")
    data = _data((tmp_path / "out.html").read_text())
    (tmp_path / "inner.mp4").write_bytes(base64.b64decode(data["video"]))
    frames = list(open_source(str(tmp_path / "inner.mp4")))
    assert [_number(f.rgb) for f in frames] == list(range(12))
    np.testing.assert_allclose([f.pts for f in frames], data["times"], atol=1e-5)


def test_every_picture_carries_its_number(clip, tmp_path):
    write_viewer(make_tracks(), open_source(str(clip)), tmp_path / "out.html")
    data = _data((tmp_path / "out.html").read_text())
    (tmp_path / "inner.mp4").write_bytes(base64.b64decode(data["video"]))
    code = data["code"]
    assert code == {"cell": 8, "top": H, "columns": W // 8, "bits": 4}
    for i, frame in enumerate(open_source(str(tmp_path / "inner.mp4"))):
        cells = frame.rgb[code["top"] + 4, 4 :: code["cell"], 0] > 127
        assert int((1 << np.flatnonzero(cells[:4])).sum()) == i
        assert cells[:5].sum() % 2 == 0


@pytest.mark.parametrize(("width", "frames", "rows"), [(96, 1, 1), (96, 50_000, 2), (854, 50_000, 1), (4, 9, 5)])
def test_numbers_fit_below_pictures_of_any_width(width, frames, rows):
    code = FrameCode.below(10, width, frames)
    assert code.rows == rows
    assert code.stamped(np.zeros((10, width, 3), np.uint8), frames - 1).shape == (10 + 8 * rows, width, 3)


def test_video_beside_and_overwriting(clip, tmp_path):
    tracks = make_tracks()
    made = write_viewer(tracks, open_source(str(clip)), tmp_path / "o.html", embed=False)
    assert [p.name for p in made] == ["o.html", "o.mp4"]
    assert _data(made[0].read_text())["videoFile"] == "o.mp4"
    with pytest.raises(OutputError, match="already exists"):
        write_viewer(tracks, open_source(str(clip)), tmp_path / "o.html")
    made[0].unlink()
    with pytest.raises(OutputError, match=r"o\.mp4 already exists"):
        write_viewer(tracks, open_source(str(clip)), tmp_path / "o.html", embed=False)


def test_text_from_outside_stays_text():
    tracks = make_tracks(2, 1)
    tracks = replace(tracks, ids=np.asarray(["</script><script>alert(1)</script>"]))
    page = viewer_html(viewer_data(tracks), "<b>{{data}}</b> & co")
    assert page.count("<script") == 2
    assert "<title>&lt;b&gt;{{data}}&lt;/b&gt; &amp; co</title>" in page
    assert _data(page)["ids"] == tracks.ids.tolist()


def test_the_page_asks_nothing_of_any_network():
    page = viewer_html(viewer_data(make_tracks()), "x")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", page)
    assert "default-src 'none'" in page
    assert "connect-src" not in page


def test_variable_times_are_kept_and_broken_ones_replaced():
    tracks = make_tracks(4)
    uneven = replace(tracks, pts_seconds=np.asarray([1.0, 1.1, 1.5, 1.6]))
    np.testing.assert_allclose(frame_times(uneven), [0, 0.1, 0.5, 0.6], atol=1e-5)
    for broken in ([0.0, 0.0, 0.1, 0.2], [0.0, np.nan, 0.1, 0.2], [0.3, 0.2, 0.1, 0.0]):
        times = frame_times(replace(tracks, pts_seconds=np.asarray(broken)))
        np.testing.assert_allclose(times, np.arange(4) / 20, atol=1e-5)
    viewer_data(replace(tracks, pts_seconds=np.asarray([0.0, np.nan, 0.1, 0.2])))


@pytest.mark.parametrize("frames", [1, 50_000])
def test_one_and_very_many_frames(frames):
    data = viewer_data(make_tracks(frames, 1))
    assert len(data["times"]) == frames
    assert len(base64.b64decode(data["xy"])) == frames * 8
    json.dumps(data, allow_nan=False)


def test_one_frame_viewer_from_a_stride_with_a_missing_end(clip, tmp_path):
    write_viewer(make_tracks(1, 2), open_source(str(clip)), tmp_path / "one.html")
    longer = make_tracks(15, 2)  # the clip ends at frame 12: the last picture stays
    write_viewer(longer, open_source(str(clip)), tmp_path / "longer.html")
    data = _data((tmp_path / "longer.html").read_text())
    (tmp_path / "inner.mp4").write_bytes(base64.b64decode(data["video"]))
    assert [_number(f.rgb) for f in open_source(str(tmp_path / "inner.mp4"))] == [*range(12), 11, 11, 11]


def test_the_right_video_is_found_and_others_refused(clip, tmp_path):
    digest = open_source(str(clip)).sha256()
    tracks = make_tracks(source=str(clip), source_sha256=digest)
    with open_video_of(tracks) as source:
        assert [t for t, _ in paired(tracks, source)] == list(range(12))
    other = tmp_path / "other.mp4"
    write_clip(other, [numbered_frame(63 - i) for i in range(12)])
    with pytest.raises(InputError, match=r"belong to another video.*--force"):
        open_video_of(tracks, str(other))
    open_video_of(tracks, str(other), force=True).close()
    wide = replace(tracks, info=replace(tracks.info, source_sha256="", width=10))
    with pytest.raises(InputError, match="10x64 video"):
        open_video_of(wide, str(clip))


def test_missing_video_and_empty_tracks(clip, tmp_path):
    with pytest.raises(InputError, match=r"gone\.mp4.*--video"):
        open_video_of(make_tracks(source=str(tmp_path / "gone.mp4")))
    with pytest.raises(InputError, match=r"no source.*--video"):
        open_video_of(make_tracks(source=""))
    with pytest.raises(TracksError, match="no frames"):
        open_video_of(make_tracks(0, 0), str(clip))
    late = replace(make_tracks(2, 1), frame_index=np.asarray([3, 5]), pts_seconds=np.asarray([0.15, 0.25]))
    with open_video_of(late, str(clip)) as source:
        assert [_number(f.rgb) for _, f in paired(late, source)] == [3, 5]
    later = replace(late, frame_index=np.asarray([7, 8]))
    with pytest.raises(InputError, match="none of the 2 frames"):
        list(paired(later, open_source(np.zeros((3, H, W, 3), np.uint8))))


def test_a_video_beside_the_page_is_found_whatever_its_name(clip, tmp_path):
    from urllib.parse import unquote, urljoin, urlsplit

    page = tmp_path / "a #1? 50% x:y.html"
    write_viewer(make_tracks(), open_source(str(clip)), page, embed=False)
    address = urljoin(page.as_uri(), _data(page.read_text())["videoFile"])  # as a browser does
    assert unquote(urlsplit(address).path) == str(page.with_suffix(".mp4"))
    assert page.with_suffix(".mp4").exists()
