"""What NVIDIA's tools say of a scenario.

``schema`` is that of the XML: v11 as nvidia-smi 470 and 515 print it, v12 as 535 (``early``: true) and 550 to 575, v13 as
580 and 590. The layouts follow reports of such drivers that are public; fields that nobody here reads are left out.
"""

from __future__ import annotations

from typing import Any

Answer = tuple[str, str, int]
_ALL_REASONS = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown",
    "hw_power_brake_slowdown", "sync_boost", "sw_thermal_slowdown", "display_clocks_setting",
)  # fmt: skip
_LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)
  PIX  = Connection traversing at most a single PCIe bridge
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def gpus_of(nvidia: dict[str, Any]) -> list[dict[str, Any]]:
    """The GPUs with the scenario's defaults, in the order of their addresses; those that are lost keep their number."""
    found = [{**nvidia.get("defaults", {}), **gpu} for gpu in nvidia.get("gpus", ())]
    for number, gpu in enumerate(found):
        gpu.setdefault("uuid", f"GPU-{number:08x}-1111-2222-3333-444444444444")
        gpu["index"] = number
    return found


def smi(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """nvidia-smi."""
    nvidia = scenario["nvidia"]
    if arguments == ["--version"]:
        return _version(nvidia)
    if not nvidia.get("module"):
        return (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.\n\n",
            "",
            9,
        )
    if nvidia["module"] != nvidia["driver"]:
        library = nvidia["driver"].rpartition(".")[0] if nvidia["driver"].count(".") > 1 else nvidia["driver"]
        return (
            f"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {library}\n",
            "",
            18,
        )
    gpus = gpus_of(nvidia)
    if not gpus:
        return "No devices were found\n", "", 6
    lost = [gpu for gpu in gpus if gpu.get("lost")]
    there = [gpu for gpu in gpus if not gpu.get("lost") and not gpu.get("hidden")]
    words = "".join(
        f"Unable to determine the device handle for GPU{gpu['index']}: {gpu['address'].upper()}: {gpu['lost']}\n"
        for gpu in lost
    )
    if arguments == ["-q", "-x"]:
        return (words, "", 255) if lost else (report(nvidia, there), "", 0)
    if arguments == ["-L"]:
        return words + listing(there), "", 0
    if arguments == ["topo", "-m"]:
        return matrix(nvidia, there), "", 0
    if arguments and arguments[0].startswith("--query-gpu="):
        return table(nvidia, there, arguments, words)
    return "", f"Invalid combination of input arguments. {arguments}\n", 6


def _version(nvidia: dict[str, Any]) -> Answer:
    if int(nvidia["driver"].split(".")[0]) < 530:
        return "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n", "", 6
    nvml = ".".join(nvidia["driver"].split(".")[:2])
    return (
        f"NVIDIA-SMI version  : {nvidia['driver']}\nNVML version        : {nvml}\n"
        f"DRIVER version      : {nvidia.get('module') or 'N/A'}\nCUDA Version        : {nvidia['cuda']}\n",
        "",
        0,
    )


def listing(gpus: list[dict[str, Any]]) -> str:
    """``nvidia-smi -L``."""
    lines = []
    for gpu in gpus:
        lines.append(f"GPU {gpu['index']}: {gpu['name']} (UUID: {gpu['uuid']})")
        for number, one in enumerate((gpu.get("mig") or {}).get("instances", ())):
            lines.append(f"  MIG {one['profile']:<12}Device {number:>2}: (UUID: {one['uuid']})")
    return "".join(f"{line}\n" for line in lines)


def table(nvidia: dict[str, Any], gpus: list[dict[str, Any]], arguments: list[str], words: str) -> Answer:
    """``nvidia-smi --query-gpu=... --format=csv,noheader,nounits``; old drivers do not know every field."""
    fields = arguments[0].partition("=")[2].split(",")
    if "compute_cap" in fields and int(nvidia["driver"].split(".")[0]) < 495:
        return 'Field "compute_cap" is not a valid field to query.\n\n', "", 2
    lines = []
    for gpu in gpus:
        values = {
            "index": gpu["index"],
            "uuid": gpu["uuid"],
            "pci.bus_id": f"0000{gpu['address'].upper()}",
            "memory.total": gpu["memory"],
            "memory.used": gpu.get("used", 0),
            "temperature.gpu": gpu["heat"],
            "power.draw": f"{gpu['power']:.2f}",
            "persistence_mode": "Enabled" if gpu.get("persistence", True) else "Disabled",
            "compute_cap": gpu["compute"],
            "name": gpu["name"],
        }
        lines.append(", ".join(str(values[field]) for field in fields))
    return words + "".join(f"{line}\n" for line in lines), "", 0


def matrix(nvidia: dict[str, Any], gpus: list[dict[str, Any]]) -> str:
    """``nvidia-smi topo -m`` of 550: tabs between cells, names underlined on a terminal and in a pipe alike."""
    names = [f"GPU{gpu['index']}" for gpu in gpus] + ["NIC0"]
    head = "\t" + "\t".join(f"\x1b[4m{name}" for name in names)
    lines = [f"{head}\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m"]
    for gpu in gpus:
        cells = [link(nvidia, gpu, other) for other in gpus] + ["SYS"]
        node = gpu.get("numa", 0)
        lines.append(
            f"GPU{gpu['index']}\t" + "\t".join(cells) + f"\t{node * 64}-{node * 64 + 63}\t{node}\t\tN/A"
        )
    lines.append("NIC0\t" + "\t".join("SYS" for _ in gpus) + "\t X \t\t\t\t")
    return "\n".join(lines) + "\n" + _LEGEND + "\nNIC Legend:\n\n  NIC0: mlx5_0\n\n"


def link(nvidia: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> str:
    """One cell of the matrix."""
    if one["index"] == other["index"]:
        return " X "
    pair = "{}-{}".format(*sorted((one["index"], other["index"])))
    named = nvidia.get("links", {})
    if pair in named:
        return str(named[pair])
    same = one.get("numa", 0) == other.get("numa", 0)
    return str(named.get("all") or named.get("node" if same else "between") or ("NODE" if same else "SYS"))


def report(nvidia: dict[str, Any], gpus: list[dict[str, Any]]) -> str:
    """``nvidia-smi -q -x``."""
    schema = nvidia["schema"]
    out = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_{schema}.dtd">',
        "<nvidia_smi_log>",
    ]
    out += [
        "\t<timestamp>Fri Jan  2 03:04:05 2026</timestamp>",
        f"\t<driver_version>{nvidia['driver']}</driver_version>",
    ]
    out += [f"\t<cuda_version>{nvidia['cuda']}</cuda_version>"]
    out += [f"\t<attached_gpus>{nvidia.get('attached', len(gpus))}</attached_gpus>"]
    for gpu in gpus:
        out.append(f'\t<gpu id="0000{gpu["address"].upper()}">')
        out += _lines(_gpu(nvidia, gpu), 2)
        out.append("\t</gpu>\n")
    return "\n".join([*out, "</nvidia_smi_log>"]) + "\n"


Node = tuple[str, Any]


def _lines(nodes: list[Node], depth: int) -> list[str]:
    pad, out = "\t" * depth, []
    for name, value in nodes:
        if isinstance(value, list):
            out += [f"{pad}<{name}>", *_lines(value, depth + 1), f"{pad}</{name}>"]
        else:
            out.append(f"{pad}<{name}>{value}</{name}>")
    return out


def _gpu(nvidia: dict[str, Any], gpu: dict[str, Any]) -> list[Node]:
    schema, early = nvidia["schema"], nvidia.get("early", False)
    domain, bus, slot = gpu["address"].upper().split(":")
    mig, mode = gpu.get("mig"), "N/A"
    if mig is not None:
        mode = "Enabled" if mig.get("on") else "Disabled"
    pending = {True: "Enabled", False: "Disabled"}.get((mig or {}).get("pending"), mode)
    nodes: list[Node] = [
        ("product_name", gpu["name"]),
        ("product_brand", "NVIDIA"),
        ("product_architecture", gpu["architecture"]),
        ("persistence_mode", "Enabled" if gpu.get("persistence", True) else "Disabled"),
        ("mig_mode", [("current_mig", mode), ("pending_mig", pending)]),
        (
            "mig_devices",
            [("mig_device", _instance(n, one)) for n, one in enumerate((mig or {}).get("instances", ()))]
            or "None",
        ),
        ("serial", "0000000000000"),
        ("uuid", gpu["uuid"]),
        ("minor_number", gpu["index"]),
    ]
    if schema != "v11" and not early:
        nodes.append(("gpu_recovery_action", gpu.get("recovery", "None")))
    nodes += [
        (
            "pci",
            [
                ("pci_bus", bus),
                ("pci_device", slot[:2]),
                ("pci_domain", domain),
                ("pci_device_id", f"{gpu['device'].upper()}10DE"),
                ("pci_bus_id", f"0000{gpu['address'].upper()}"),
            ],
        ),
        *_reasons("throttle" if schema == "v11" else "event", gpu.get("reasons", [])),
        (
            "fb_memory_usage",
            [
                ("total", f"{gpu['memory']} MiB"),
                ("reserved", "400 MiB"),
                ("used", f"{gpu.get('used', 0)} MiB"),
                ("free", f"{gpu['memory'] - gpu.get('used', 0)} MiB"),
            ],
        ),
        ("compute_mode", "Default"),
        *_memory(gpu, early or schema == "v11", schema),
        ("temperature", _heat(gpu)),
        _power(gpu, schema, early),
        (
            "fabric",
            [
                ("state", gpu.get("fabric", "N/A")),
                ("status", gpu.get("fabric_status", "Success") if gpu.get("fabric") else "N/A"),
            ],
        ),
        ("supported_clocks", "N/A"),
        ("processes", [("process_info", _process(one)) for one in gpu.get("processes", ())]),
    ]
    return nodes


def _instance(number: int, one: dict[str, Any]) -> list[Node]:
    memory = [
        ("total", f"{one['memory']} MiB"),
        ("reserved", "0 MiB"),
        ("used", f"{one.get('used', 12)} MiB"),
    ]
    return [
        ("index", number),
        ("gpu_instance_id", one["gi"]),
        ("compute_instance_id", 0),
        ("device_attributes", [("shared", [("multiprocessor_count", one["sm"]), ("copy_engine_count", 1)])]),
        ("ecc_error_count", [("volatile_count", [("sram_uncorrectable", 0)])]),
        ("fb_memory_usage", memory),
    ]


def _reasons(word: str, active: list[str]) -> list[Node]:
    rows = [
        (f"clocks_{word}_reason_{name}", "Active" if name in active else "Not Active")
        for name in _ALL_REASONS
    ]
    return [(f"clocks_{word}_reasons", rows)]


def _memory(gpu: dict[str, Any], early: bool, schema: str) -> list[Node]:
    """ECC and what follows from it, in the three ways of telling it."""
    ecc = gpu.get("ecc")
    mode = "N/A" if ecc is None else "Enabled"
    spans = []
    for span in ("volatile", "aggregate"):
        bad: Any = "N/A" if ecc is None else ecc.get(span, 0)
        none: Any = "N/A" if ecc is None else 0
        if gpu.get("old_memory"):
            parts = (
                "device_memory",
                "register_file",
                "l1_cache",
                "l2_cache",
                "texture_memory",
                "texture_shm",
                "cbu",
            )
            good = [*((part, none) for part in parts), ("total", none)]
            spans.append(
                (
                    span,
                    [
                        ("single_bit", good),
                        ("double_bit", [*((part, none) for part in parts), ("total", bad)]),
                    ],
                )
            )
        elif early:
            names = ("sram_correctable", "sram_uncorrectable", "dram_correctable")
            spans.append((span, [*((name, none) for name in names), ("dram_uncorrectable", bad)]))
        else:
            names = (
                "sram_correctable",
                "sram_uncorrectable_parity",
                "sram_uncorrectable_secded",
                "dram_correctable",
            )
            spans.append((span, [*((name, none) for name in names), ("dram_uncorrectable", bad)]))
    if schema == "v13":
        spans += [(name, gpu.get(name, "No")) for name in ("channel_repair_pending", "tpc_repair_pending")]
    rows = gpu.get("remap")
    remapped: Any = "N/A"
    if rows is not None:
        remapped = [
            ("remapped_row_corr", 0),
            ("remapped_row_unc", rows.get("uncorrected", 0)),
            ("remapped_row_pending", rows.get("pending", "No")),
            ("remapped_row_failure", rows.get("failure", "No")),
        ]
    retired = gpu.get("retired", "N/A")
    return [
        ("ecc_mode", [("current_ecc", mode), ("pending_ecc", mode)]),
        ("ecc_errors", spans),
        ("retired_pages", [("pending_blacklist", retired), ("pending_retirement", retired)]),
        ("remapped_rows", remapped),
    ]


def _heat(gpu: dict[str, Any]) -> list[Node]:
    if "margin" in gpu:
        return [
            ("gpu_temp", f"{gpu['heat']} C"),
            ("gpu_temp_tlimit", f"{gpu['margin']} C"),
            ("gpu_temp_max_tlimit_threshold", "-8 C"),
            ("gpu_temp_slow_tlimit_threshold", "-2 C"),
            ("memory_temp", f"{gpu['heat'] + 5} C"),
        ]
    return [
        ("gpu_temp", f"{gpu['heat']} C"),
        ("gpu_temp_max_threshold", f"{gpu['slowdown'] + 3} C"),
        ("gpu_temp_slow_threshold", f"{gpu['slowdown']} C"),
        ("memory_temp", "N/A"),
    ]


def _power(gpu: dict[str, Any], schema: str, early: bool) -> Node:
    drawn, limit = f"{gpu['power']:.2f} W", f"{gpu['watts']:.2f} W"
    if schema == "v11":
        return "power_readings", [
            ("power_state", "P0"),
            ("power_draw", drawn),
            ("power_limit", limit),
            ("enforced_power_limit", limit),
        ]
    if early:
        return "gpu_power_readings", [
            ("power_state", "P0"),
            ("power_draw", drawn),
            ("current_power_limit", limit),
        ]
    return "gpu_power_readings", [
        ("power_state", "P0"),
        ("average_power_draw", drawn),
        ("instant_power_draw", drawn),
        ("current_power_limit", limit),
    ]


def _process(one: dict[str, Any]) -> list[Node]:
    return [
        ("gpu_instance_id", "N/A"),
        ("compute_instance_id", "N/A"),
        ("pid", one["pid"]),
        ("type", one.get("type", "C")),
        ("process_name", one["command"]),
        ("used_memory", f"{one['memory']} MiB"),
    ]


def fabric_manager(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """``nv-fabricmanager --version``."""
    return f"Fabric Manager version is : {scenario['nvidia']['fabric_manager']}\n", "", 0


def kernel_module(nvidia: dict[str, Any]) -> str:
    """``/proc/driver/nvidia/version``."""
    kind = (
        "NVIDIA UNIX Open Kernel Module for x86_64"
        if nvidia.get("open")
        else "NVIDIA UNIX x86_64 Kernel Module"
    )
    return (
        f"NVRM version: {kind}  {nvidia['module']}  Release Build  (dvs-builder@U16)  Tue Jun 25 01:26:03 UTC 2024\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
