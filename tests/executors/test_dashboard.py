"""Ray's dashboard as a user sees it: reachable with the token, and trials by name in its task table."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from ecgscale.execution import Execution
from ecgscale.executors import Ended

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def dashboard_url():
    from ecgscale.executors import ray

    yield ray.start(ray.Cluster(cpus=1, dashboard=True))
    ray.stop()


def get(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_dashboard_lists_trials_by_name(dashboard_url, tiny_plan, data_dir, tmp_path):
    from ecgscale.executors import ray

    assert dashboard_url.startswith("http://127.0.0.1:")
    ended: list[Ended] = []
    spec = tiny_plan.specs[-1]
    ray.run([spec], Execution(data_dir, tmp_path / "r", "tiny"), ended.append)
    assert [end.status for end in ended] == ["completed"]

    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{dashboard_url}/api/v0/tasks")
    # the command that `--dashboard` tells the user to type
    token = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token"], capture_output=True, text=True, check=True
    )
    listed = get(f"{dashboard_url}/api/v0/tasks?detail=true", token.stdout.strip().splitlines()[-1])
    assert spec.label in {task["name"] for task in listed["data"]["result"]["result"]}
