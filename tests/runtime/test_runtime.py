"""The runtime: `auto` is resolved from the machine, and invalid settings are refused."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from dd_bench.cli.inspect import choices
from dd_bench.pipeline import provenance
from dd_bench.records.config_diff import describe, shipped_config
from dd_bench.runtime import runtime
from dd_bench.runtime.allocator import keep_freed_memory
from dd_bench.runtime.compiler import compiled_layout
from dd_bench.runtime.runtime import RuntimeConfig, resolve
from dd_bench.training.recipe import parse


@pytest.fixture
def config():
    defaults = {
        "device": "cpu", "precision": "auto", "compile": "auto", "compile_after": 100, "workers": "auto",
        "compile_after_cuda": 200, "spread_after": 50, "threads": 1, "together": "auto", "graphs": "auto",
        "deterministic": False,
    }  # fmt: skip
    return lambda **values: parse(RuntimeConfig, {**defaults, **values}, "runtime")


def test_auto_on_a_cpu(config, monkeypatch):
    for bf16 in (True, False):
        monkeypatch.setattr("dd_bench.runtime.precision.cpu_has_bf16", lambda bf16=bf16: bf16)
        assert resolve(config()).autocast is bf16, "emulated bfloat16 is slower than float32"
    assert resolve(config(precision="bf16")).autocast and not resolve(config(precision="fp32")).autocast
    r = resolve(config())
    assert (r.device.type, r.lock_step.networks, r.workers, r.compile_after) == ("cpu", 1, 1, 100)
    assert not r.uses_processes(49) and r.uses_processes(50)
    assert not r.in_float32().autocast and replace(r.in_float32(), precision=r.precision) == r


@pytest.mark.parametrize("capability", ["AVX512", "AVX2", "DEFAULT"])
def test_layout_of_compiled_networks_depends_on_the_cpu(monkeypatch, capability):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    on_cpu = torch.contiguous_format if capability == "AVX2" else torch.channels_last
    assert compiled_layout(torch.device("cpu")) is on_cpu
    assert compiled_layout(torch.device("cuda")) is torch.channels_last


@pytest.mark.parametrize(
    ("capability", "images"), [("AVX512", 30_000), ("AVX2", 250_000), ("DEFAULT", 30_000)]
)
def test_compilation_starts_later_without_avx512(config, monkeypatch, capability, images):
    """Where warm-up was measured to take longer (benchmarks/results/training_loop_avx2.json)."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert resolve(config(compile_after="auto")).compile_after == images
    assert resolve(config(compile_after=7)).compile_after == 7
    assert resolve(config(compile_after="auto", compile="always")).compile_after == 0


@pytest.mark.parametrize("name", ["auto", "one_thread"])
def test_shipped_configurations_choose_by_the_cpu(name):
    assert shipped_config("runtime", name)["compile_after"] == "auto"


def test_auto_compiles_only_with_a_compiler(config, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    r = resolve(config())
    assert r.compile_after is None and "torch.compile requires a C++ compiler" in r.notes[-1]
    with pytest.raises(ValueError, match=r"requires a C\+\+ compiler"):
        resolve(config(compile="always"))
    assert resolve(config(compile="never", precision="fp32")).notes == ()
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert resolve(config()).compile_after == 100 and resolve(config(precision="fp32")).notes == ()
    assert resolve(config(compile="always")).compile_after == 0
    assert resolve(config(compile="never")).compile_after is None


def test_emulated_bfloat16_is_noted(config, monkeypatch):
    """It is slower than float32, but a record in bfloat16 can be repeated on every CPU."""
    monkeypatch.setattr("dd_bench.runtime.precision.cpu_has_bf16", lambda: False)
    r = resolve(config(precision="bf16"))
    assert r.precision == "bf16" and "emulated on cpu" in r.notes[0]
    assert resolve(config(precision="auto")).precision == "fp32"


class TestCuda:
    """Decisions on a machine with GPUs, with the answers of torch replaced."""

    @pytest.fixture(autouse=True)
    def gpus(self, monkeypatch):
        """Return a function that simulates `count` GPUs of one compute capability."""

        def simulate(count=2, capability=(9, 0)):
            values = {
                "is_available": lambda: count > 0,
                "device_count": lambda: count,
                "get_device_capability": lambda device: capability,
                "is_bf16_supported": lambda including_emulation: capability >= (8, 0) or including_emulation,
                "device": lambda device: nullcontext(),
            }
            for name, value in values.items():
                monkeypatch.setattr(f"torch.cuda.{name}", value)

        simulate()
        for name in ("WORLD_SIZE", "LOCAL_RANK", "CC"):
            monkeypatch.delenv(name, raising=False)
        return simulate

    @pytest.fixture
    def on_cuda(self, config):
        return lambda **values: resolve(config(**{"device": "auto", **values}))

    @pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16"), ((7, 5), "fp32")])
    def test_auto_is_bf16_only_if_it_is_native(self, gpus, on_cuda, capability, precision):
        """A T4 emulates bfloat16, and torch calls that supported."""
        gpus(capability=capability)
        assert on_cuda().precision == precision

    def test_tf32(self, gpus, on_cuda, config):
        r = on_cuda(precision="tf32")
        assert (r.precision, r.autocast, r.in_float32()) == ("tf32", False, r)
        assert r.identity() == {"autocast": False, "device": "cuda", "precision": "tf32"}
        assert on_cuda(precision="fp32").identity() == {"autocast": False, "device": "cuda"}
        gpus(capability=(7, 5))
        with pytest.raises(
            ValueError, match=r"precision=tf32 requires .* got cuda\. Example: runtime.precision=fp32"
        ):
            on_cuda(precision="tf32")
        with pytest.raises(ValueError, match=r"precision=tf32 requires .* got cpu"):
            resolve(config(precision="tf32"))

    @pytest.mark.parametrize("name", ["auto", "cuda"])
    def test_more_processes_than_gpus(self, on_cuda, monkeypatch, name):
        """The first call that uses CUDA would end with an error about a device ordinal."""
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert on_cuda(device=name).device == torch.device("cuda:1")
        monkeypatch.setenv("LOCAL_RANK", "2")
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: pytest.fail("CUDA was used"))
        with pytest.raises(
            ValueError, match=r"LOCAL_RANK=2 needs the GPU cuda:2, .* finds 2 .* --nproc_per_node 2"
        ):
            on_cuda(device=name)

    def test_one_gpu_for_several_processes(self, on_cuda, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines
        assert on_cuda(device="cuda:0").device == torch.device("cuda:0")
        for name in ("cuda:0", "cuda:1"):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
            with pytest.raises(
                ValueError, match=rf"got {name} for 2 processes.* Example: runtime.device=cuda$"
            ):
                on_cuda(device=name)
            monkeypatch.delenv("LOCAL_WORLD_SIZE")  # not set by other launchers
            with pytest.raises(ValueError, match=f"got {name} for 2 processes"):
                on_cuda(device=name)

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ("compiler", "a C compiler"),
            ("triton", "the package triton"),
            ("headers", "Python's header files"),
            ("capability", "a device of compute capability 7.0 or newer, got 6.1"),
        ],
    )
    def test_fallback_without_the_parts_of_triton(self, gpus, on_cuda, monkeypatch, missing, message):
        found = {
            "shutil.which": lambda name: name,
            "importlib.util.find_spec": lambda name: name,
            "dd_bench.runtime.compiler.Path.exists": lambda _: missing != "headers",
        }
        if missing == "compiler":
            found["shutil.which"] = lambda _: None
        if missing == "triton":
            found["importlib.util.find_spec"] = lambda _: None
        for name, value in found.items():
            monkeypatch.setattr(name, value)
        gpus(capability=(6, 1) if missing == "capability" else (9, 0))
        r = on_cuda(precision="fp32")
        assert r.compile_after is None and message in r.notes[0]
        with pytest.raises(ValueError, match=f"compile=always requires {message}"):
            on_cuda(precision="fp32", compile="always")
        if missing == "compiler":
            monkeypatch.setenv("CC", "mycc")
            assert on_cuda(precision="fp32").compile_after == 200


