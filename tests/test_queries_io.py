import io

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ptrack import queries_io
from ptrack.errors import QueryError
from ptrack.queries_io import QueryOptions, load_mask, load_queries, mask_points, parse_point, plan_queries


def build(size=(48, 64), **options):
    return plan_queries(QueryOptions(**options)).build(size)


def test_points():
    assert parse_point("3,4.5") == (0, 3, 4.5)
    assert parse_point(" 3 , 4 @7") == (7, 3, 4)
    for text in ("3", "3,x", "3,4,5", "3,4@x", ""):
        with pytest.raises(QueryError, match="write X,Y or X,Y@T"):
            parse_point(text)


def test_default_is_a_grid_and_kinds_add_up(tmp_path):
    assert len(build()) == 256
    assert len(build(points=["1,2"])) == 1
    (tmp_path / "q.csv").write_text("t,x,y,id\n0,1,2,nose\n3,4,5,tail\n")
    both = build(points=["1,2@3"], file=tmp_path / "q.csv", grid=2)
    assert both.points[:3].tolist() == [[3, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert len(both) == 7
    assert build(file=tmp_path / "q.csv").ids.tolist() == ["nose", "tail"]
    assert build(grid=1, grid_frame=5).points.tolist() == [[5, 32, 24]]


def test_outside_is_refused():
    with pytest.raises(QueryError, match="outside the 64x48 frame"):
        build(points=["70,2"])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"grid": 0}, "--grid 0"), ({"grid_frame": -1}, "--grid-frame"), ({"num": 3}, "add --mask")],
)
def test_option_errors(options, words):
    with pytest.raises(QueryError, match=words):
        QueryOptions(**options)
    with pytest.raises(QueryError, match="--num 0"):
        QueryOptions(mask="m.png", num=0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("q.csv", "a,b\n1,2\n", "no column 't'"),
        ("q.csv", "t,x,y\n0,1\n", "line 2"),
        ("q.csv", "t,x,y\n0,1,nan\n", "NaN"),
        ("q.csv", "t,x,y,id\n0,1,1,a\n0,2,2,a\n", "more than once"),
        ("q.json", "{", "cannot be read"),
        ("q.json", '{"a": 1}', 'no "queries"'),
        ("q.json", '[{"t": 0, "x": 1}]', "no 'y'"),
        ("q.npz", "junk", "cannot be read"),
        ("q.txt", "0 1 2", r"end in \.csv"),
    ],
)
def test_bad_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(QueryError, match=words) as caught:
        load_queries(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file_and_npz_without_queries(tmp_path):
    with pytest.raises(QueryError, match="There is no query file"):
        load_queries(tmp_path / "q.csv")
    np.savez(tmp_path / "q.npz", other=1)
    with pytest.raises(QueryError, match="no array 'queries'"):
        load_queries(tmp_path / "q.npz")


@pytest.mark.parametrize(
    "text", ["[[0,1,2],[1,3,4]]", '{"queries": [[0,1,2],[1,3,4]]}', '[{"t":0,"x":1,"y":2},{"t":1,"x":3,"y":4}]']
)
def test_json_forms(tmp_path, text):
    (tmp_path / "q.json").write_text(text)
    assert load_queries(tmp_path / "q.json").points.tolist() == [[0, 1, 2], [1, 3, 4]]


def test_npz_and_csv_with_byte_order_mark(tmp_path):
    np.savez(tmp_path / "q.npz", queries=np.asarray([[0, 1, 2]]), ids=np.asarray(["a"]))
    assert load_queries(tmp_path / "q.npz").ids.tolist() == ["a"]
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbft, x, y\n0, 1, 2\n")
    assert load_queries(tmp_path / "q.csv").points.tolist() == [[0, 1, 2]]


def test_mask(tmp_path):
    image = np.zeros((24, 32), np.uint8)
    image[6:18, 8:16] = 200
    iio.imwrite(tmp_path / "m.png", image)
    mask = load_mask(tmp_path / "m.png")
    queries = build(mask=tmp_path / "m.png", grid=4, grid_frame=2)  # the frame is twice the mask's size
    assert len(queries) == 16
    assert (queries.t == 2).all()
    assert (mask[(queries.xy[:, 1] / 2).astype(int), (queries.xy[:, 0] / 2).astype(int)]).all()
    random = build(mask=tmp_path / "m.png", num=10)
    assert len(np.unique(random.xy, axis=0)) == 10
    assert len(build(mask=tmp_path / "m.png", num=10_000)) == 12 * 8  # one per pixel at most


SQUARE = np.zeros((96, 128), bool)
SQUARE[20:40, 25:45] = True


def mask_images() -> dict[str, Image.Image]:
    """The same object as people have it: drawn, as labels, in colours, cut out."""
    m = SQUARE
    noise = np.random.default_rng(0).integers(0, 255, (*m.shape, 3)).astype(np.uint8)
    drawn = Image.fromarray((m * 255).astype(np.uint8))
    palette = Image.fromarray(m.astype(np.uint8), "P")
    palette.putpalette([9, 9, 9, 128, 0, 0])
    soft = drawn.resize((256, 192), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=40)
    return {
        "drawn.png": drawn,
        "ones.png": Image.fromarray(m.astype(np.uint8)),
        "labels.png": Image.fromarray((m * 300).astype(np.uint16)),
        "many.png": Image.fromarray((np.cumsum(m, 1) * m).astype(np.uint8)),
        "blue.png": Image.fromarray(np.dstack([m * 0, m * 0, m * 200]).astype(np.uint8)),
        "bit.png": Image.fromarray(m),
        "palette.png": palette,
        "greys.png": drawn.convert("P"),
        "half.png": drawn.resize((64, 48), Image.Resampling.NEAREST),
        "soft.png": soft,
        "jpeg.jpg": drawn,
        "saved_again.png": Image.open(buffer).convert("RGB"),
        "cutout.png": Image.fromarray(np.dstack([noise, (m * 255).astype(np.uint8)]), "RGBA"),
        "grey_cutout.png": Image.merge("LA", [Image.new("L", (128, 96), 255), drawn]),
    }


@pytest.mark.parametrize("name", mask_images())
def test_every_kind_of_mask_is_its_object(name, tmp_path):
    mask_images()[name].save(tmp_path / name, **({"quality": 40} if name == "jpeg.jpg" else {}))
    xy = build(size=(96, 128), mask=tmp_path / name, num=200).xy
    inside = (xy[:, 0] > 24.5) & (xy[:, 0] < 45.5) & (xy[:, 1] > 19.5) & (xy[:, 1] < 40.5)
    assert inside.all()
    assert len(xy) >= 100


def test_a_mask_of_another_shape_is_refused(tmp_path):
    Image.fromarray(SQUARE.T).save(tmp_path / "turned.png")
    with pytest.raises(QueryError, match=r"96x128 pixels, the frame 128x96.*looks turned by 90 degrees"):
        build(size=(96, 128), mask=tmp_path / "turned.png")
    with pytest.raises(QueryError, match="another aspect ratio"):
        mask_points(SQUARE, (96, 96), grid=4)
    assert len(mask_points(np.ones((359, 639), bool), (719, 1279), grid=4)) == 16  # a side may have been rounded


def test_masks_that_are_too_large_or_several_are_refused(tmp_path, monkeypatch):
    Image.fromarray(SQUARE).save(tmp_path / "m.tif", save_all=True, append_images=[Image.fromarray(SQUARE)])
    with pytest.raises(QueryError, match="holds 2 pictures"):
        load_mask(tmp_path / "m.tif")
    monkeypatch.setattr(queries_io, "MASK_PIXELS", 1000)
    Image.fromarray(SQUARE).save(tmp_path / "m.png")
    with pytest.raises(QueryError, match=r"128x96 pixels; a mask may have"):
        load_mask(tmp_path / "m.png")


def test_mask_kinds_and_errors(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 3] = 255
    iio.imwrite(tmp_path / "empty.png", rgba)
    with pytest.raises(QueryError, match="is empty"):
        load_mask(tmp_path / "empty.png")
    rgba[2, 3, 1] = 9
    iio.imwrite(tmp_path / "one.png", rgba)
    assert load_mask(tmp_path / "one.png").sum() == 1
    with pytest.raises(QueryError, match="There is no mask"):
        load_mask(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(QueryError, match="cannot be read as an image"):
        load_mask(tmp_path / "text.png")
    ring = np.zeros((9, 9), bool)
    ring[0], ring[-1], ring[:, 0], ring[:, -1] = True, True, True, True
    with pytest.raises(QueryError, match="No grid point lies inside"):
        mask_points(ring, (9, 9), grid=1)
