"""The SLURM file in docs/scaling.md, with fake SLURM and Ray programs that record their calls."""

import os
import re
import subprocess
from pathlib import Path

FAKE_SER = """\
#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
"""


def test_each_node_gets_its_cores_and_the_head_its_name(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/scaling.md").read_text()
    (file,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("srun", "ray", "ser", "sleep", "hostname"):
        (programs / name).write_text(FAKE_SER)
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to("/bin/true")
    (tmp_path / "job.sh").write_text(file)
    calls = tmp_path / "calls"
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "32", "SLURMD_NODENAME": "node1"}
    environment = {"PATH": os.environ["PATH"], "CALLS": str(calls), **job}
    subprocess.run(["bash", "job.sh", "TABLE.yaml"], cwd=tmp_path, env=environment, check=True)
    steps = [line for line in calls.read_text().splitlines() if line.startswith("srun ")]
    assert len(steps) == 2
    assert all("--cpus-per-task=32 " in step and "--num-cpus=32 " in step for step in steps), steps
    head, others = sorted(steps, key=lambda step: "--head" not in step)  # both run in the background
    assert "--nodes=1 --ntasks=1 --nodelist=node1 ray start --head --port=20007" in head
    assert "--nodes=2 --ntasks=2 --exclude=node1 ray start --address=node1:20007" in others
    assert "ser table run TABLE.yaml --address node1:20007" in calls.read_text()
