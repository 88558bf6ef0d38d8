"""Measure how fast images are segmented, beside other ways to run the same weights.

    pip install -r benchmarks/requirements.txt
    python train.py
    python benchmarks/speed.py

All ways run in turn within each round, so that a busy machine is busy for all of them;
the medians over the rounds are written to benchmarks/results.md, and what counts is
their ratios. It takes about ten minutes on two cores.
"""

import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import nncf
import numpy as np
import onnxruntime
import openvino
import torch
from matplotlib.figure import Figure
from monai.inferers import sliding_window_inference
from onnxruntime import quantization
from PIL import Image
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import memory  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
from plain import bare  # noqa: E402

import segutils  # noqa: E402 - from the folder above
import train  # noqa: E402
from onelabel import (  # noqa: E402
    console,
    labelled,
    model_file,
    pictures,
    sampling,
    scores,
)
from onelabel.reading import open_image  # noqa: E402


ROUNDS = {1: 5, 16: 5, 100: 3}  # by megapixels
TILE = segutils.MAX_SIDE
OURS = "segment()"
TILES = "literal network, tiles"
# Multiply-adds a pixel, by the form that runs: each convolution's weights, a quarter of
# them where the map is half as high and wide.
FOLDED = 9 * 3 * 16 + 9 * 16 * 32 + (9 * 32 * 16 + 9 * 16 * 4) // 4


# ------------------------------------------------------------------ the ways


