"""How large the pixels of a map are, and areas on the command line."""

import math

import numpy as np
import pytest
from conftest import predict_here
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine
from samples import blobs, on_earth, save, write_tiff

from onelabel import console, ground
from onelabel.files import InputError
from onelabel.ground import Area


SHAPE = (100, 200)
A, E2 = 6_378_137.0, 0.00669437999014  # of WGS 84: radius in metres, eccentricity²


def degrees_in_metres(latitude):
    """Give the length of a degree of latitude and of longitude, by the ellipsoid."""
    flat = 1 - E2 * math.sin(math.radians(latitude)) ** 2
    north = A * (1 - E2) / flat**1.5
    east = A / flat**0.5 * math.cos(math.radians(latitude))
    return math.radians(north), math.radians(east)


def test_a_pixel_of_half_a_metre_has_a_quarter_of_a_square_metre():
    area = ground.pixel_area(on_earth(), SHAPE)
    assert area == 0.25 and type(area) is float  # a model file takes no NumPy


def test_feet_are_converted():
    feet = on_earth("EPSG:2264", 3, corner=(1.5e6, 6e5))
    expected = (3 * 1200 / 3937) ** 2  # the US survey foot
    assert ground.pixel_area(feet, SHAPE) == pytest.approx(expected, rel=1e-6)


@given(st.floats(-75, 75), st.floats(-179, 179))
def test_degrees_are_metres_on_the_ground(latitude, longitude):
    map_in_degrees = on_earth("EPSG:4326", 1e-4, corner=(longitude, latitude))
    north, east = degrees_in_metres(latitude - 1e-4 * SHAPE[0] / 2)
    expected = 1e-8 * north * east
    found = ground.pixel_area(map_in_degrees, SHAPE)
    assert found == pytest.approx(expected, rel=0.005)


@given(st.floats(10, 75), st.sampled_from([-1, 1]))
def test_web_mercator_is_metres_on_the_ground(latitude, side):
    latitude *= side
    y = A * math.asinh(math.tan(math.radians(latitude)))
    web = on_earth("EPSG:3857", 0.3, corner=(1.6e6, y))
    north, east = degrees_in_metres(latitude)
    # A degree is drawn as long as at the equator, and stretched alike to the north.
    drawn = math.radians(A)
    drawn_north = drawn / math.cos(math.radians(latitude))
    expected = 0.09 * (east / drawn) * (north / drawn_north)
    assert ground.pixel_area(web, SHAPE) == pytest.approx(expected, rel=0.005)


def test_metres_that_are_right_within_a_percent_are_those_of_the_map():
    """So that areas are what other programs measure on it."""
    web = on_earth("EPSG:3857", 0.5, corner=(1.6e6, 0))  # at the equator
    assert ground.pixel_area(web, SHAPE) == pytest.approx(0.25, rel=1e-6)
    far = on_earth(corner=(5e5 + 3e5, 5e6))  # from the middle of its zone
    assert ground.pixel_area(far, SHAPE) == 0.25


def test_a_map_that_is_turned_has_pixels_as_large():
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(2, 3)
    place = {**on_earth(), "transform": turned}
    assert ground.pixel_area(place, SHAPE) == pytest.approx(6)


def test_ground_control_points_say_it_too():
    corners = [(0, 0), (0, 200), (100, 0), (100, 200)]
    points = [
        GroundControlPoint(row, col, 5e5 + 0.5 * col, 5e6 - 0.5 * row)
        for row, col in corners
    ]
    place = {"crs": CRS.from_epsg(32633), "gcps": points}
    assert ground.pixel_area(place, SHAPE) == pytest.approx(0.25)


LOCAL = 'LOCAL_CS["local",UNIT["metre",1]]'


@pytest.mark.parametrize(
    "place",
    [
        None,
        {"crs": None, "transform": Affine.identity()},
        {**on_earth(), "crs": CRS.from_wkt(LOCAL)},
        {**on_earth(), "transform": Affine(0, 0, 5e5, 0, 0, 5e6)},
        on_earth("EPSG:4326", 1, corner=(500, 800)),
        on_earth(corner=(math.nan, math.nan)),
    ],
    ids=["no map", "no system", "a system of its own", "no size", "nowhere", "NaN"],
)
def test_what_is_no_place_on_earth_has_no_square_metres(place):
    assert ground.pixel_area(place, SHAPE) is None
    table = {name: np.ones(2) for name in ("area_px", "x", "y")}
    assert ground.in_metres(table, place, SHAPE) == {}


def test_another_world_is_measured_in_its_own_metres():
    moon = on_earth("+proj=eqc +R=1737400", 2, corner=(0, 0))
    assert ground.pixel_area(moon, SHAPE) == pytest.approx(4)


