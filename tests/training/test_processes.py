"""Two processes on loopback, each with a device."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml

from gossamer.training import MeshConfig
from tests.training import test_pairs
from tests.training.runs import run


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(file, out, **options) -> subprocess.Popen:
    """`gossamer train` in a process of its own."""
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "gossamer", "train", str(file), "--out", str(out), *flags]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return subprocess.Popen(
        [*command, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def results_of_two(file, out, **options) -> list[dict]:
    """Of two processes that train together."""
    where = f"127.0.0.1:{free_port()}"
    started = [
        start(file, out, coordinator=where, processes=2, process=number, **options)
        for number in range(2)
    ]
    try:
        return [result(process) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()  # else what is left of it is a warning in another test


def test_nothing_is_computed_before_processes_are_connected():
    """JAX refuses either once it has looked for devices."""
    code = "import gossamer.training, jax; jax.config.update('jax_num_cpu_devices', 3)"
    environment = {name: os.environ[name] for name in os.environ if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("hello, hello, he fell; " * 60)
    data = run(mesh=MeshConfig(), steps=4).to_dict()
    data["data"] |= {"text": str(text), "held_out": 0.2}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    alone = result(start(file, tmp_path / "alone"))
    both = results_of_two(file, tmp_path / "both")
    # The same windows in another order, so sums of float32 in another order.
    assert [each["loss"] for each in both] == pytest.approx([alone["loss"]] * 2, rel=1e-4)


@pytest.mark.slow
def test_two_processes_learn_pairs_and_translate_as_one(tmp_path):
    pairs = tmp_path / "pairs.tsv"
    lines = (f"{pair.source}\t{pair.target}\n" for pair in test_pairs.pairs())
    pairs.write_text("".join(lines), encoding="utf-8")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(test_pairs.run(mesh=MeshConfig(), steps=4).to_dict()))
    alone = result(start(file, tmp_path / "alone", data=pairs))
    both = results_of_two(file, tmp_path / "both", data=pairs)
    for one in both:
        # The order in which devices' gradients are summed differs in float32's last digits.
        assert one["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert one["sentences"] == alone["sentences"]
    assert both[0]["bleu"] == both[1]["bleu"]
