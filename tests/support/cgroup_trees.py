"""Trees of cgroup files, version 1 and version 2, with the record of a container beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

V1 = {
    "cpu/cpu.stat": "nr_periods 3\nnr_throttled 2\nthrottled_time 1\n",
    "cpuacct/cpuacct.usage": "18446744073709551615\n",
    "cpuacct/cpuacct.stat": "user 7\nsystem 5\n",
    "cpuacct/cpuacct.usage_all": "cpu user system\n0 1 2\n1 3 4\n",
    "cpuacct/cpuacct.usage_percpu": "3 7 \n",
    "cpuset/cpuset.cpus": "0-2,7\n",
    "cpuset/cpuset.sched_relax_domain_level": "-1\n",
    "memory/memory.stat": "cache 12\nrss 5\n",
    "memory/memory.usage_in_bytes": "17\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.kmem.tcp.failcnt": "4\n",
    "pids/pids.current": "2\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.bfq.io_serviced_recursive": "",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 4\n8:16 1\nTotal 5\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\nTotal 4096\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.max_usage_in_bytes": "4194304\n",
    "hugetlb/hugetlb.2MB.failcnt": "1\n",
}


V2 = {
    "cpu.stat": "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "memory.stat": "anon 5\nfile 12\n",
    "memory.max": "max\n",
    "memory.current": "17\n",
    "memory.peak": "20\n",
    "memory.swap.max": "100\n",
    "memory.swap.current": "3\n",
    "pids.current": "2\n",
    "pids.max": "9\n",
    "io.stat": "8:0 rbytes=4096 wbytes=1 rios=4 wios=1 dbytes=0 dios=0\n(unknown)\n",
    "hugetlb.2MB.current": "0\n",
    "hugetlb.2MB.rsvd.current": "2097152\n",
    "hugetlb.2MB.events": "max 3\n",
}


def make(tmp_path: Path, name: str, files: dict[str, str], *, unified: bool = False, parent: str = "") -> None:
    """Make a container's record as runc's is, and its cgroup."""
    cgroup = tmp_path / "cgroups" / parent / name
    for path, content in files.items():
        (cgroup / path).parent.mkdir(parents=True, exist_ok=True)
        (cgroup / path).write_text(content)
    directory = tmp_path / "root" / name
    directory.mkdir(parents=True, exist_ok=True)
    controllers = {path.split("/")[0] for path in files}
    record = {
        "id": name,
        "init_process_pid": 1,
        "init_process_start": 1,
        "created": "2026-11-28T17:53:30.633449354Z",
        "config": {"rootfs": "/rootfs", "version": "1.0.2", "labels": ["bundle=/bundle"]},
        "cgroup_paths": {"": str(cgroup)} if unified else {each: str(cgroup / each) for each in controllers},
    }
    (directory / "state.json").write_text(json.dumps(record))
