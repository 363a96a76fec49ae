"""Fictional machines for planning tests."""

from __future__ import annotations

from segrt.backends.catalog import Catalog, Cpu, Gpu, Provider

PLAIN = Cpu("plain", 4)
BF16 = Cpu("with bf16", 4, frozenset({"avx512f", "avx512_bf16"}))
AVX2 = Cpu("AMD EPYC 7763", 4, frozenset({"avx2"}))
ZEN = Cpu("AMD EPYC 9654", 4, frozenset({"avx512f", "avx512_bf16"}))
VNNI = Cpu("with VNNI", 4, frozenset({"avx512f", "avx512_vnni"}))
AMX = Cpu("with AMX", 16, frozenset({"avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}))
T4 = Gpu("Tesla T4", (7, 5), 15360)
H100 = Gpu("NVIDIA H100", (9, 0), 81559)
P40 = Gpu("Tesla P40", (6, 1), 24576)

CUDA_LIBRARIES = (
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcudart.so.13",
    "libcudnn.so.9",
)


def machine(
    *providers: str,
    cpu: Cpu = PLAIN,
    gpus: tuple[Gpu, ...] = (),
    missing: dict[str, tuple[str, ...]] | None = None,
    versions: tuple[tuple[str, str], ...] = (("onnx", "1.20.0"),),
) -> Catalog:
    """A machine with the given providers (such as "CUDA") and the CPU provider."""
    return Catalog(
        cpu,
        gpus,
        tuple(
            Provider(f"{name}ExecutionProvider", missing=(missing or {}).get(name, ()))
            for name in (*providers, "CPU")
        ),
        versions,
    )


NOTHING = Catalog(PLAIN)
CPU_ONLY = machine()
OPENVINO = machine("OpenVINO")
OPENVINO_BF16 = machine("OpenVINO", cpu=BF16)
OPENVINO_VNNI = machine("OpenVINO", cpu=VNNI)
OPENVINO_AVX2 = machine("OpenVINO", cpu=AVX2)
OPENVINO_ZEN = machine("OpenVINO", cpu=ZEN)
NO_DEVICE = Catalog(
    ZEN,
    providers=(
        Provider("CPUExecutionProvider"),
        Provider(
            "OpenVINOExecutionProvider",
            "onnxruntime_ep_openvino",
            error="takes no device",
            fix="pip install x",
        ),
    ),
)
OPENVINO_AMX = machine("OpenVINO", cpu=AMX)
GPU_T4 = machine("Tensorrt", "CUDA", "OpenVINO", gpus=(T4,))
GPU_H100 = machine("Tensorrt", "CUDA", "OpenVINO", gpus=(H100, H100), cpu=AMX)
GPU_P40 = machine("Tensorrt", "CUDA", gpus=(P40,))
CUDA_ONLY = machine("CUDA", gpus=(H100,))
NO_ONNX = machine("CUDA", gpus=(T4,), versions=())
NO_TENSORRT = machine(
    "Tensorrt",
    "CUDA",
    gpus=(T4,),
    missing={"Tensorrt": ("libnvinfer.so.10", "libnvonnxparser.so.10")},
)
NO_CUDNN = machine("CUDA", "OpenVINO", gpus=(T4,), missing={"CUDA": ("libcudnn.so.9",)})
GPU_WHEEL_NO_GPU = machine(
    "Tensorrt",
    "CUDA",
    missing={"CUDA": (*CUDA_LIBRARIES, "libcuda.so.1"), "Tensorrt": ("libnvinfer.so.10",)},
)
ASCEND = machine("CANN")
MIGRAPHX = machine("MIGraphX", "ROCM")
