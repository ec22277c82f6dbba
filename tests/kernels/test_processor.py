import os

import pytest

from gossamer.kernels import processor
from gossamer.kernels.processor import Processor

X86 = """processor\t: 0
model name\t: Some Maker's Processor 9000
flags\t\t: fpu fma avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp sve2
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> Processor:
        (tmp_path / "cpuinfo").write_text(text)
        return processor.read(tmp_path / "cpuinfo")

    return read


def test_an_x86_processor_has_a_name_and_some_features_of_those_that_matter(read):
    found = read(X86)
    assert found.name == "Some Maker's Processor 9000"
    assert [name for name, there in found.features.items() if there] == [
        "avx2",
        "fma",
        "avx512f",
        "avx512_vnni",
    ]
    assert found.features["avx_vnni"] is found.features["avx512_bf16"] is False


def test_an_arm_processor_is_named_by_its_numbers(read):
    found = read(ARM)
    assert found.name == "Arm implementer 0x41 part 0xd40"
    assert found.features == {"asimd": True, "asimddp": True, "i8mm": False, "sve": False}


def test_of_another_processor_nothing_is_known(read):
    assert read("processor\t: 0\nisa\t: rv64imafdc\n") == Processor(name=None, features=None)


def test_without_the_file_nothing_is_known(tmp_path):
    assert processor.read(tmp_path / "absent") == Processor(name=None, features=None)


def test_threads_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert processor.threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processor.threads() == 7
