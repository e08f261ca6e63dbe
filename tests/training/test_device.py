import subprocess
import sys

import pytest
import torch

from epochd.errors import InfrastructureError, OutOfMemoryError
from epochd.training import device as devices

CPU = torch.device("cpu")


def test_auto_is_a_device_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert devices.resolve_device("auto").type == expected
    assert devices.resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "cuda"])
def test_a_device_that_is_not_there_is_named(name):
    if name == "cuda" and torch.cuda.is_available():
        assert devices.resolve_device(name) == torch.device("cuda", 0)
        return
    with pytest.raises(InfrastructureError, match=rf"'{name}' is not available") as caught:
        devices.resolve_device(name)
    assert caught.value.code == "device_not_available"


def test_configure_sets_the_threads_of_the_process():
    code = "import torch; from epochd.training.device import *; configure(1); print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_small_mini_batches_take_one_thread():
    assert devices.suitable_threads(1000) == 1
    assert devices.suitable_threads(10**9) == torch.get_num_threads()


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with devices.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_seeds_depend_on_every_part_and_on_their_order():
    seeds = {
        devices.mixed_seed(*parts) for parts in [("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("a", 12), ("a", 1)]
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert devices.mixed_seed("order", 2**63 - 1, 10**6) == devices.mixed_seed("order", 2**63 - 1, 10**6)


def test_randomness_is_swapped_with_the_callers():
    randomness = devices.Randomness(CPU)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    first = torch.rand(2)
    randomness.swap()
    torch.manual_seed(77)
    torch.rand(3)
    randomness.swap()
    assert torch.cat([first, torch.rand(2)]).equal(expected)


def test_randomness_goes_on_where_it_was():
    randomness = devices.Randomness(CPU)
    randomness.swap()
    torch.rand(5)
    randomness.swap()
    state = randomness.state_dict()
    randomness.swap()
    expected = torch.rand(5)
    randomness.swap()
    again = devices.Randomness(CPU)
    again.load_state_dict(state, seed=0)
    again.swap()
    assert torch.rand(5).equal(expected)
    again.swap()
    assert state["cuda"] is None


def test_running_out_of_memory_has_its_own_error():
    with pytest.raises(OutOfMemoryError, match="does not fit into memory"), devices.memory_errors():
        torch.empty(2**50)
    with pytest.raises(OutOfMemoryError), devices.memory_errors():
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="size"), devices.memory_errors():
        torch.zeros(2) + torch.zeros(3)
