"""Results of cells that were never run: what verdicts, reports and journals are about."""

from gossamer.compression.interplay import DENSE, Cell, Result


def result(cell: Cell, *losses: float, bits: float = 8.0, megabytes: float = 1.0) -> Result:
    return Result(
        cell=cell,
        losses=losses,
        bits_per_weight=bits,
        model_bytes=int(1e6 * megabytes),
        weight_error=0.25,
        depth_relative=(0.0, 0.1, 0.2),
        depth_absolute=(0.0, 1.5, 3.5),
        seconds=2.0,
    )


SQ = Cell(format="INT8", pattern="2:4", method="magnitude", order="sq")
QS = Cell(format="INT8", pattern="2:4", method="magnitude", order="qs")
SPARSE, QUANTIZED = SQ.singles()
GRID = [
    result(DENSE, 3.0, 3.2, 3.1, bits=32.0, megabytes=100.0),
    result(QUANTIZED, 3.1, 3.3, 3.2, bits=8.0, megabytes=40.0),
    result(SPARSE, 4.0, 4.3, 4.1, bits=17.0, megabytes=60.0),
    result(SQ, 4.2, 4.6, 4.4, bits=5.0, megabytes=30.0),
    result(QS, 4.4, 4.7, 4.55, bits=5.0, megabytes=30.0),
]
PROTOCOL = {
    "gossamer": "0",
    "model": {"name": "tiny", "format": "test"},
    "text": "words.txt",
    "windows": 3,
    "context": 24,
    "tokens_sha256": "ab",
    "calibration": {"text": "other.txt", "sequences": 4, "sequence_length": 24, "sha256": "cd"},
    "kernels": 14,
    "left_out": {},
}
