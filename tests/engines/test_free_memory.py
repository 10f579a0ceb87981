"""How much memory is said to be free on a CPU, inside containers and where no system says."""

import os

import pytest
import torch

from vrprm_reward.engines.local import memory

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes control groups: (line of /proc/self/cgroup, folder -> files)."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_free_on_machine", lambda: 1000 * MIB)

    def write(line, folders):
        (tmp_path / "own").write_text(f"1:cpu:/\n{line}\n")
        for name, (limit, used, cached) in folders.items():
            folder = tmp_path / "cgroup" / name
            folder.mkdir(parents=True, exist_ok=True)
            first = line.startswith("0::")
            (folder / ("memory.max" if first else "memory.limit_in_bytes")).write_text(f"{limit}\n")
            (folder / ("memory.current" if first else "memory.usage_in_bytes")).write_text(
                f"{used}\n"
            )
            key = "inactive_file" if first else "total_inactive_file"
            (folder / "memory.stat").write_text(f"anon 7\n{key} {cached}\n")

    return write


def test_without_control_groups_it_is_what_the_machine_has(machine):
    assert memory.free_bytes(CPU) == 1000 * MIB


@pytest.mark.parametrize(("line", "root"), [("0::/pod/box", ""), ("9:memory:/pod/box", "memory/")])
def test_a_containers_limit_counts_without_files_that_were_only_read(machine, line, root):
    machine(line, {f"{root}pod/box": (500 * MIB, 300 * MIB, 100 * MIB)})
    assert memory.free_bytes(CPU) == 300 * MIB


def test_a_container_that_is_its_own_root_has_its_limit(machine):
    machine("0::/../elsewhere", {"": (500 * MIB, 600 * MIB, 0)})
    assert memory.free_bytes(CPU) == 0


def test_the_tightest_of_the_groups_above_counts_and_no_limit_is_none(machine):
    machine(
        "0::/pod/box",
        {"pod/box": ("max", 10 * MIB, 0), "pod": (200 * MIB, 50 * MIB, 0), "": (900 * MIB, 0, 0)},
    )
    assert memory.free_bytes(CPU) == 150 * MIB


def test_version_1_without_a_limit_leaves_what_the_machine_has(machine):
    machine("9:cpuset,memory:/", {"memory": (9223372036854771712, 0, 0)})
    assert memory.free_bytes(CPU) == 1000 * MIB


@pytest.mark.parametrize("error", [ValueError("unrecognized name"), None])
def test_a_system_that_does_not_say_is_taken_to_have_some(monkeypatch, error):
    def sysconf(name):
        raise error

    if error is None:
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", sysconf)
    assert memory._free_on_machine() == 4 * 2**30
