"""A Ray cluster of several nodes, all on this machine: nodes come and go, GPUs are shared, rows travel."""

import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from ecgscale.errors import EcgscaleError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, inprocess
from ecgscale.executors.slots import Slots
from ecgscale.failures import FailureClass
from ecgscale.results import RunRecord, read

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    # Ray's cluster of several nodes looks for free ports, and leaves the sockets to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

ray_cluster = pytest.importorskip("ray.cluster_utils")


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no trials; each test adds the nodes it wants, and takes them away."""
    from ecgscale.executors import ray

    nodes = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.start(ray.Cluster(address=nodes.address))
    yield nodes
    ray.stop()
    nodes.shutdown()


def scores(record: RunRecord) -> tuple:
    transfer = tuple((s.task, s.loss, s.auroc, s.l2) for s in record.transfer)
    return record.status, record.id_loss, record.id_loss_last, record.val_loss_best, record.val_loss_last, transfer


def test_trials_of_a_node_that_leaves_go_on_where_one_has_joined(cluster, tiny_plan, data_dir, tmp_path):
    """The only node is taken away in the middle of a trial; another joins, and every trial has ended once."""
    from ecgscale.executors import ray

    *short, long = (spec for spec in tiny_plan.specs if spec.data_fraction == 0.5)
    long = long.model_copy(update={"n_steps": 250, "seed": 4711})
    specs = (short[0], long, *short[1:])
    first = cluster.add_node(num_cpus=1)
    folder = tmp_path / "tiny"
    execution = Execution(data_dir, folder, "tiny", checkpoint_s=0.2)
    ended: list[Ended] = []
    joined = []

    def swap_nodes() -> bool:
        """Asked between two looks; once the long trial has written a checkpoint."""
        if not joined and list(folder.glob(f"checkpoints/{long.trial_id}*")):
            joined.append(cluster.add_node(num_cpus=1))
            cluster.remove_node(first)
        return False

    ray.run(specs, execution, ended.append, stop=swap_nodes)
    cluster.remove_node(joined[0])
    assert Counter(end.trial_id for end in ended) == Counter(spec.trial_id for spec in specs)
    assert {end.status for end in ended} == {"completed"}
    rows = {row.trial_id: row for row in read(folder)}
    assert len(read(folder)) == len(specs) and rows[long.trial_id].n_resumes == 1
    inprocess.run(specs, Execution(data_dir, tmp_path / "undisturbed", "tiny"), lambda end: None)
    undisturbed = {row.trial_id: scores(row) for row in read(tmp_path / "undisturbed")}
    assert {trial_id: scores(row) for trial_id, row in rows.items()} == undisturbed
    assert list((folder / "leases").iterdir()) == []


# --- shares of GPUs ------------------------------------------------------------------------------------------------


class Napping:
    """Stands for the actor: a trial sleeps for `n_steps` ms, and says on which GPU and when."""

    def pid(self):
        return os.getpid()

    def run(self, group, execution, ship):
        import ray

        from ecgscale.executors.ray_slot import Answer

        (spec,) = group
        gpu = (*ray.get_runtime_context().get_accelerator_ids().get("GPU", []), "none")[0]
        began = time.time()
        time.sleep(spec.n_steps / 1000)
        told = f"{spec.seed} {gpu} {os.getpid()} {began} {time.time()}\n"
        with (execution.results / "naps").open("a") as sink:
            sink.write(told)
        return Answer((Ended(spec.trial_id, spec.label, "completed", 0.0, 0.5, None),), 0, False)


@dataclass(frozen=True)
class SharesBySeed(Slots):
    shares: tuple[float, ...] = ()

    def share(self, spec, gpu_memory_gib):
        return self.shares[spec.seed]


@dataclass(frozen=True)
class Nap:
    number: int
    gpu: str
    pid: int
    began: float
    ended: float


@pytest.fixture
def naps(cluster, tiny_plan, data_dir, tmp_path, monkeypatch):
    """`naps([(seconds, share), …], num_cpus=…, …)`: runs them on one node, in this order; returns what they told."""
    import ray as ray_itself
    from ray import cloudpickle

    from ecgscale.executors import ray, ray_pool

    this_file = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(this_file)  # workers can't import it
    nodes = []

    def run(wanted, actor=Napping, **node):
        monkeypatch.setattr(ray_pool, "_actor", ray_itself.remote(actor))
        nodes.append(cluster.add_node(**node))
        specs = [
            tiny_plan.specs[0].model_copy(update={"seed": k, "n_steps": int(1000 * seconds)})
            for k, (seconds, _) in enumerate(wanted)
        ]
        slots = SharesBySeed(gpu_memory_gib=80, shares=tuple(share for _, share in wanted))
        ended: list[Ended] = []
        ray.run(specs, Execution(data_dir, tmp_path, "tiny"), ended.append, slots=slots)
        assert sorted(end.label for end in ended) == sorted(spec.label for spec in specs)
        lines = [line.split() for line in (tmp_path / "naps").read_text().splitlines()]
        return sorted(
            (Nap(int(n), gpu, int(pid), float(a), float(b)) for n, gpu, pid, a, b in lines), key=lambda nap: nap.began
        )

    yield run
    cloudpickle.unregister_pickle_by_value(this_file)
    for node in nodes:
        cluster.remove_node(node)


def test_trials_hold_their_shares_of_gpus_and_a_whole_one_is_not_starved(naps):
    wanted = [(0.2, 1 / 8), (1.0, 1 / 2), (0.5, 1 / 2), (0.5, 1.0), *[(0.5, 1 / 2)] * 12, *[(0.3, 1 / 4)] * 4]
    found = naps(wanted, num_cpus=8, num_gpus=2)
    for gpu in {nap.gpu for nap in found}:
        there = [nap for nap in found if nap.gpu == gpu]
        for nap in there:
            beside = [other for other in there if other.began <= nap.began < other.ended]
            assert sum(wanted[other.number][1] for other in beside) <= 1
    assert {nap.gpu for nap in found} == {"0", "1"}
    whole = next(nap for nap in found if nap.number == 3)
    overtaking = [nap.number for nap in found if nap.gpu == whole.gpu and nap.began < whole.began]
    assert not set(overtaking) & set(range(4, 16))  # half of them, if it had no reservation


def test_a_gpu_holds_no_more_trials_than_its_node_has_cpus_for(naps):
    wanted = [(2.0, 1 / 8)] * 8  # long, since actors start one after the other
    found = naps(wanted, num_cpus=3, num_gpus=1)
    assert max(sum(o.began <= nap.began < o.ended for o in found) for nap in found) == 3


# --- workers -------------------------------------------------------------------------------------------------------


class Troubled(Napping):
    """Its first trial leaves too much memory behind, the second a bug, the third was asked to stop."""

    def run(self, group, execution, ship):
        answer = super().run(group, execution, ship)
        trouble = {
            0: {"anonymous_bytes": 2**60},
            1: {"ends": (replace(answer.ends[0], status="failed", failure=FailureClass.BUG),)},
            2: {"asked_to_stop": True},
        }
        return replace(answer, **trouble.get(group[0].seed, {}))


class Broken(Napping):
    def __init__(self):
        raise ImportError("ecgscale of another day")


def test_a_worker_goes_on_until_it_is_not_to_be_trusted(naps):
    pids = [nap.pid for nap in naps([(0.1, 1)] * 5, Troubled, num_cpus=1)]
    assert len(set(pids)) == 4 and pids[3] == pids[4]


def test_a_node_on_which_no_worker_starts_is_given_up(naps, caplog):
    with pytest.raises(EcgscaleError, match=r"no worker starts on any node .*: ImportError: .*another day"):
        naps([(0.1, 1)], Broken, num_cpus=1)
    assert "nothing more is run there" in caplog.text


# --- nodes that share no folder ------------------------------------------------------------------------------------


def test_rows_are_shipped_and_records_packed_where_they_are(cluster, tiny_plan, data_dir, tmp_path, monkeypatch):
    """The node has records that nobody has packed, and is not told of the results folder."""
    from ecgscale.executors import ray

    its_data, temporary = tmp_path / "data", tmp_path / "of the node"
    for name in ("A", "B"):
        shutil.copytree(data_dir / name, its_data / name, ignore=shutil.ignore_patterns("packed"))
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # the new node's
    node = cluster.add_node(num_cpus=1)
    monkeypatch.delenv("TMPDIR")
    specs = [tiny_plan.specs[-1], tiny_plan.specs[0].model_copy(update={"data_fingerprint": {"A": "of another day"}})]
    ended: list[Ended] = []
    folder = tmp_path / "tiny"
    execution = Execution(its_data, folder, "tiny")
    ray.run(specs, execution, ended.append, slots=Slots(ship_results=True))
    cluster.remove_node(node)
    assert [end.status for end in ended] == ["completed", "failed"]
    rows = {row.trial_id: row for row in read(folder)}
    assert [rows[spec.trial_id].status for spec in specs] == ["completed", "failed"]
    inprocess.run(specs[:1], Execution(data_dir, tmp_path / "here", "tiny"), lambda end: None)
    assert scores(rows[specs[0].trial_id]) == scores(read(tmp_path / "here")[0])
    assert sorted(path.name for path in folder.iterdir()) == ["encoders", "leases", "rows", "transfer"]
    assert list((folder / "leases").iterdir()) == []
    for kind in ("rows", "transfer", "encoders"):
        assert list(temporary.glob(f"ecgscale-*/{kind}")) and not list(temporary.glob(f"ecgscale-*/{kind}/*"))
