"""Words of errors: full stops, hints, numbers, and what a program hands over where text is wanted."""

import pytest
import torch

import ptrack
from ptrack.errors import DeviceError, InputError, ModelError, PTrackError, TracksError, count, did_you_mean
from ptrack.models.devices import choose_device, choose_dtype


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a.h5 is damaged (It ends early.).", "a.h5 is damaged (It ends early)."),
        ("Cannot write a.h5: The disk is full.. Free some.", "Cannot write a.h5: The disk is full. Free some."),
        ("sha 12ab.... Give the right one.", "sha 12ab.... Give the right one."),
        ("There is no file in .. Check.", "There is no file in .. Check."),
        ("a/../b.mp4 is missing.", "a/../b.mp4 is missing."),
    ],
)
def test_a_sentence_inside_another_ends_once(given, shown):
    assert str(PTrackError(given)) == shown
    assert str(InputError(given)) == shown


def test_a_hint_is_never_the_word_itself():
    assert did_you_mean("nano", ["nano", "nan"]) == " Did you mean 'nan'?"
    assert did_you_mean("nano", ["nano"]) == ""


@pytest.mark.parametrize(("word", "meant"), [("gpu", "cuda"), ("GPU:0", "cuda"), ("metal", "mps"), ("cdua", "cuda")])
def test_devices_by_another_name(word, meant):
    with pytest.raises(DeviceError, match=f"Did you mean '{meant}'?"):
        choose_device(word)


def test_devices_and_types_of_torch():
    assert choose_device(torch.device("cpu")).device == torch.device("cpu")
    assert choose_dtype(torch.float32, torch.device("cpu")) == torch.float32
    with pytest.raises(DeviceError, match="Unknown device '0'"):
        choose_device(0)
    with pytest.raises(DeviceError) as caught:
        choose_dtype("float16", torch.device("cpu"))
    assert "--" not in str(caught.value)


def test_what_is_no_name_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"text such as 'nano', not by 3 \(int\)"):
        ptrack.load(3)
    with pytest.raises(TracksError, match="not by 3"):
        ptrack.load_tracks(3)
    with pytest.raises(InputError, match="name of the source is empty"):
        ptrack.open_source(" ")
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match="dead.mp4. Check the name: it is a link to something that does not exist."):
        ptrack.open_source(tmp_path / "dead.mp4")


def test_python_errors_use_python_words():
    for call in (
        lambda: ptrack.load("nano", quality="fastest"),
        lambda: ptrack.load("transformer"),
        lambda: ptrack.load("nano", device="cuda:77"),
    ):
        with pytest.raises(PTrackError) as caught:
            call()
        assert "--" not in str(caught.value)


def test_numbers_of_things():
    assert [count(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