def picture(megapixels):
    """Repeat the training scene until it has about so many megapixels, square."""
    scene = open_image(ROOT / "data/rgb.png").whole()
    side = round((megapixels * 1e6) ** 0.5)
    times = (-(-side // scene.shape[0]), -(-side // scene.shape[1]), 1)
    return np.ascontiguousarray(np.tile(scene, times)[:side, :side])


def channels_first(rgb):
    """Give an image as most frameworks want it: (1, 3, H, W) float32."""
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float().contiguous()


def by_tiles(logits_of):
    """Make a way to segment from a function of one tile's (1, 3, h, w) array."""

    def segment(rgb):
        mask = np.empty(rgb.shape[:2], np.uint8)
        for tile in segutils.tiles(*mask.shape):
            cut = rgb[tile.seen.slices]
            logits = np.asarray(logits_of(channels_first(cut)))[0]
            mask[tile.core.slices] = logits.argmax(0)[tile.core.within(tile.seen)]
        return mask

    return segment


def exported(plain):
    """Export the literal network to ONNX for inputs of one tile; gives the bytes."""
    example = (torch.zeros(1, 3, TILE, TILE),)
    program = torch.onnx.export(plain, example, dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def monai(network, overlap):
    """Segment as MONAI does."""

    def segment(rgb):
        x = channels_first(rgb)
        logits = sliding_window_inference(x, TILE, 1, network, overlap=overlap)
        return logits[0].argmax(0).byte().numpy()

    return segment


def by_onnxruntime(data):
    """Segment tiles by ONNX Runtime, from an ONNX file's bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return by_tiles(lambda x: session.run(None, {name: x.numpy()})[0])


def by_openvino(network, precision):
    """Segment tiles by OpenVINO."""
    hints = {"INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(network, "CPU", hints)
    return by_tiles(lambda x: compiled(x.numpy())[0])


class Calibration(quantization.CalibrationDataReader):
    """Tiles of the training image, for ONNX Runtime's own quantisation."""

    def __init__(self, name, tiles):
        self.left = iter([{name: tile} for tile in tiles])

    def get_next(self):
        """Give one more tile."""
        return next(self.left, None)


def quantised(data):
    """Quantise an ONNX file's network by NNCF, and by ONNX Runtime (its bytes)."""
    rgb = own_pair()[0]
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    cut = [rgb[tile.seen.slices] for tile in segutils.tiles(height, width)]
    tiles = [channels_first(part).numpy() for part in cut]
    network = openvino.Core().read_model(data)
    by_nncf = nncf.quantize(network, nncf.Dataset(tiles))
    with tempfile.TemporaryDirectory() as folder:
        plain, integers = Path(folder, "a.onnx"), Path(folder, "b.onnx")
        plain.write_bytes(data)
        session = onnxruntime.InferenceSession(data)
        reader = Calibration(session.get_inputs()[0].name, tiles)
        quantization.quantize_static(plain, integers, reader, per_channel=True)
        return by_nncf, integers.read_bytes()


def ways(model):
    """Give each way to segment an image: its name and its function of (H, W, 3)."""
    plain = torch.nn.Sequential(*model).eval()  # the literal layers, without the guard
    simple = bare(model)
    data = exported(simple)
    by_nncf, integers = quantised(data)
    network = openvino.Core().read_model(data)

    def whole(rgb):
        return plain(channels_first(rgb))[0].argmax(0).byte().numpy()

    def ours(precision):
        return lambda rgb: segutils.Predictor(model, precision).segment(rgb)

    integers_too = {f"{OURS}, int8": ours(torch.int8)}
    return {
        OURS: ours(torch.float32),
        **(integers_too if segutils.has_integers() else {}),
        f"{OURS}, bf16": ours(torch.bfloat16),
        "literal network, whole image": whole,
        TILES: by_tiles(plain),
        "network without norms, tiles": by_tiles(simple),
        "MONAI, no overlap": monai(plain, 0),
        "MONAI, its default overlap": monai(plain, 0.25),
        "MONAI without norms, no overlap": monai(simple, 0),
        "MONAI without norms, its default overlap": monai(simple, 0.25),
        "ONNX Runtime, tiles": by_onnxruntime(data),
        "ONNX Runtime int8, tiles": by_onnxruntime(integers),
        "OpenVINO f32, tiles": by_openvino(network, "f32"),
        "OpenVINO bf16, tiles": by_openvino(network, "bf16"),
        "OpenVINO int8 (NNCF), tiles": by_openvino(by_nncf, "f32"),
    }


def forest():
    """Make scikit-image's forest, trained on the training scene, a way to segment."""
    rgb, truth = own_pair()
    trained = peers.train_forest(rgb, truth, sampling.hold_out(truth), 0)
    return lambda rgb: peers.forest_mask(trained, rgb)


# ------------------------------------------------------------------ segmentation


def timed(function, *arguments):
    """Give a function's result and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def multiply_rate():
    """Give this machine's multiply-adds a second in a large float32 matrix product."""
    a = torch.randn(2048, 2048)
    return 2048**3 / min(timed(torch.matmul, a, a)[1] for _ in range(5))


def compare(found, rgb, rounds):
    """Time each way on an image; gives the median seconds and the masks."""
    seconds, masks = {name: [] for name in found}, {}
    for _ in tqdm(range(rounds), desc=f"{rgb.size / 3e6:.0f} MP", disable=None):
        for name, segment in found.items():
            masks[name], spent = timed(segment, rgb)
            seconds[name].append(spent)
    return {name: statistics.median(s) for name, s in seconds.items()}, masks


def segmentation(found, megapixels):
    """Compare the ways on one size; gives the median seconds and the table."""
    rgb = picture(megapixels)
    rates = [multiply_rate()]
    seconds, masks = compare(found, rgb, ROUNDS[megapixels])
    rates.append(multiply_rate())
    pixels = rgb.size / 3
    lines = [
        f"## {megapixels} MP",
        "",
        f"| | MP/s | {OURS} is faster by | pixels that differ |",
        "|---|---|---|---|",
    ]
    for name, spent in seconds.items():
        differ = (masks[name] != masks[OURS]).mean()
        ratio = f"{spent / seconds[OURS]:.2f}"
        lines.append(
            f"| {name} | {pixels / 1e6 / spent:.2f} | {ratio} | {differ:.4%} |"
        )
    run = len(segutils.tiles(*rgb.shape[:2])) * TILE**2  # the halos are computed, too
    share = run * FOLDED / seconds[OURS] / max(rates)
    lines += [
        "",
        f"A large matrix product: {max(rates) / 1e9:.0f} billion multiply-adds a "
        f"second. {OURS}, {FOLDED:,} a pixel, reaches {share:.0%} of that.",
        "",
    ]
    return seconds, lines


# ------------------------------------------------------------------ the command


def whole_command(ours, plain):
    """Time the whole command on a 16 MP PNG.

    `ours` and `plain` are the seconds that segment() and the plain tiles take.
    """
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(picture(16)).save(Path(folder, "a.png"), compress_level=1)
        command = [ROOT / "predict.py", Path(folder, "a.png")]
        command += ["--model", ROOT / "model.pt", "--output", Path(folder, "m.png")]
        line = [sys.executable, *command]
        runs = [memory.run(line)[0] for _ in range(ROUNDS[16])]
    seconds, _, peaks = zip(*runs, strict=True)
    whole = statistics.median(seconds)
    _, _, torch_alone = memory.run([sys.executable, "-c", "import torch"])[0]
    return [
        "## The whole command on a 16 MP PNG",
        "",
        f"`python predict.py` from start to exit: {whole:.1f} s, of which segment() "
        f"takes {ours:.1f}. Reading, writing and start-up together take "
        f"{(whole - ours) / plain:.0%} of the {plain:.1f} s that the literal network "
        f"takes to compute by tiles. Peak memory: {max(peaks):.0f} MiB; `import torch` "
        f"alone takes {torch_alone:.0f} MiB.",
        "",
    ]


# ------------------------------------------------------------------ training


def training_step(model, forward, channels_last):
    """Make a training step on 65,536 pixels with one form of the network."""
    x = torch.rand(16, 3, 64, 64) * 255
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    truth = torch.randint(2, (16, 64, 64), dtype=torch.uint8)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step():
        logits = forward(x)
        loss = scores.segmentation_loss(logits[:, 1] - logits[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def own_pair():
    """Read the project's own labelled image: its pixels, and their classes."""
    names = (ROOT / "data/rgb.png", ROOT / "data/gt.png")
    return labelled.read_labelled([names]).pairs[0]


def own_scene():
    """Read and split the project's own labelled image."""
    return sampling.split_scene(*own_pair(), train.PATCH)


def training_steps():
    """Compare a training step in the two forms."""
    model = train.new_model([own_scene()], 0, "cpu").train()
    steps = {
        "literal network, channels first": training_step(model, model.literal, False),
        "train.py's form": training_step(model, model, True),
    }
    seconds = {name: [] for name in steps}
    for _ in range(60):
        for name, step in steps.items():
            seconds[name].append(timed(step)[1])
    medians = {name: statistics.median(s[3:]) for name, s in seconds.items()}
    first = medians["literal network, channels first"]
    return [
        "## A training step of 65,536 pixels",
        "",
        "| | ms | of the literal one's time |",
        "|---|---|---|",
        *(f"| {n} | {s * 1e3:.0f} | {s / first:.2f} |" for n, s in medians.items()),
        "",
    ]


def time_to_naive():
    """Compare how long train.py takes to be as good as the naive recipe at its end."""
    scene = own_scene()
    naive, naive_seconds = timed(peers.train_naive, *scene[:3], 0)
    goal = train.evaluate(naive, [scene])[1]["IoU"]
    start = time.perf_counter()
    model = train.new_model([scene], 0, "cpu")
    plan = train.plan_epochs([scene])
    trainer = train.Trainer(model, [scene], *plan, 0)
    for epoch in (trainer.epoch() for _ in range(plan[1])):
        if epoch.scores["IoU"] >= goal:
            break
    spent = time.perf_counter() - start
    return [
        "## Training to the naive recipe's end",
        "",
        f"The naive recipe ends at a held-out IoU of {goal:.3f} after "
        f"{naive_seconds:.0f} s; train.py's training is there after epoch "
        f"{epoch.number}, in {spent / naive_seconds:.0%} of that time.",
        "",
    ]


# ------------------------------------------------------------------ all


@matplotlib.rc_context({**pictures.STYLE, "axes.grid.axis": "x"})
def bars(values, label):
    """Compare numbers by horizontal bars, the first one's in its own colour."""
    figure = Figure(figsize=(7, 0.8 + 0.32 * len(values)), layout="constrained")
    axis = figure.subplots()
    colours = [pictures.BLUE] + [pictures.ORANGE] * (len(values) - 1)
    drawn = axis.barh(list(values), list(values.values()), color=colours)
    axis.bar_label(drawn, fmt="%.2f", padding=3)
    axis.invert_yaxis()
    axis.set(xlabel=label, axisbelow=True)
    axis.margins(x=0.1)
    return figure


def main():
    """Measure all, and put it into results.md."""
    model = model_file.load(ROOT / "model.pt").model
    lines = [
        f"`python benchmarks/speed.py`; medians, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {platform.machine()}. Compare the ratios: the "
        "machine that measured was shared. The peers run the same weights on the same "
        "image, the forest its own.",
        "",
        "![Megapixels a second on 16 MP](speed.png)",
        "",
    ]
    found = ways(model)
    with torch.inference_mode():
        _, one = segmentation({**found, "scikit-image's forest": forest()}, 1)
        seconds, sixteen = segmentation(found, 16)
        large, hundred = segmentation({OURS: found[OURS]}, 100)
    per_pixel = large[OURS] / 100 / (seconds[OURS] / 16)
    lines += [*one, *sixteen, *hundred]
    lines += [f"Seconds a megapixel at 100 MP: {per_pixel:.2f} of those at 16 MP.", ""]
    lines += whole_command(seconds[OURS], seconds[TILES])
    lines += [*training_steps(), *time_to_naive()]
    report.write_part("How fast", "\n".join(lines))
    chart = bars({n: 16 / s for n, s in seconds.items()}, "MP/s on 16 MP")
    pictures.save(chart, ROOT / "benchmarks/speed.png")


if __name__ == "__main__":
    raise SystemExit(console.run(main))
