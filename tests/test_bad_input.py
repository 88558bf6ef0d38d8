"""Bad and odd inputs, made on the fly: each ends as README says, and harms nothing.

`CATALOGUE` names what is tried, by class of fault. `python benchmarks/catalogue.py`
counts how it ends.
"""

import io
import os
import pickle
import re
import resource
import shlex
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from test_notebooks import execute

import predict
import segutils
import train
from onelabel import console, depth, light, model_file


FORMATS = {
    "png": {},
    "jpg": {"quality": 95},
    "tif": {"compression": "tiff_deflate"},
    "webp": {"lossless": True},
    "bmp": {},
}

# ------------------------------------------------------------------ what is made


def picture(height=48, width=64):
    """An image of two kinds of ground, and where the brighter one is."""
    rng = np.random.default_rng(0)
    coarse = rng.random((height // 8, width // 8)) < 0.4
    truth = np.kron(coarse, np.ones((8, 8), int)).astype(np.uint8)  # (H, W)
    rgb = 60 + 90 * truth[..., None] + rng.integers(0, 40, (height, width, 3))
    return rgb.astype(np.uint8), truth


RGB, TRUTH = picture()


def encoded(array, suffix="png", mode=None, **options):
    """Give the bytes of an image file."""
    image = Image.fromarray(array) if isinstance(array, np.ndarray) else array
    image = image.convert(mode) if mode else image
    with io.BytesIO() as file:
        Image.init()
        image.save(file, Image.EXTENSION["." + suffix], **options)
        return file.getvalue()


WHOLE = {suffix: encoded(RGB, suffix, **more) for suffix, more in FORMATS.items()}


def corrupted(content, at=None, by=b"\xff" * 40):
    """Overwrite some bytes, in the middle unless said otherwise."""
    at = len(content) // 2 if at is None else at
    return content[:at] + by + content[at + len(by) :]


def chunk(name, body):
    """Give a chunk of a PNG file."""
    sum_ = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + sum_


def png(width, height, body=b"", bits=8, kind=2, before=b"", interlaced=0):
    """Give a PNG file chunk by chunk, whatever its header promises."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    body = chunk(b"IDAT", zlib.compress(body))
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return head + before + body + chunk(b"IEND", b"")


def retagged(content, tag, value):
    """Give a TIFF file of which a tag has another value."""
    (at,) = struct.unpack_from("<I", content, 4)  # of the directory
    at = content.index(struct.pack("<H", tag), at)
    return content[: at + 2] + struct.pack("<HII", 4, 1, value) + content[at + 12 :]


def changed_header(suffix, width, height):
    """Give an image file whose header promises another size."""
    content = WHOLE[suffix]
    if suffix == "png":
        return png(width, height, bytes(1000))
    if suffix == "bmp":
        return corrupted(content, 18, struct.pack("<ii", width, height))
    if suffix == "jpg":
        at = content.index(b"\xff\xc0") + 5
        return corrupted(content, at, struct.pack(">HH", height, width))
    return retagged(retagged(content, 256, width), 257, height)


def frames(suffix, **options):
    """Give a file of two pictures; the first is the usual one."""
    other = Image.fromarray(255 - RGB)
    return encoded(RGB, suffix, save_all=True, append_images=[other], **options)


def with_exif(orientation):
    """Give a JPEG whose EXIF orientation is as said."""
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(RGB, "jpg", exif=exif)


def palette(**options):
    """Give a PNG with a palette and transparency."""
    return encoded(Image.fromarray(RGB).quantize(16), "png", **options)


def truth_of(array, suffix="png", **options):
    return encoded(np.asarray(array), suffix, **options)


def with_stray(value):
    """A truth with one pixel of a third colour."""
    grey = TRUTH * 255
    grey[5, 7] = value
    return truth_of(grey)


def corner(rows):
    """A truth whose class 1 lies in one corner."""
    truth = np.zeros_like(TRUTH)
    truth[:rows, :rows] = 255
    return truth_of(truth)


def unlabelled(share):
    """A truth of which a share of the rows is transparent."""
    rgba = np.full((*TRUTH.shape, 4), 255, np.uint8)
    rgba[..., :3] = TRUTH[..., None] * 255
    rgba[: int(share * len(rgba)), :, 3] = 0
    return truth_of(rgba)


def model_content():
    """What a model file holds."""
    torch.manual_seed(0)
    model = segutils.FCNN()
    model.normalise.fit(RGB)
    with torch.no_grad():
        model.conv4.weight *= 30  # so that both classes are found
    weights = model.state_dict()
    return {
        "format": model_file.MODEL_FORMAT,
        "weights": weights,
        "looks": {**light.describe(model, [RGB], [TRUTH]), "network": weights},
        "colours": [[0, 0, 0], [255, 255, 255]],
        "scale": None,
        "channels": None,
        "facts": {},
    }


def model_bytes(content=None, weights=None, without=(), **changed):
    """Give a model file with some of it changed."""
    if content is None:
        content = {**model_content(), **changed}
        content["weights"] = {**content["weights"], **(weights or {})}
        content = {k: v for k, v in content.items() if k not in without}
    with io.BytesIO() as file:
        torch.save(content, file)
        return file.getvalue()


MODEL = model_bytes()


class Payload:
    """What a hostile file would have unpickled: a command that leaves a mark."""

    def __reduce__(self):
        return os.system, ("touch PWNED",)


def legacy(content):
    """Give a model file in PyTorch's older form, a bare pickle."""
    with io.BytesIO() as file:
        torch.save(content, file, _use_new_zipfile_serialization=False)
        return file.getvalue()


def zipped(**files):
    """Give a zip file."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return file.getvalue()


def put(name, content):
    Path(name).write_bytes(content)


def link(name, target):
    Path(name).symlink_to(target)


def hard_link(name, target):
    os.link(target, name)


def limit_files(size):
    """Let no file grow beyond a size, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


# ------------------------------------------------------------------ the catalogue


class Case(NamedTuple):
    """Something to try in the folder of work."""

    name: str
    made: tuple  # a function and its arguments
    command: str  # its usual options go without saying
    code: int  # that it ends with
    words: str  # of what it says


def bad(name, content, words, suffix="png"):
    """A file that is not an image which predict.py could read."""
    file = f"bad.{suffix}"
    return Case(name, (put, file, content), f"predict {file}", 2, words)


def good(name, content, suffix="png"):
    """An odd image that is legitimate nevertheless."""
    file = f"bad.{suffix}"
    return Case(name, (put, file, content), f"predict {file}", 0, f"of {file} is class")


ODD = encoded(RGB, "tif", description="one that seems to go on for a megabyte")
ODD = corrupted(ODD, ODD.index(b"\x0e\x01", 8) + 4, b"\0\0\x10\0")
CHANNELS = retagged(WHOLE["tif"], 277, 259)
SHORT = corrupted(encoded(RGB, "jpg", "CMYK"), 5, b"\7")  # fuzz.py found it
LZW = corrupted(encoded(RGB, "tif", compression="tiff_lzw"))

CATALOGUE = {}  # by class of fault

CATALOGUE["damaged images"] = [
    row
    for suffix, whole in WHOLE.items()
    for row in (
        bad(f"empty {suffix}", b"", "is not an image", suffix=suffix),
        bad(f"ten bytes of {suffix}", whole[:10], "bad.", suffix=suffix),
        bad(f"{suffix} cut in half", whole[: len(whole) // 2], "bad.", suffix=suffix),
        bad(f"{suffix} without its start", whole[9:], "is not an image", suffix=suffix),
        bad(f"{suffix} of zeros", bytes(len(whole)), "is not an image", suffix=suffix),
    )
]
CATALOGUE["damaged images"] += [
    bad("png corrupted in the middle", corrupted(WHOLE["png"]), "damaged"),
    bad("tif corrupted in the middle", corrupted(WHOLE["tif"]), "damaged", "tif"),
    bad("lzw tif corrupted in the middle", LZW, "damaged", "tif"),
    # Without a checksum nobody can tell: these are images.
    good("webp corrupted in the middle", corrupted(WHOLE["webp"]), "webp"),
    good("jpg corrupted in the middle", corrupted(WHOLE["jpg"], by=b"\x55" * 9), "jpg"),
    good("bmp corrupted in the middle", corrupted(WHOLE["bmp"]), "bmp"),
    good("jpg of fewer rows than it says", changed_header("jpg", 64, 480), "jpg"),
    bad("png of wrong checksum", corrupted(WHOLE["png"], 29, bytes(4)), "image"),
    bad("png without pixels", png(64, 48), "damaged"),
    bad("png of no width", png(0, 48), "bad.png"),
    bad("png with 3 bits a pixel", png(64, 48, bytes(9999), bits=3), "bad.png"),
    bad("cmyk jpg with a short marker", SHORT, "damaged image (4 channels)", "jpg"),
    bad("tif of 259 channels", CHANNELS, "damaged", "tif"),
    bad("tif without a directory", b"II*\0" + bytes(4), "bad.tif", "tif"),
    bad(
        "tif whose pixels lie behind its end",
        WHOLE["tif"][:8] + WHOLE["tif"][-200:],
        "bad.tif",
        "tif",
    ),
]

CATALOGUE["other files"] = [
    bad("text", b"no picture", "is not an image"),
    bad("a web page", b"<html><img src='a.png'></html>", "is not an image"),
    bad("an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
    bad("a GIF", encoded(RGB, "gif"), "is not an image"),
    bad("a PDF", encoded(RGB, "pdf"), "is not an image"),
    bad("an icon", encoded(RGB, "ico"), "is not an image"),
    bad("PostScript, which is a program", encoded(RGB, "eps"), "is not an image"),
    bad("a zip", zipped(a=b"a"), "is not an image"),
    bad("a model", MODEL, "is not an image"),
    bad("a pickle that would run code", pickle.dumps(Payload()), "is not an image"),
    good("a JPEG named png", WHOLE["jpg"]),
    good("a PNG without a suffix", WHOLE["png"], "thing"),
]

CATALOGUE["bombs"] = [
    *(
        bad(
            f"{suffix} whose header says 60,000 x 60,000",
            changed_header(suffix, 60_000, 60_000),
            "more than 1,000,000,000 pixels",
            suffix=suffix,
        )
        for suffix in ("png", "jpg", "tif", "bmp")
    ),
    *(
        bad(
            f"{suffix} whose header says 9,000 x 9,000",
            changed_header(suffix, 9_000, 9_000),
            "damaged",
            suffix=suffix,
        )
        for suffix in ("png", "tif", "bmp")
    ),
    bad("png of 2**31 columns", png(2**31 - 1, 1), "more than 1,000,000,000 pixels"),
    bad("interlaced bomb", png(60_000, 60_000, bytes(9), interlaced=1), "more than"),
    bad(
        "png with a text of 64 MB in 64 kB",
        png(64, 48, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))),
        "damaged",
    ),
]

grey = TRUTH * 255
smooth = np.array(Image.fromarray(grey).resize((32, 24)).resize((64, 48)))
noise = np.random.default_rng(1).integers(0, 256, RGB.shape, np.uint8)
partly_nan = TRUTH.astype(np.float32)
partly_nan[:9, :9] = np.nan
zero_nan = np.where(TRUTH, np.float32(np.nan), 0)
deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
floats = (RGB[..., 0] / 255).astype(np.float32)
holed, endless = floats.copy(), floats.copy()
holed[3, 4], endless[3, 4] = np.nan, np.inf
CATALOGUE["odd images"] = [
    good("animated png", frames("png")),
    good("animated webp", frames("webp", lossless=True), "webp"),
    good("tif of two pages", frames("tif"), "tif"),
    good("1 x 1", encoded(RGB[:1, :1])),
    good("one row", encoded(RGB[:1])),
    good("one column", encoded(RGB[:, :1])),
    good("odd sides", encoded(RGB[:33, :47])),
    good("one row of 3,000", encoded(np.tile(RGB[:1], (1, 47, 1)))),
    good("constant black", encoded(np.zeros_like(RGB))),
    good("saturated white", encoded(np.full_like(RGB, 255))),
    good("constant grey", encoded(np.full_like(RGB, 128))),
    good("pure noise", encoded(noise)),
    bad("grey png of 16 bits", encoded(deep), "the training image has 8 bits"),
    bad(
        "grey tif of 16 bits",
        encoded(deep, "tif"),
        "the training image has 8 bits",
        "tif",
    ),
    bad(
        "tif of floats", encoded(floats, "tif"), "the training image has 8 bits", "tif"
    ),
    bad("tif with NaN", encoded(holed, "tif"), "the training image has 8 bits", "tif"),
    bad(
        "tif of 32-bit integers",
        encoded(deep.astype(np.int32), "tif"),
        "the training image has 8 bits",
        "tif",
    ),
    good("tif of CIELAB", encoded(RGB, "tif", "LAB"), "tif"),
    good("cmyk jpg", encoded(RGB, "jpg", "CMYK"), "jpg"),
    good("cmyk tif", encoded(RGB, "tif", "CMYK"), "tif"),
    good("ycbcr tif", encoded(RGB, "tif", "YCbCr"), "tif"),
    good("one bit", encoded(RGB, "png", "1")),
    good("grey with alpha", encoded(RGB, "png", "LA")),
    good("tif with alpha", encoded(RGB, "tif", "RGBA"), "tif"),
    good("wholly transparent", encoded(np.zeros((48, 64, 4), np.uint8))),
    good("palette", palette()),
    good("palette with one transparent colour", palette(transparency=3)),
    good("palette with translucent colours", palette(transparency=bytes(range(16)))),
    good("colour key", encoded(RGB, "png", transparency=(1, 2, 3))),
    *(
        good(f"EXIF orientation {value}", with_exif(value), "jpg")
        for value in (0, 5, 8, 9, 65_535)
    ),
    good("EXIF of text", encoded(RGB, "jpg", exif=b"Exif\0\0no directory"), "jpg"),
    good(
        "EXIF whose length lies", encoded(RGB, "jpg", exif=b"Exif\0\0II*\0\xff"), "jpg"
    ),
    good("broken colour profile", encoded(RGB, "png", icc_profile=b"nonsense")),
    good("bytes behind the end", WHOLE["png"] + b"more" * 99),
    good("png without its end", WHOLE["png"][:-12]),
    good("bmp from the top down", changed_header("bmp", 64, -48), "bmp"),
]

NAMES = {
    "spaces": " a  b .png",
    "a newline": "a\nb.png",
    "Unicode": "Bäume_木_🌳.png",
    "an accent of its own": "e\u0301.png",
    "bytes that are no UTF-8": os.fsdecode(b"\xff\xfe.png"),
    "percent and braces": "100%s{0}%(prog)s.png",
    "quotes": "a'b\"c.png",
    "colours of a terminal": "\x1b[31mred.png",
    "244 letters": "x" * 240 + ".png",
    "many dots": "..a..b..png",
}
CATALOGUE["odd names"] = [
    Case(f"{what} named with {name}", (put, file, content), command, code, words)
    for name, file in NAMES.items()
    for what, content, command, code, words in [
        ("image", WHOLE["png"], f"predict {shlex.quote(file)}", 0, "is class 1"),
        ("damage", WHOLE["png"][:99], f"predict {shlex.quote(file)}", 2, "damaged"),
        ("mask", b"", f"predict rgb.png --output mask{shlex.quote(file)}", 0, " is "),
    ]
]
CATALOGUE["odd names"] += [
    Case("dash", (put, "-a.png", WHOLE["png"]), "predict -- -a.png", 0, "of -a.png is"),
    Case("dash, as an option", (), "predict -a.png", 2, "arguments: -a.png (--help"),
    Case("dash of a mask", (), "predict rgb.png --output=-mask.png", 0, "-mask.png:"),
    Case("no name", (), "predict ''", 2, "a file name is empty"),
    Case("NUL", (), "predict 'a\0.png'", 2, "cannot be read"),
    Case("300 letters", (), f"predict {'x' * 300}.png", 2, "cannot be read"),
    Case(
        "mask of no name", (), "predict rgb.png --output ''", 2, "a file name is empty"
    ),
    Case("mask of a NUL", (), "predict rgb.png --output 'a\0.png'", 2, "cannot be"),
    Case("mask of 300 letters", (), f"train --plot {'x' * 300}.png", 2, "cannot be"),
    Case("model of no name", (), "train --model ''", 2, "a file name is empty"),
    Case("suffix only", (), "predict rgb.png --output .png", 2, "no such folder"),
    Case("web address", (), "predict https://localhost/a.png", 2, "no such file"),
]


def predicting(name, made, options, code, words):
    return Case(name, made, f"predict {options}", code, words)


CATALOGUE["odd places"] = [
    predicting(*row)
    for row in [
        ("link to an image", (link, "a.png", "rgb.png"), "a.png", 0, "is class 1"),
        ("dangling link", (link, "a.png", "none.png"), "a.png", 2, "no such file"),
        ("link to itself", (link, "a.png", "a.png"), "a.png", 2, "cannot be read"),
        ("link to a folder", (link, "a.png", "."), "a.png", 2, "no such folder"),
        ("endless", (link, "a.png", "/dev/zero"), "a.png", 2, "not a regular file"),
        # What not even root may read.
        ("unreadable", (link, "a.png", "/proc/self/mem"), "a.png", 2, "cannot be read"),
        ("without a size", (), "/proc/self/status", 2, "is not an image"),
        ("folder", (), ".", 2, "no such folder"),
        ("pipe", (os.mkfifo, "a.png"), "a.png", 2, "not a regular file"),
        ("model pipe", (os.mkfifo, "a"), "rgb.png --model a", 2, "not a regular file"),
        ("truth pipe", (os.mkfifo, "a"), "rgb.png --gt a", 2, "not a regular file"),
        ("device", (), "/dev/null", 2, "not a regular file"),
        ("missing", (), "none.png", 2, "no such file"),
        ("below a file", (), "rgb.png/a.png", 2, "cannot be read"),
    ]
]
CATALOGUE["odd places to write to"] = [
    predicting(name, made, f"rgb.png {options}", code, words)
    for name, made, options, code, words in [
        # Where not even root may write.
        ("read-only", (), "--output /proc/mask.png", 2, "cannot be written"),
        ("read-only folder", (), "--output /proc", 2, "cannot be written"),
        ("missing folder", (), "--output no/mask.png", 2, "folder no is missing"),
        ("below a file", (), "--output rgb.png/m.png", 2, "is inside"),
        ("folder", (os.mkdir, "m.png"), "--overlay m.png", 2, "is a folder"),
        ("pipe", (os.mkfifo, "m.png"), "--output m.png", 2, "not a regular file"),
        ("loop", (link, "m.png", "m.png"), "--output m.png", 2, "cannot be written"),
        ("device", (link, "m.png", "/dev/full"), "--output m.png", 2, "not a regular"),
        ("dangling", (link, "m.png", "mask2.png"), "--output m.png", 0, "is class 1"),
        ("the image", (), "--output rgb.png", 2, "would overwrite"),
        ("the image, spelt anew", (), "--output ./data/../rgb.png", 2, "overwrite"),
        ("link to it", (link, "m.png", "rgb.png"), "--output m.png", 2, "overwrite"),
        # The name is replaced, not the file that it shares: the image stays.
        ("hard link", (hard_link, "mask2.png", "rgb.png"), "--output mask2.png")
        + (0, "is class 1"),
        ("the truth", (), "--gt gt.png --overlay gt.png", 2, "would overwrite"),
        ("the mask", (), "--probabilities mask.png", 2, "would overwrite"),
        ("the model", (), "--overlay model.pt", 2, "unknown suffix '.pt'"),
        ("no image", (), "--output mask.gif", 2, "unknown suffix '.gif'"),
    ]
]
CATALOGUE["odd places to write to"] += [
    Case("read-only model", (), "train --model /proc/new.pt", 2, "cannot be written"),
    Case("read-only plot", (), "train --plot /sys/curve.png", 2, "cannot be written"),
    Case("the truth", (), "train --plot gt.png", 2, "would overwrite"),
    Case(
        "link to it", (link, "c.png", "rgb.png"), "train --plot c.png", 2, "overwrite"
    ),
]


def truth(name, content, code, words, suffix="png"):
    """A truth to train on."""
    file = f"truth.{suffix}"
    return Case(name, (put, file, content), f"train --gt {file}", code, words)


CATALOGUE["truths"] = [
    truth("a column too many", truth_of(np.pad(grey, ((0, 0), (0, 1)))), 2, "65x48"),
    truth("a row too few", truth_of(grey[1:]), 2, "64x47 pixels, but rgb.png"),
    truth("transposed", truth_of(grey.T), 2, "48x64 pixels"),
    truth("a stray pixel", with_stray(128), 2, "3 colours found, expected 2"),
    truth("a stray pixel next to white", with_stray(254), 2, "3 colours found"),
    truth("soft edges", encoded(smooth, "png"), 2, "colours found, expected 2"),
    truth("the image itself", WHOLE["png"], 2, "colours found, expected 2"),
    truth("all of one class", truth_of(0 * grey), 2, "1 colour found"),
    truth("all of the other", truth_of(0 * grey + 255), 2, "1 colour found"),
    truth("all unlabelled", unlabelled(1), 2, "every pixel is transparent"),
    truth("one pixel of a class", corner(1), 2, "(1 pixels) lies in one place"),
    truth("a class in one corner", corner(9), 2, "lies in one place"),
    truth("floats with NaN", truth_of(holed, "tif"), 2, "values found", "tif"),
    truth("NaN and 0", truth_of(zero_nan, "tif"), 2, "1 value found", "tif"),
    truth("negative", truth_of(-TRUTH.astype(np.int32), "tif"), 2, "outside", "tif"),
    truth("empty", b"", 2, "is not an image"),
    truth("cut in half", truth_of(grey)[:90], 2, "damaged"),
    truth("a bomb", png(60_000, 60_000), 2, "more than 1,000,000,000 pixels"),
    truth("a blurred JPEG", encoded(smooth, "jpg"), 2, "colours found", "jpg"),
    truth("0 and 1", truth_of(TRUTH), 0, "wrote new.pt"),
    truth("1 and 2 in 16 bits", truth_of(TRUTH + np.uint16(1)), 0, "wrote new.pt"),
    truth("floats of 0 and 1", truth_of(1.0 * TRUTH, "tif"), 0, "wrote", "tif"),
    truth("0, 1 and NaN", truth_of(partly_nan, "tif"), 0, "wrote new.pt", "tif"),
    truth("JPEG", encoded(grey, "jpg"), 0, "wrote new.pt", "jpg"),
    truth("half unlabelled", unlabelled(0.5), 0, "wrote new.pt"),
]
CATALOGUE["images to train on"] = [
    Case(name, (put, "a.png", content), "train --rgb a.png", code, words)
    for name, content, code, words in [
        ("cut in half", WHOLE["png"][:2000], 2, "damaged"),
        ("1 x 1", encoded(RGB[:1, :1]), 2, "they must be of one size"),
        ("turned", encoded(RGB.transpose(1, 0, 2)), 2, "64x48 pixels, but a.png has"),
        ("constant", encoded(np.full_like(RGB, 128)), 0, "wrote new.pt"),
        ("saturated", encoded(np.full_like(RGB, 255)), 0, "wrote new.pt"),
        ("black", encoded(np.zeros_like(RGB)), 0, "wrote new.pt"),
        ("noise", encoded(noise), 0, "wrote new.pt"),
        ("transparent", encoded(np.dstack([RGB, 0 * TRUTH])), 0, "wrote new.pt"),
    ]
]
CATALOGUE["images to train on"] += [
    Case(name, (put, "a.tif", encoded(values, "tif")), "train --rgb a.tif", 0, "wrote")
    for name, values in [
        ("16 bits", deep),
        ("signed integers", deep.astype(np.int32) - 9999),
        ("floats", floats),
        ("floats with NaN", holed),
        ("floats with infinity", endless),
        ("negative floats", -floats),
        ("huge floats", floats * np.float32(3e38)),
        ("tiny floats", floats * np.float32(1e-38)),
        ("16 bits, constant", 0 * deep + 777),
        ("16 bits, black", 0 * deep),
    ]
]
CATALOGUE["images to train on"] += [
    Case(
        "NaN alone",
        (put, "a.tif", encoded(np.full_like(floats, np.nan), "tif")),
        "train --rgb a.tif",
        2,
        "a.tif: no pixel",
    ),
    Case(
        "8 and 16 bits",
        (put, "a.tif", encoded(deep, "tif")),
        "train --rgb rgb.png a.tif --gt gt.png gt.png",
        2,
        "(save all images alike)",
    ),
]
CATALOGUE["bands"] = [
    Case(name, (), f"{command} --bands {numbers}", code, words)
    for command in ("predict rgb.png", "train")
    for name, numbers, code, words in [
        (f"{command}: in another order", "3,2,1", 0, ""),
        (f"{command}: one of them only", "1,1,1", 0, ""),
        (
            f"{command}: one too many",
            "1,2,4",
            2,
            "rgb.png: has 3 bands, too few for 1,2,4 ",
        ),
        (f"{command}: two", "1,2", 2, "1,2: expected three numbers"),
        (f"{command}: four", "1,2,3,4", 2, "expected three numbers"),
        (f"{command}: number 0", "0,1,2", 2, "expected three numbers"),
        (f"{command}: below 0", "1,-2,3", 2, "expected three numbers"),
        (f"{command}: words", "red,green,blue", 2, "expected three numbers"),
    ]
]


weights = model_content()["weights"]
other_network = {f"1.{name}": value for name, value in weights.items()}
looks = model_content()["looks"]
hostile = {"format": model_file.MODEL_FORMAT, "weights": Payload()}


def changed(layer, value):
    """Give a model file of which one layer's numbers are changed."""
    return model_bytes(weights={layer: value(weights[layer])})


def scale_of(kind=depth.INTEGERS, unit=(16.0, 16.0, 16.0)):
    """Give how a model file says that values become grey levels."""
    return {"kind": kind, "zero": (0.0, 0.0, 0.0), "unit": tuple(unit)}


OTHER = "does not hold this network, or not what belongs to it"
CATALOGUE["model files"] = [
    Case(name, (put, "bad.pt", content), "predict rgb.png --model bad.pt", code, words)
    for name, content, code, words in [
        ("empty", b"", 2, "is not a model file"),
        ("text", b"weights", 2, "is not a model file"),
        ("an image", WHOLE["png"], 2, "is not a model file"),
        ("cut in half", MODEL[: len(MODEL) // 2], 2, "is not a model file"),
        ("without its end", MODEL[:-30], 2, "is not a model file"),
        ("without its start", MODEL[30:], 2, "is not a model file"),
        ("NumPy's", zipped(**{"weights.npy": b"none"}), 2, "is not a model file"),
        (
            "a zip bomb",
            zipped(**{"a/data.pkl": bytes(2**26)}),
            2,
            "is not a model file",
        ),
        ("a pickle that would run code", pickle.dumps(Payload()), 2, "is not a model"),
        ("code in an archive", model_bytes(hostile), 2, "is not a model file"),
        ("code in the older form", legacy(hostile), 2, "is not a model file"),
        (
            "TorchScript",
            zipped(**{"a/constants.pkl": b"\x80\x02)."}),
            2,
            "is not a model",
        ),
        ("a pickled network", model_bytes(segutils.FCNN()), 2, "is not a model file"),
        ("weights alone", model_bytes(weights), 2, "train again"),
        ("a list", model_bytes([1, 2]), 2, "train again"),
        ("a number", model_bytes(1), 2, "train again"),
        ("an older format", model_bytes(format="segmentation, 1"), 2, "train again"),
        ("a format that is a tensor", model_bytes(format=torch.ones(2)), 2, "train"),
        ("no weights", model_bytes(without=["weights"]), 2, OTHER),
        ("another network", model_bytes({**model_content(), "weights": other_network}))
        + (2, OTHER),
        ("a layer more", model_bytes(weights={"conv5.bias": torch.ones(2)}), 2)
        + (OTHER,),
        ("another shape", changed("conv2.weight", lambda w: w[:9]), 2, OTHER),
        ("text for weights", changed("conv2.weight", str), 2, OTHER),
        ("without numbers", changed("conv2.weight", lambda w: w.to("meta")), 2)
        + (OTHER,),
        ("complex", changed("conv2.weight", lambda w: w + 1j), 2, OTHER),
        ("NaN", changed("conv4.bias", lambda w: w * np.nan), 2, "no finite outputs"),
        ("infinity", changed("norm1.weight", lambda w: w / 0), 2, "no finite outputs"),
        (
            "variance below 0",
            changed("norm2.running_var", lambda w: -w),
            2,
            "no finite outputs",
        ),
        (
            "spread of 0",
            changed("normalise.std", lambda w: 0 * w),
            2,
            "no finite outputs",
        ),
        ("huge", changed("conv3.weight", lambda w: w * 1e38), 2, "no finite outputs"),
        ("no colours", model_bytes(without=["colours"]), 2, OTHER),
        ("one colour", model_bytes(colours=[[0, 0, 0]]), 2, OTHER),
        ("colour of 256", model_bytes(colours=[[0, 0, 0], [256, 0, 0]]), 2, OTHER),
        ("one colour twice", model_bytes(colours=[[9, 9, 9]] * 2), 2, "no two colours"),
        ("no looks", model_bytes(without=["looks"]), 2, OTHER),
        ("looks of 0", model_bytes(looks={**looks, "colour": [0, 9, 9]}), 2, OTHER),
        ("NaN looks", model_bytes(looks={**looks, "contrast": [np.nan] * 3}), 2)
        + (OTHER,),
        ("a third class", model_bytes(looks={**looks, "larger": 2}), 2, OTHER),
        ("another first network", model_bytes(looks={**looks, "network": {}}), 2)
        + (OTHER,),
        ("the older form", legacy(model_content()), 0, "is class 1"),
        ("doubles", changed("conv2.weight", torch.Tensor.double), 2, OTHER),
        ("no scale", model_bytes(without=["scale"]), 2, OTHER),
        ("a scale of words", model_bytes(scale="large"), 2, OTHER),
        ("a scale of 8 bits", model_bytes(scale=scale_of("8 bits")), 2, OTHER),
        ("a unit of 0", model_bytes(scale=scale_of(unit=[0.0] * 3)), 2, OTHER),
        ("a unit of NaN", model_bytes(scale=scale_of(unit=[np.nan] * 3)), 2, OTHER),
        ("two units", model_bytes(scale=scale_of(unit=[1.0] * 2)), 2, OTHER),
        ("bands of words", model_bytes(channels="rgb"), 2, OTHER),
        ("band 0", model_bytes(channels=[0, 1, 2]), 2, OTHER),
        ("bands between", model_bytes(channels=[1.5, 2, 3]), 2, OTHER),
        ("bands by name", model_bytes(channels={1: 1, 2: 2, 3: 3}), 2, OTHER),
        ("two bands", model_bytes(channels=[1, 2]), 2, OTHER),
        (
            "band 4",
            model_bytes(channels=[1, 2, 4]),
            2,
            "has 3 bands, too few for 1,2,4",
        ),
        (
            "16 bits",
            model_bytes(scale=scale_of()),
            2,
            "the training image has integers of",
        ),
    ]
]

large = encoded(np.tile(noise, (9, 9, 1)))
CATALOGUE["full disk"] = [
    Case(name, (limit_files, 2000), command, 2, words)
    for name, command, words in [
        ("mask.png", "predict large.png --output mask.png", "mask.png: "),
        ("mask.jpg", "predict large.png --output mask.jpg", "mask.jpg: "),
        ("mask.tif", "predict large.png --output mask.tif", "mask.tif: "),
        ("model", "train", "new.pt: cannot be written (File too large)"),
    ]
]

# ------------------------------------------------------------------ how it ends

COMMANDS = {
    "predict": (predict.main, "--model model.pt --output mask.png"),
    "train": (
        train.main,
        "--rgb rgb.png --gt gt.png --model new.pt --plot curve.png --epochs 1",
    ),
}
OUTPUTS = ("mask", "-mask", "new", "curve")  # what their names begin with


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of work: an image, its truth, a model, and what older runs wrote."""
    monkeypatch.chdir(tmp_path)
    files = {"rgb.png": WHOLE["png"], "gt.png": truth_of(grey), "model.pt": MODEL}
    files |= {"mask.png": truth_of(grey), "curve.png": WHOLE["png"], "new.pt": MODEL}
    files |= {"large.png": large, "channels.tif": CHANNELS, "lzw.tif": LZW}
    files["odd.tif"] = ODD
    for name, content in files.items():
        put(name, content)
    monkeypatch.setattr(train, "EPOCH", 2)
    yield tmp_path
    limit_files(resource.RLIM_INFINITY)


def snapshot():
    """Give what every file of the folder holds, and where every link points to."""
    found = {}
    for path in Path().rglob("*"):
        if path.is_symlink():
            found[path.name] = os.readlink(path)
        else:
            found[path.name] = path.read_bytes() if path.is_file() else None
    return found


def is_whole(name):
    """Say whether an output can be read to its end."""
    if Path(name).suffix == ".pt":
        return bool(model_file.load(name))
    with Image.open(name) as image:
        return bool(image.load())


def run(command):
    """Run a command in this process, with its usual options; give its exit code."""
    name, *options = shlex.split(command)
    main, usual = COMMANDS[name]
    return console.run(main, [*usual.split(), *options])


def changed_since(before):
    """Give the names of the files that are new, gone or other than they were."""
    after = snapshot()
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{kind}: {case.name}")
        for kind, cases in CATALOGUE.items()
        for case in cases
    ],
)
def test_input_ends_as_documented(place, capfd, case):
    if case.made:
        make, *arguments = case.made
        make(*arguments)
    before = snapshot()
    code = run(case.command)
    limit_files(resource.RLIM_INFINITY)
    out, err = capfd.readouterr()
    changed = changed_since(before)
    assert code == case.code
    assert case.words in out + err
    if code == 2:
        # Of a large image, the line of its size comes first; on a full disk, GDAL has
        # lines of its own.
        lines = r"(.* pixels, .* GB of disk\n)?(_tiffWriteProc: .*\n)*error: .*\n"
        assert re.fullmatch(lines, err)
        assert not changed
    else:
        assert re.fullmatch("(warning: .*\n)*", err)
        assert changed and all(name.startswith(OUTPUTS) for name in changed)
        assert all(map(is_whole, changed))


# ------------------------------------------------------------------ as a process

PREDICT, TRAIN = (
    f"{sys.executable} {ROOT / name}.py {usual}"
    for name, (_, usual) in COMMANDS.items()
)
PROCESSES = {  # the line of shell, its exit code, and all that it says on stderr
    "pipe": (f"{PREDICT} <(cat rgb.png)", 2, "error: .* not a regular file .*\n"),
    "standard input": (f"cat rgb.png | {PREDICT} /dev/stdin", 2, "error: .*\n"),
    "report to a full disk": (
        f"{PREDICT} rgb.png >/dev/full",
        2,
        "error: standard output: No space .*\n",
    ),
    "report to nobody": (
        f"{PREDICT} rgb.png | true; exit ${{PIPESTATUS[0]}}",
        2,
        "error: standard output: Broken pipe\n",
    ),
    "two runs at once": (
        f"{PREDICT} rgb.png & {PREDICT} rgb.png & wait -n && wait -n",
        0,
        "",
    ),
    "matplotlib without a home": (f"HOME=/proc/none {TRAIN}", 0, "(.*atplotlib.*\n)*"),
    "lines of Pillow": (f"{PREDICT} channels.tif", 2, "error: .* damaged image.*\n"),
    "lines of Pillow and GDAL": (
        f"{PREDICT} odd.tif",
        0,
        "",
    ),
    "lines of libtiff": (f"{PREDICT} lzw.tif", 2, "error: .* damaged image .*\n"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_process_ends_as_documented(place, name):
    line, code, words = PROCESSES[name]
    before = snapshot()
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert ended.returncode == code
    assert re.fullmatch(words, ended.stderr)
    changed = changed_since(before)
    assert all(name.startswith(OUTPUTS) for name in changed)
    assert all(map(is_whole, changed))


# ------------------------------------------------------------------ in the notebook

UPLOADS = {
    "empty.png": b"",
    "cut.jpg": WHOLE["jpg"][:-900],
    "bomb.png": png(60_000, 60_000),
    "../../text.png": b"no picture",
    "x" * 300: b"no picture",
    "a<b>.png": pickle.dumps(Payload()),
    "..": b"no picture",
    "floats.tif": encoded(holed, "tif"),
}


def test_uploads_end_in_one_line_and_change_nothing(project, monkeypatch):
    (project / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(project / "tmp"))
    put("model.pt", MODEL)
    send = """
from datetime import datetime
from traitlets import Bunch

def everything():
    return {*Path().iterdir(), *Path(tempfile.gettempdir()).iterdir()}

before, there = canvas.value, everything()
for name, content in UPLOADS.items():
    message.value = ""
    facts = {"type": "", "size": len(content), "last_modified": datetime.now()}
    upload.value = (Bunch(name=name, content=memoryview(content), **facts),)
    assert ">error: " in message.value, name
    assert "<b>" not in message.value, name
    assert (canvas.value, everything()) == (before, there), name
"""
    last = f"UPLOADS = {UPLOADS}\n{send}"
    execute(project, "predict", last)
