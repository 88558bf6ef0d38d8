"""Measure how fast images are segmented, beside other ways to run the same weights.

    pip install -r benchmarks/requirements.txt
    python train.py
    python benchmarks/speed.py > benchmarks/results.md

All ways run in turn within each round, so that a busy machine is busy for all of them;
the medians over the rounds are printed, and what counts is their ratios. It takes about
ten minutes on two cores.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from monai.inferers import sliding_window_inference
from PIL import Image
from tqdm.auto import tqdm


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import images  # noqa: E402 - from the folder above
import segutils  # noqa: E402
import train  # noqa: E402


ROUNDS = 3
TILE = segutils.MAX_SIDE
# Multiply-adds a pixel, by the form that runs: each convolution's weights, a quarter of
# them where the map is half as high and wide.
FOLDED = 9 * 3 * 16 + 9 * 16 * 32 + (9 * 32 * 16 + 9 * 16 * 8) // 4


def picture(megapixels):
    """Repeat the training scene until it has about so many megapixels, square."""
    scene = images.read_rgb(ROOT / "data/rgb.png")
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
            cut = rgb[
                tile.rows.start : tile.rows.stop, tile.cols.start : tile.cols.stop
            ]
            logits = np.asarray(logits_of(channels_first(cut)))[0]
            mask[tile.core] = logits.argmax(0)[tile.rows.core, tile.cols.core]
        return mask

    return segment


def exported(plain):
    """Export the literal network to ONNX for inputs of one tile; gives the bytes."""
    example = (torch.zeros(1, 3, TILE, TILE),)
    program = torch.onnx.export(plain, example, dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def ways(model):
    """Give each way to segment an image: its name and its function of (H, W, 3)."""
    plain = torch.nn.Sequential(*model).eval()  # the literal layers, without the guard

    def whole(rgb):
        return plain(channels_first(rgb))[0].argmax(0).byte().numpy()

    def monai(overlap):
        def segment(rgb):
            x = channels_first(rgb)
            logits = sliding_window_inference(x, TILE, 1, plain, overlap=overlap)
            return logits[0].argmax(0).byte().numpy()

        return segment

    data = exported(plain)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    core = openvino.Core()
    found = {
        "segment()": lambda rgb: segutils.segment(model, rgb),
        "literal network, whole image": whole,
        "literal network, tiles": by_tiles(plain),
        "MONAI, no overlap": monai(0),
        "MONAI, its default overlap": monai(0.25),
        "ONNX Runtime, tiles": by_tiles(
            lambda x: session.run(None, {name: x.numpy()})[0]
        ),
    }
    for precision in ("f32", "bf16"):
        hints = {"INFERENCE_PRECISION_HINT": precision}
        compiled = core.compile_model(core.read_model(data), "CPU", hints)
        found[f"OpenVINO {precision}, tiles"] = by_tiles(
            lambda x, compiled=compiled: compiled(x.numpy())[0]
        )
    return found


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


def print_segmentation(model, found, megapixels, rounds):
    """Print the table of one size."""
    rgb = picture(megapixels)
    rates = [multiply_rate()]
    seconds, masks = compare(found, rgb, rounds)
    rates.append(multiply_rate())
    pixels = rgb.size / 3
    ours = seconds["segment()"]
    print(f"\n## {pixels / 1e6:.0f} megapixels\n")
    print("| | MP/s | segment() is faster by | pixels that differ |")
    print("|---|---|---|---|")
    for name, spent in seconds.items():
        differ = (masks[name] != masks["segment()"]).mean()
        ratio = f"{spent / ours:.2f}"
        print(f"| {name} | {pixels / 1e6 / spent:.2f} | {ratio} | {differ:.4%} |")
    run = len(segutils.tiles(*rgb.shape[:2])) * TILE**2  # the halos are computed, too
    share = run * FOLDED / ours / max(rates)
    print(
        f"\nA large matrix product: {max(rates) / 1e9:.0f} billion multiply-adds a "
        f"second. segment(), {FOLDED} a pixel, reaches {share:.0%} of that."
    )


def training_step(model, forward, channels_last):
    """Make a training step on 65,536 pixels with one form of the network."""
    x = torch.rand(16, 3, 64, 64) * 255
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    truth = torch.randint(2, (16, 64, 64), dtype=torch.uint8)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step():
        logits = forward(x)
        loss = segutils.segmentation_loss(logits[:, 1] - logits[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def print_training():
    """Print what a training step takes in the two forms."""
    rgb = images.read_rgb(ROOT / "data/rgb.png")
    model = train.new_model(rgb, 0, "cpu").train()
    steps = {
        "literal network, channels first": training_step(model, model.literal, False),
        "train.py's form": training_step(model, model, True),
    }
    seconds = {name: [] for name in steps}
    for _ in range(30):
        for name, step in steps.items():
            seconds[name].append(timed(step)[1])
    medians = {name: statistics.median(s[3:]) for name, s in seconds.items()}
    print("\n## A training step of 65,536 pixels\n")
    print("| | ms | of the literal one's time |")
    print("|---|---|---|")
    first = medians["literal network, channels first"]
    for name, spent in medians.items():
        print(f"| {name} | {spent * 1e3:.0f} | {spent / first:.2f} |")


# A process of its own, since a child's peak memory counts from what its parent holds.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(*command):
    """Give the seconds and the peak memory in MiB of a Python command."""
    line = [sys.executable, "-c", MEASURE, sys.executable, *map(str, command)]
    done, spent = timed(lambda: subprocess.run(line, check=True, capture_output=True))
    return spent, int(done.stdout) / 1024


def print_command():
    """Print time and peak memory of the whole command on a 16 MP PNG."""
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(picture(16)).save(Path(folder, "a.png"), compress_level=1)
        command = [ROOT / "predict.py", Path(folder, "a.png")]
        command += ["--model", ROOT / "model.pt", "--output", Path(folder, "m.png")]
        runs = [measured(*command) for _ in range(ROUNDS)]
    seconds, peaks = zip(*runs, strict=True)
    _, plain = measured("-c", "import torch")
    print("\n## The whole command on a 16 MP PNG\n")
    print(
        f"`python predict.py` from start to exit: {statistics.median(seconds):.1f} s, "
        f"at most {max(peaks):.0f} MiB; `import torch` alone takes {plain:.0f} MiB."
    )


def main():
    """Measure all, and print it as Markdown."""
    model, _ = segutils.load_model(ROOT / "model.pt")
    print("# How fast\n\n`python benchmarks/speed.py > benchmarks/results.md`; medians")
    print(f"of {ROUNDS} rounds, {torch.get_num_threads()} threads, torch", end=" ")
    print(f"{torch.__version__}, {platform.machine()}. Compare the ratios: the machine")
    print("that measured was shared. The peers run the same weights on the same image.")
    print_command()
    with torch.inference_mode():
        found = ways(model)
        print_segmentation(model, found, 1, ROUNDS)
        print_segmentation(model, found, 16, ROUNDS)
        large = {"segment()": found["segment()"]}
        print_segmentation(model, large, 100, 3)
    print_training()


if __name__ == "__main__":
    main()
