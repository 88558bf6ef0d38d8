"""Make the two example scenes: invented aerial photographs with labels.

Run ``python benchmarks/make_scenes.py`` (numpy and Pillow only, some 15 s). It writes
``rgb.png`` and ``gt.png`` in ``data/`` (the scene to train on) and the same pair in
``data/new/``: another place at another hour. In ``gt.png`` 255 is the crown of a tree
or shrub and 0 is everything else. The same seed gives the same bytes.

Each scene is a height map and an albedo map, about 10 cm to the pixel, lit by one
sun and a blue sky, then seen by a slightly soft and noisy camera. Leaves and grass
share their colours on purpose: what tells them apart is texture.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Scene(NamedTuple):
    """What sets one scene apart from another."""

    folder: Path
    seed: int
    width: int  # px
    height: int  # px
    sun_azimuth: float  # degrees, clockwise from the top of the image
    sun_elevation: float  # degrees above the horizon
    exposure: float  # gain of the camera
    warmth: float  # 0.05 means 5 % more red and 5 % less blue


DATA = Path(__file__).resolve().parent.parent / "data"
SCENES = (
    Scene(DATA, 11, 1283, 1021, 318.0, 50.0, 1.15, 0.00),
    Scene(DATA / "new", 29, 1101, 877, 52.0, 47.0, 1.03, 0.03),
)


def linear(*colours):
    """Turn 8-bit display colours into linear albedo, float32 (n, 3)."""
    return (np.array(colours, np.float32) / 255) ** 2.2


LUSH, MOWN, DRY, TUFT = linear(
    (88, 107, 60), (120, 131, 80), (154, 147, 102), (104, 111, 64)
)
SOIL, CLOD, GRAVEL, ASPHALT, PAINT = linear(
    (122, 98, 74), (150, 124, 98), (178, 164, 140), (124, 123, 122), (205, 205, 200)
)
TILES, SLATE, STONE, STRAW = linear(
    (146, 98, 80), (122, 116, 114), (168, 164, 156), (186, 166, 108)
)
LEAVES = linear(
    (96, 114, 66),  # oak
    (114, 132, 74),  # lime
    (134, 140, 88),  # yellowish ash
    (150, 142, 94),  # turning birch
    (124, 112, 82),  # copper beech
    (84, 100, 70),  # holm oak
    (104, 124, 72),  # hornbeam
    (92, 118, 64),  # maple
    (106, 128, 78),  # aspen
    (120, 132, 94),  # willow
)
# The use of each field, row by row, from a random start.
USES = """
plough mown rough meadow
rough mown plough meadow
rough meadow mown rough
""".split()


def fractal(rng, shape, longest, shortest=2.0):
    """Make 1/f noise with wavelengths between two limits.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Height and width in pixels.
    longest, shortest : float
        Limits of the wavelength in pixels.

    Returns
    -------
    ndarray, float32 (height, width)
        Zero mean and unit standard deviation.
    """
    # Multiples of 128 keep the Fourier transform fast; the rest is cut off.
    rows, cols = (n + -n % 128 for n in shape)
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols))
    frequency[0, 0] = 1.0
    gain = np.exp(-((frequency * longest) ** -2) - (frequency * shortest / 2) ** 4)
    spectrum = np.fft.rfft2(rng.standard_normal((rows, cols))) * gain / frequency
    noise = np.fft.irfft2(spectrum, (rows, cols))[: shape[0], : shape[1]]
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def blur(image, sigma):
    """Blur an image (height, width, ...) with a Gaussian of `sigma` pixels."""
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.moveaxis(np.pad(image, pad, mode="edge"), axis, 0)
        n = image.shape[axis]
        total = sum(w * padded[k : k + n] for k, w in enumerate(weights))
        image = np.moveaxis(total, 0, axis)
    return image


def ramp(x, low, high):
    """Rise smoothly from 0 where `x` <= `low` to 1 where `x` >= `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def paint(albedo, colour, cover):
    """Lay `colour` (3,) or (h, w, 3) over `albedo` in place, by `cover` (h, w)."""
    albedo += cover[..., None] * (colour - albedo)


class Land(NamedTuple):
    """The ground while it is built up: the functions below change it in place."""

    albedo: np.ndarray  # float32 (h, w, 3)
    height: np.ndarray  # float32 (h, w), px
    room: np.ndarray  # float32 (h, w), how readily a tree grows here, 0 to 1


def place_ball(height, albedo, x, y, radius, base, colour, stretch=1.0):
    """Put a half ball on the height map wherever it is the highest, in place.

    Parameters
    ----------
    height, albedo : ndarray, float32 (h, w) and (h, w, 3)
    x, y, radius : float
        Centre and radius in pixels; the centre may lie outside.
    base : float
        Height of the ball's rim in pixels.
    colour : ndarray (3,)
    stretch : float
        Height of the half ball over its radius.
    """
    top, left = max(int(y - radius), 0), max(int(x - radius), 0)
    bottom, right = max(int(y + radius) + 2, 0), max(int(x + radius) + 2, 0)
    here = height[top:bottom, left:right]
    rows, cols = np.ogrid[: here.shape[0], : here.shape[1]]
    inside = radius**2 - (cols + left - x) ** 2 - (rows + top - y) ** 2
    level = base + stretch * np.sqrt(np.maximum(inside, 0))
    seen = (inside > 0) & (level > here)
    here[seen] = level[seen]
    albedo[top:bottom, left:right][seen] = colour


def part_fields(rng, shape):
    """Part the land into 12 fields.

    Returns
    -------
    field : ndarray, int (h, w)
        Index of the field.
    edge : ndarray, float32 (h, w)
        Distance to the nearest edge of a field in pixels.
    """
    y, x = np.indices(shape, np.float32)
    warp = 5 * fractal(rng, shape, 120, 20)
    middle = (np.indices((3, 4)).reshape(2, 12).T + 0.5) / (3, 4)
    seeds = (middle + rng.uniform(-0.09, 0.09, (12, 2))) * shape
    away = np.stack([np.hypot(y - sy + warp, x - sx) for sy, sx in seeds])
    nearest, second = np.partition(away, 1, axis=0)[:2]
    return away.argmin(0), (second - nearest) / 2


def sow_fields(rng, shape):
    """Cover the land with meadow, rough grass, mown swaths and ploughed soil."""
    y, x = np.indices(shape, np.float32)
    field, edge = part_fields(rng, shape)
    broad, patchy = fractal(rng, shape, 400, 60), fractal(rng, shape, 70, 6)
    fine, grit = fractal(rng, shape, 5), fractal(rng, shape, 12)
    use = np.roll(USES, rng.integers(12))[field]
    rough, mown, plough = (
        ramp(edge + 3 * patchy, 4, 12) * (use == name)
        for name in ("rough", "mown", "plough")
    )
    albedo, height = np.empty((*shape, 3), np.float32), 1 + 0.1 * fine
    albedo[:] = LUSH
    paint(albedo, DRY, 0.75 * ramp(broad + 0.8 * patchy, -0.9, 1.6))
    paint(albedo, MOWN, 0.3 + 0.3 * np.tanh(patchy))

    # Rough grass: tufts a few pixels wide, the ground's closest thing to leaves.
    tufts = np.maximum(fractal(rng, shape, 14, 7), 0) * ramp(broad + patchy, -1.2, 0.8)
    rough = np.maximum(rough, 0.35 * ramp(patchy, 0.3, 1.5))
    paint(albedo, TUFT, rough * np.clip(0.7 * tufts, 0, 0.9))
    height += 1.3 * rough * tufts

    # Swaths and furrows run straight, in each field another way.
    turn = rng.uniform(0, np.pi, 12).astype(np.float32)[field]
    line = x * np.cos(turn) + y * np.sin(turn)
    swath = 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * (line + 2 * grit) / 46))
    paint(albedo, MOWN + (DRY - MOWN) * swath[..., None], 0.65 * mown)
    furrow = np.sin(2 * np.pi * (line + 0.5 * patchy) / 8.5)
    plough = plough * ramp(0.5 * broad + patchy, -2.6, -1.2)
    dry = ramp(broad + patchy + 0.9 * furrow, -1.5, 2.5)[..., None]
    paint(albedo, SOIL + (CLOD - SOIL) * dry, plough)
    height += plough * (0.6 * furrow + 0.3 * grit)

    bare = ramp(patchy + 0.6 * fractal(rng, shape, 200, 40), 1.7, 2.6)
    paint(albedo, CLOD, 0.8 * bare * (1 - plough))
    albedo *= 1 - 0.5 * np.clip(0.16 * fine + 0.1 * grit, -0.6, 0.6)[..., None]

    woods = ramp(fractal(rng, shape, 120, 30), 0.5, 1.0) * (1 - plough)
    land = Land(albedo, height, 0.015 + np.maximum(woods, ramp(edge, 10, 7)))
    for cy, cx in rng.uniform(0, shape, (120, 2)):
        if mown[int(cy), int(cx)] > 0.9:
            place_ball(height, albedo, cx, cy, 7, 2, STRAW, 0.8)
        else:
            colour = STONE * rng.uniform(0.6, 1)
            place_ball(height, albedo, cx, cy, rng.uniform(2, 5), 0, colour)
    return land


def wind(rng, shape, angle, sway):
    """Wind a way through the scene; return (h, w) along and across it in pixels."""
    y, x = np.indices(shape, np.float32)
    y0, x0 = rng.uniform(0.4, 0.6, 2) * shape
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
    return along, across - sway * np.sin(2 * np.pi * (along / 900 + rng.random()))


def lay_track(rng, land, angle):
    """Lay a dirt track: two wheel marks with grass between."""
    shape = land.room.shape
    ragged = fractal(rng, shape, 60, 6)
    across = np.abs(wind(rng, shape, angle, 40)[1] + 2 * ragged)
    wheels, track = ramp(np.abs(across - 9), 7, 2), ramp(across, 19, 14)
    paint(land.albedo, GRAVEL, np.maximum(0.95 * wheels, 0.45 * track))
    land.height[:] *= 1 - 0.8 * track
    land.room[:] *= ramp(across, 20, 32)


def lay_road(rng, land, angle):
    """Lay a paved road with gravel verges, and three houses along it."""
    shape = land.room.shape
    ragged = fractal(rng, shape, 60, 6)
    along, across = wind(rng, shape, angle, 25)
    away = np.abs(across)
    paint(land.albedo, GRAVEL, 0.8 * ramp(away + 2 * ragged, 36, 29))
    paint(land.albedo, ASPHALT * (1 + 0.03 * ragged)[..., None], ramp(away, 27, 26))
    paint(land.albedo, PAINT, 0.8 * ((away < 1.1) & (along % 60 < 30)))
    land.height[:] *= 1 - 0.96 * ramp(away, 33, 27)
    land.room[:] *= ramp(away, 36, 50)
    y, x = np.indices(shape, np.float32)
    for where in rng.uniform((0.08, 0.4, 0.7), (0.3, 0.6, 0.92)):
        side = rng.choice((-100, 100))
        spot = np.abs(across - side) + np.abs(x - where * shape[1])
        cy, cx = np.unravel_index(spot.argmin(), shape)
        build_house(rng, land, x - cx, y - cy, angle)


def build_house(rng, land, x, y, angle):
    """Build a house with a gable roof; `x`, `y` (h, w) count from its middle."""
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    long, wide = rng.uniform(42, 60), rng.uniform(28, 36)
    away = np.maximum(np.abs(u) - long, np.abs(v) - wide)
    paint(land.albedo, GRAVEL, 0.7 * ramp(away, 22, 10))
    land.height[:] *= ramp(away, 8, 22)
    land.room[:] *= ramp(away, 14, 26)
    tiles = 1 + 0.1 * np.sin(2 * np.pi * v / 4) + 0.05 * np.sin(2 * np.pi * u / 3)
    tiles *= 1 + 0.05 * fractal(rng, x.shape, 25)
    colour = (TILES + (SLATE - TILES) * rng.random()) * rng.uniform(0.8, 1.1)
    house = away < 0
    land.albedo[house] = (colour * tiles[..., None])[house]
    land.height[house] = (30 + 0.6 * (wide - np.abs(v)))[house]


def plant(rng, room):
    """Choose where crowns grow: groves and hedges, a like share in every cell.

    Parameters
    ----------
    rng : numpy.random.Generator
    room : ndarray, float32 (h, w)
        How readily a tree grows here, 0 to 1.

    Returns
    -------
    list of (x, y, radius, kind)
        Centre and radius in pixels, row of `LEAVES`.
    """
    crowns, cell = [], 117
    rows, cols = room.shape
    for top in range(0, rows, cell):
        for left in range(0, cols, cell):
            area = 0.0
            # Half of a cell's crowns are of one kind: trees seed around themselves.
            stand = rng.integers(len(LEAVES))
            for _ in range(900):
                x, y = left + rng.uniform(0, cell), top + rng.uniform(0, cell)
                radius = float(np.clip(rng.lognormal(2.85, 0.5), 7, 40))
                if y >= rows or x >= cols or rng.random() > room[int(y), int(x)]:
                    continue
                if any(
                    np.hypot(x - a, y - b) < 0.62 * (radius + r)
                    for a, b, r, _ in crowns
                ):
                    continue
                kind = rng.choice((stand, rng.integers(len(LEAVES))))
                crowns.append((x, y, radius, kind))
                area += np.pi * radius**2
                if area > 0.27 * cell**2:
                    break
    return crowns


def grow_crown(rng, height, albedo, x, y, radius, colour):
    """Grow one crown in place: a few rounded lobes, each covered in leaf clumps."""
    colour = colour * rng.lognormal(0.1, 0.18) * (1 + rng.normal(0, 0.04, 3))
    stretch, leaf = rng.uniform(0.7, 1.3), rng.uniform(2.2, 4.2)
    trunk = radius * rng.uniform(0.3, 0.9)
    for _ in range(3 + int(radius / 7)):
        size = radius * rng.uniform(0.4, 0.65)
        lx, ly = rng.normal((x, y), 0.32 * radius)
        base = 3 + trunk + 0.3 * radius * rng.random()
        place_ball(height, albedo, lx, ly, size, base, 0.6 * colour, stretch)
        for _ in range(int(2.5 * (size / leaf) ** 2)):
            out, turn = np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            place_ball(
                height,
                albedo,
                lx + size * out * np.cos(turn),
                ly + size * out * np.sin(turn),
                leaf * rng.uniform(0.6, 1.3),
                base + stretch * size * np.sqrt(1 - out**2),
                colour * rng.lognormal(0, 0.22),
            )


def cast_shadow(height, azimuth, elevation):
    """Find where the height map hides the sun from itself.

    Parameters
    ----------
    height : ndarray, float32 (h, w)
        In pixels.
    azimuth, elevation : float
        Direction to the sun in radians, clockwise from the top of the image.

    Returns
    -------
    ndarray, float32 (h, w)
        0 in full sun to 1 in full shadow.
    """
    reach = int(np.ceil(height.max() / np.tan(elevation)))
    padded = np.pad(height, reach)
    rows, cols = height.shape
    hidden = np.zeros_like(height)
    for step in range(1, reach + 1):
        dy = reach + round(-step * np.cos(azimuth))
        dx = reach + round(step * np.sin(azimuth))
        ray = padded[dy : dy + rows, dx : dx + cols] - step * np.tan(elevation)
        np.maximum(hidden, ray - height, out=hidden)
    return blur(ramp(hidden, 0.0, 3.0), 0.9)


def light(albedo, height, scene):
    """Light the scene by sun and sky.

    Parameters
    ----------
    albedo, height : ndarray, float32 (h, w, 3) and (h, w)
    scene : Scene

    Returns
    -------
    ndarray, float32 (h, w, 3)
        Linear radiance; flat ground in the sun keeps its albedo.
    """
    azimuth, elevation = np.radians([scene.sun_azimuth, scene.sun_elevation])
    slope_y, slope_x = np.gradient(blur(height, 0.6))
    steep = np.sqrt(1 + slope_x**2 + slope_y**2)
    uphill = slope_x * np.sin(azimuth) - slope_y * np.cos(azimuth)
    facing = np.sin(elevation) - np.cos(elevation) * uphill
    # Leaves and grass let some light through: no side is quite black.
    sun = 0.8 * np.maximum(facing / steep, 0) / np.sin(elevation) + 0.2
    sun *= 1 - cast_shadow(height, azimuth, elevation)
    open_sky = np.exp(-0.09 * np.maximum(blur(height, 4) - height, 0))
    blue = np.array((0.22, 0.25, 0.31), np.float32)
    return albedo * (sun[..., None] * (1 - blue) + open_sky[..., None] * blue)


def photograph(rng, radiance, scene):
    """Turn radiance into a photograph.

    Parameters
    ----------
    rng : numpy.random.Generator
    radiance : ndarray, float32 (h, w, 3)
        Linear.
    scene : Scene

    Returns
    -------
    ndarray, uint8 (h, w, 3)
    """
    shape = radiance.shape[:2]
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    vignette = 1 - 0.07 * (y[:, None] ** 2 + x**2)
    haze = 1 + 0.05 * fractal(rng, shape, 900, 300)
    warm = np.array((1 + scene.warmth, 1, 1 - scene.warmth), np.float32)
    seen = blur(radiance, 0.7) * (scene.exposure * vignette * haze)[..., None] * warm
    shot_and_read = np.sqrt(2e-4 * seen + 4e-6)
    seen += shot_and_read * rng.standard_normal(seen.shape, np.float32)
    return np.round(255 * np.clip(seen, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def make_scene(scene):
    """Make one scene.

    Parameters
    ----------
    scene : Scene

    Returns
    -------
    rgb : ndarray, uint8 (height, width, 3)
    gt : ndarray, uint8 (height, width)
        255 for the crowns of trees and shrubs, 0 for everything else.
    """
    rng = np.random.default_rng(scene.seed)
    shape = (scene.height, scene.width)
    land = sow_fields(rng, shape)
    angle = rng.uniform(0.15, 0.45) * rng.choice((-1, 1))
    lay_track(rng, land, angle + np.pi / 2)
    lay_road(rng, land, angle)
    crown, leaves = np.zeros_like(land.height), np.zeros_like(land.albedo)
    for x, y, radius, kind in plant(rng, land.room):
        grow_crown(rng, crown, leaves, x, y, radius, LEAVES[kind])
    # Labels are the sharp geometry: seen from above, a crown is the highest thing.
    canopy = crown > np.maximum(land.height, 0)
    crown += 0.5 * fractal(rng, shape, 5)
    leaves *= np.exp(0.18 * fractal(rng, shape, 4))[..., None]
    albedo = np.where(canopy[..., None], leaves, land.albedo)
    height = np.where(canopy, crown, land.height)
    rgb = photograph(rng, light(albedo, height, scene), scene)
    return rgb, np.where(canopy, 255, 0).astype(np.uint8)


def best_threshold_iou(rgb, gt):
    """Score the best single threshold on a grey value: what colour alone can do.

    Parameters
    ----------
    rgb : ndarray, uint8 (h, w, 3)
    gt : ndarray, uint8 (h, w)
        255 for class 1, 0 for class 0.

    Returns
    -------
    dict of str to float
        Per channel, the highest IoU of class 1 over all thresholds, both ways.
    """
    red, green, blue = np.moveaxis(rgb.astype(int), -1, 0)
    channels = {
        "R": red,
        "G": green,
        "B": blue,
        "grey": (299 * red + 587 * green + 114 * blue) // 1000,
        "excess green": 2 * green - red - blue + 510,
    }
    truth, best = gt.ravel() > 0, {}
    for name, channel in channels.items():
        total = np.bincount(channel.ravel(), minlength=1021)
        hits = np.bincount(channel.ravel()[truth], minlength=1021)
        iou = 0.0
        for order in (np.s_[:], np.s_[::-1]):
            chosen, both = total[order].cumsum(), hits[order].cumsum()
            iou = max(iou, (both / (truth.sum() + chosen - both)).max())
        best[name] = float(iou)
    return best


def save(array, path):
    """Write `array` as a PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    Image.fromarray(array).save(part, "PNG")
    os.replace(part, path)


def main():
    """Make, save and describe all scenes."""
    for scene in SCENES:
        rgb, gt = make_scene(scene)
        save(rgb, scene.folder / "rgb.png")
        save(gt, scene.folder / "gt.png")
        scores = best_threshold_iou(rgb, gt)
        print(scene.folder / "rgb.png", f"class 1: {(gt > 0).mean():.1%} of pixels")
        print("  best threshold, IoU:", {k: round(v, 3) for k, v in scores.items()})


if __name__ == "__main__":
    main()