@pytest.mark.parametrize("place", [on_earth(), {**on_earth(), "crs": LOCAL}])
def test_a_map_of_any_kind_is_measured(tmp_path, monkeypatch, place, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiff("mask.tif", blobs(40, 50), **place)
    assert predict_here("--from-mask", "mask.tif", "--objects", "t.csv") == 0
    has_metres = place["crs"] != LOCAL
    said = capsys.readouterr()
    assert said.err == ""
    assert (" m2)" in said.out) == has_metres
    header = (tmp_path / "t.csv").read_text().splitlines()[0]
    assert ("area_m2" in header) == has_metres


# ------------------------------------------------------------------ areas


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50", (50, "px")),
        ("50px", (50, "px")),
        ("0", (0, "px")),
        ("7.5", (7.5, "px")),
        ("2.5m2", (2.5, "m2")),
        (" 2.5 m2 ", (2.5, "m2")),
        ("2.5m²", (2.5, "m2")),
        ("0.5ha", (5000, "m2")),
        ("1e3", (1000, "px")),
    ],
)
def test_an_area_is_a_number_of_pixels_or_of_square_metres(text, expected):
    assert console.area(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m2", "-5", "5a", "5 m", "nan", "inf", "5,5", ".5"]
)
def test_another_area_is_refused_in_one_line(text, capsys):
    for option in ("--min-area", "--fill-holes"):
        assert predict_here(f"{option}={text}") == 2
        line = f"error: argument {option}: {text.strip()}"
        said = capsys.readouterr().err
        assert said.startswith(line) and said.count("\n") == 1
        assert "expected an area, as 50 (pixels), 2.5m2 or 0.1ha" in said


def test_square_metres_become_pixels_of_a_map():
    area = Area(2, "m2")
    assert ground.in_pixels(area, "map.tif", on_earth(), SHAPE) == 8
    assert ground.in_pixels(Area(2, "px"), "map.tif", on_earth(), SHAPE) == 2
    assert ground.in_pixels(Area(2, "px"), "a.png", None, SHAPE) == 2


def test_square_metres_of_an_image_that_is_no_map_are_refused():
    with pytest.raises(InputError, match=r"a\.png: 2\.5m2 asked for, but the image"):
        ground.in_pixels(Area(2.5, "m2"), "a.png", None, SHAPE)


def test_they_are_refused_in_one_line_and_nothing_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save("mask.png", blobs(40, 50) * 255)
    options = ["--min-area", "2m2", "--output", "clean.png", "--objects", "t.csv"]
    assert predict_here("--from-mask", "mask.png", *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: mask.png: 2m2 asked for") and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


@pytest.mark.parametrize(
    ("pixels", "pixel", "words"),
    [
        (1234, 0.25, "308.5 m2"),
        (39_999, 0.25, "9,999.8 m2"),
        (40_000, 0.25, "1.00 ha"),
        (98_765_432, 0.25, "2,469.14 ha"),
        (0, 0.25, "0.0 m2"),
    ],
)
def test_an_area_is_said_in_square_metres_or_hectares(pixels, pixel, words):
    assert ground.in_words(pixels, pixel) == words


def test_a_square_metre_is_one_wherever_the_map_lies():
    small = on_earth("EPSG:32632", 0.1, corner=(412345.6, 5321098.7))
    assert ground.pixel_area(small, SHAPE) == pytest.approx(0.01, rel=1e-14)


def test_pixels_that_are_no_squares_have_an_area_and_no_lengths():
    north = on_earth("EPSG:4326", 1e-5, corner=(10, 60))
    table = {name: np.ones(2) for name in ("area_px", "x", "y")}
    table |= {f"{name}_px": np.ones(2) for name in ("perim", "length", "width")}
    found = ground.in_metres(table, north, SHAPE)
    assert (found["area_m2"] > 0.5).all()
    for name in ("perim_m", "length_m", "width_m"):
        assert np.isnan(found[name]).all()


@pytest.mark.parametrize("bend", [0, 20])
def test_an_affine_transform_must_fit_the_control_points(bend):
    corners = [(r, c) for r in (0, 50, 100) for c in (0, 100, 200)]
    points = [
        GroundControlPoint(r, c, 5e5 + c + bend * r * c / 2e4, -r) for r, c in corners
    ]
    bent = {"crs": CRS.from_epsg(32633), "gcps": points}
    if bend:
        with pytest.raises(InputError, match="no affine transform fits"):
            ground.check_points("a.gpkg", bent)
    else:
        ground.check_points("a.gpkg", bent)
    in_line = {**bent, "gcps": [GroundControlPoint(r, r, r, r) for r in range(3)]}
    with pytest.raises(InputError, match="no affine transform fits"):
        ground.check_points("a.gpkg", in_line)
