import pytest

from gossamer.data import Tokenizer
from gossamer.loading import Checkpoint
from tests.inference.tiny import byte_tokenizer, tiny


@pytest.fixture(params=["llama", "opt"])
def checkpoint(request) -> Checkpoint:
    """A model of each family in turn."""
    return tiny(request.param)


@pytest.fixture
def llama() -> Checkpoint:
    return tiny("llama")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()
