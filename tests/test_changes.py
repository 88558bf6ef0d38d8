import numpy as np
from samples import gradient, save

from onelabel import changes
from onelabel.reading import open_image


def test_blur_keeps_the_light_and_loses_the_texture():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    soft = changes.blurred(rgb, 0.8)
    assert soft.shape == rgb.shape and soft.dtype == np.uint8
    np.testing.assert_allclose(soft.mean((0, 1)), rgb.mean((0, 1)), atol=1)
    assert soft.astype(float).var() < 0.8 * rgb.astype(float).var()


def test_noise_is_as_strong_as_asked_and_the_same_each_time():
    grey = np.full((100, 100, 3), 128, np.uint8)
    found = changes.noisy(grey, 6)
    assert found.dtype == np.uint8
    assert abs((found.astype(float) - 128).std() - 6) < 0.1
    assert abs(found.astype(float).mean() - 128) < 0.1
    np.testing.assert_array_equal(found, changes.noisy(grey, 6))
    assert changes.noisy(np.zeros((9, 9, 3), np.uint8), 6).min() == 0
    assert changes.noisy(np.full((9, 9, 3), 255, np.uint8), 6).min() > 200  # no wrap


def test_compressed_is_what_a_jpeg_file_holds(tmp_path):
    for quality in (50, 90):
        path = save(tmp_path / "a.jpg", gradient(), quality=quality)
        found = changes.compressed(gradient(), quality)
        np.testing.assert_array_equal(found, open_image(path).whole())


def test_every_change_gives_bytes_of_the_same_size():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    for change in (*changes.VERSIONS, *changes.CHANGES.values()):
        found = change(rgb)
        assert found.shape == rgb.shape
        assert found.dtype == np.uint8
        assert (found != rgb).any()