def test_threads_and_determinism_are_reset_for_each_job(config, monkeypatch):
    monkeypatch.setattr(runtime, "_THREADS", 2)
    resolve(config(threads=1, deterministic=True))
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    resolve(config(threads="auto"))
    assert torch.get_num_threads() == 2 and not torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "gpu"}, "runtime.device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:99"}, "CUDA device"),
        (
            {"workers": 0},
            "runtime.workers=0: Input should be greater than or equal to 1 or Input should be 'auto'",
        ),
        ({"threads": -1}, "runtime.threads=-1"),
        ({"threads": "many"}, "runtime.threads='many'"),
        ({"compile": True}, "runtime.compile=True"),
        ({"nope": 1}, "runtime.nope is not a configuration key"),
        ({"spread_after": None}, "runtime.spread_after=None"),
    ],
)
def test_invalid_values(config, values, message):
    with pytest.raises(ValueError, match=message):
        resolve(config(**values))


def test_missing_key(config):
    with pytest.raises(ValueError, match=r"runtime\.device is missing"):
        parse(RuntimeConfig, {}, "runtime")


def test_describe(config):
    assert "cores" in runtime.cpu_name() and "worker" in resolve(config()).describe()


def test_seconds_and_memory_by_stage():
    stages = provenance.Stages(torch.device("cpu"))
    with stages.measure("distill"):
        block = torch.ones(30 * 2**20)  # 120 MiB
    first = stages.seconds["distill"]
    with pytest.raises(KeyError), stages.measure("distill"):
        raise KeyError
    assert stages.seconds["distill"] >= first and block.sum() > 0
    assert provenance.peak_resident() > 120 * 2**20 and stages.peak_memory["distill"] > 120 * 2**20


def test_code_and_versions():
    code = provenance.code()
    assert code.version and code.numbers == 1 and (code.revision is None) == (code.dirty is None)
    assert {"python", *provenance.LIBRARIES} == set(provenance.versions())
    assert shipped_config("model", "convnet")["width"] == 128
    assert shipped_config("model", "nope") == {}


@pytest.mark.parametrize(
    ("group", "values", "name"),
    [
        ("model", {"_target_": "x", "width": 8}, "convnet(width=8)"),
        ("model", {"width": 128}, "convnet"),
        ("protocol", {"recipe": {"epochs": 60, "lr": 0.01}, "selection": "last"}, "quick"),
        (
            "protocol",
            {"recipe": {"epochs": 9, "milestones": []}},
            "quick(recipe.epochs=9, recipe.milestones=[])",
        ),
    ],
)
def test_description_contains_changed_values(group, values, name):
    assert describe(group, name.partition("(")[0], values) == name


def test_description_of_a_protocol_of_another_package():
    assert describe("protocol", "theirs-1", {"recipe": {"epochs": 9}}) == "theirs-1"


def test_description_of_shipped_choices_is_their_name():
    for group in ("model", "protocol"):
        for name in choices(group):
            values = shipped_config(group, name)
            assert describe(group, name, values) == name


def test_allocator_respects_malloc_variables(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert keep_freed_memory() is False


def test_allocator_requires_glibc(monkeypatch):
    class Musl:
        def __getattr__(self, name):
            raise AttributeError(name)

    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("dd_bench.runtime.allocator.ctypes.CDLL", lambda _: Musl())
    assert keep_freed_memory() is False
