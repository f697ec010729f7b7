"""Where a device's cgroup is made, and what is written there, for the ways in which Linux machines have cgroups."""

from pathlib import Path

import pytest

from targets.errors import EnvironmentFault
from targets.lab.power.cgroup import CgroupV1, CgroupV2, create, hierarchies, left_of, remove_all

V2_MOUNT = "30 23 0:26 / {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = """31 23 0:27 {root} {top}/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 {root} {top}/memory rw shared:6 - cgroup cgroup rw,memory
"""


def version_2(top: Path, controllers: dict[str, tuple[str, str]]) -> None:
    """A tree such as the kernel's: folder -> (cgroup.controllers, cgroup.subtree_control)."""
    for name, (available, handed_on) in controllers.items():
        (top / name).mkdir(parents=True, exist_ok=True)
        (top / name / "cgroup.controllers").write_text(available + "\n")
        (top / name / "cgroup.subtree_control").write_text(handed_on + "\n")


def test_version_2_uses_the_nearest_cgroup_that_hands_cpu_on(tmp_path: Path) -> None:
    """A session's own cgroup has processes, and cannot; its slice does."""
    session = "user.slice/user-0.slice/session-1.scope"
    version_2(
        tmp_path, {"": ("cpu io", "cpu io"), "user.slice": ("cpu", "cpu"), "user.slice/user-0.slice": ("cpu", "")}
    )
    version_2(tmp_path, {session: ("", "")})
    seen = hierarchies(V2_MOUNT.format(top=tmp_path), f"0::/{session}\n")
    assert create("one", "rpi4-0", seen) == CgroupV2(folder=tmp_path / "user.slice/edge-deploy-lab.one.rpi4-0")


def test_version_2_asks_the_root_when_nobody_hands_cpu_on(tmp_path: Path) -> None:
    version_2(tmp_path, {"": ("cpu memory", "memory"), "app": ("memory", "")})
    seen = hierarchies(V2_MOUNT.format(top=tmp_path), "0::/app\n")
    assert create("one", "rpi4-0", seen) == CgroupV2(folder=tmp_path / "edge-deploy-lab.one.rpi4-0")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu\n"


@pytest.mark.parametrize(
    ("mounts", "own", "reason"),
    [
        ("", "", "cpu and cpuacct"),
        (V1_MOUNTS.replace("cpu,cpuacct", "cpuacct"), "4:cpuacct:/\n", "no cgroup hierarchy with cpu is mounted"),
        (V2_MOUNT, "0::/\n", "no `cpu` controller in cgroup version 2"),
    ],
)
def test_a_machine_without_the_controllers_says_so(tmp_path: Path, mounts: str, own: str, reason: str) -> None:
    version_2(tmp_path, {"": ("hugetlb", "")})
    with pytest.raises(EnvironmentFault, match=reason) as caught:
        create("one", "rpi4-0", hierarchies(mounts.format(top=tmp_path, root="/"), own))
    assert "without power and heat" in caught.value.hint


def test_version_1_comes_first_where_both_are_mounted(tmp_path: Path) -> None:
    for place in ("cpu,cpuacct/app", "memory"):
        (tmp_path / place).mkdir(parents=True)
    mounts = V1_MOUNTS.format(top=tmp_path, root="/") + V2_MOUNT.format(top=tmp_path / "unified")
    seen = hierarchies(mounts, "4:memory:/\n3:cpu,cpuacct:/app\n0::/\n")
    folder = tmp_path / "cpu,cpuacct/app/edge-deploy-lab.one.rpi4-0"
    memory = tmp_path / "memory/edge-deploy-lab.one.rpi4-0"
    assert create("one", "rpi4-0", seen) == CgroupV1(cpu=folder, cpuacct=folder, memory=memory)


def test_a_container_sees_its_own_part_of_the_hierarchy(tmp_path: Path) -> None:
    """The mount shows what is below /docker/7f; paths in /proc/self/cgroup are from the top."""
    mounts = V1_MOUNTS.format(top=f"{tmp_path}/my\\040groups", root="/docker/7f")
    seen = hierarchies(mounts, "4:memory:/docker/7fff\n3:cpu,cpuacct:/docker/7f/app\n")
    assert seen.own["cpu"] == tmp_path / "my groups/cpu,cpuacct/app"
    assert seen.own["memory"] == tmp_path / "my groups/memory"  # elsewhere: the nearest that is shown


def test_usage_and_quota_of_both_versions(tmp_path: Path) -> None:
    first, second = CgroupV1(cpu=tmp_path / "1", cpuacct=tmp_path / "1"), CgroupV2(folder=tmp_path / "2")
    for folder in (first.cpu, second.folder):
        folder.mkdir()
    (first.cpu / "cpuacct.usage").write_text("2500000000\n")
    (first.cpu / "cpu.stat").write_text("nr_periods 7\nnr_throttled 3\nthrottled_time 1250000000\n")
    (second.folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\nthrottled_usec 1250000\n")
    assert first.cpu_time() == second.cpu_time()
    assert (first.cpu_time().used_s, first.cpu_time().withheld_s) == (2.5, 1.25)
    for cores, quota, text in (
        (0.55, "11000", "11000 20000"),
        (None, "-1", "max 20000"),
        (0.001, "1000", "1000 20000"),
    ):
        first.limit(cores)
        second.limit(cores)
        assert (first.cpu / "cpu.cfs_quota_us").read_text() == quota + "\n"
        assert (second.folder / "cpu.max").read_text() == text + "\n"


def test_only_what_the_lab_has_left_is_removed(tmp_path: Path) -> None:
    """One lab's name may begin with another's, and it may have been started anywhere."""
    for name in ("edge-deploy-lab.one.pi", "deep/er/edge-deploy-lab.one.pi-2", "edge-deploy-lab.one-more.pi"):
        (tmp_path / name).mkdir(parents=True)
    seen = hierarchies(V2_MOUNT.format(top=tmp_path), "0::/\n")
    assert {path.name for path in left_of("one", seen)} == {"edge-deploy-lab.one.pi", "edge-deploy-lab.one.pi-2"}
    remove_all("one", seen)
    remove_all("one", seen)
    assert [path.name for path in sorted(tmp_path.rglob("edge*"))] == ["edge-deploy-lab.one-more.pi"]
