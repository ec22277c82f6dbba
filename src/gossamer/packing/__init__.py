"""Kernels packed to the last bit: their layout in memory and in files.

Which weights are kept and what their codes are is decided elsewhere (`gossamer.compression`); here
they only become bytes, and come back unchanged.
"""

from gossamer.packing.account import Account, account
from gossamer.packing.codes_product import packed_product
from gossamer.packing.files import SafetensorsFile, write_safetensors
from gossamer.packing.folder import PackedFolder, model_bytes
from gossamer.packing.pack import check_packable, pack, pack_floats, stored_bytes, why_dense
from gossamer.packing.packed import Packed
from gossamer.packing.stored import StoredTensor, check_name
from gossamer.packing.writer import LAYOUT_VERSION, FolderWriter, shard_name

__all__ = [
    "LAYOUT_VERSION",
    "Account",
    "FolderWriter",
    "Packed",
    "PackedFolder",
    "SafetensorsFile",
    "StoredTensor",
    "account",
    "check_name",
    "check_packable",
    "model_bytes",
    "pack",
    "pack_floats",
    "packed_product",
    "shard_name",
    "stored_bytes",
    "why_dense",
    "write_safetensors",
]
