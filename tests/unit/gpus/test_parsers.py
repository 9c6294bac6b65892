# ruff: noqa: E501 - lines of tools are as long as they are
"""Texts of tools -> facts. Fragments here are written by hand after public outputs, apart from the stand-ins' renderers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import (
    amd,
    nvidia_text,
    nvidia_xml,
    pci,
    topology,
    values,
    xids,
)
from hypothesis import given
from hypothesis import strategies as st

MIB = 1024**2

# nvidia-smi 515.105.01, schema v11, shortened
TURING = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v11.dtd">
<nvidia_smi_log>
    <driver_version>515.105.01</driver_version>
    <cuda_version>11.7</cuda_version>
    <attached_gpus>1</attached_gpus>
    <gpu id="00000000:00:1E.0">
        <product_name>Tesla T4</product_name>
        <persistence_mode>Disabled</persistence_mode>
        <mig_mode><current_mig>N/A</current_mig><pending_mig>N/A</pending_mig></mig_mode>
        <mig_devices>
            None
        </mig_devices>
        <uuid>GPU-d37e67a5-91dd-3774-a5cb-99096249601a</uuid>
        <pci><pci_device_id>1EB810DE</pci_device_id><pci_bus_id>00000000:00:1E.0</pci_bus_id></pci>
        <clocks_throttle_reasons>
            <clocks_throttle_reason_gpu_idle>Not Active</clocks_throttle_reason_gpu_idle>
            <clocks_throttle_reason_sw_thermal_slowdown>Active</clocks_throttle_reason_sw_thermal_slowdown>
        </clocks_throttle_reasons>
        <fb_memory_usage><total>15360 MiB</total><reserved>388 MiB</reserved><used>1032 MiB</used></fb_memory_usage>
        <ecc_mode><current_ecc>Enabled</current_ecc><pending_ecc>Enabled</pending_ecc></ecc_mode>
        <ecc_errors>
            <volatile><sram_uncorrectable>1</sram_uncorrectable><dram_uncorrectable>2</dram_uncorrectable></volatile>
            <aggregate><sram_uncorrectable>3</sram_uncorrectable><dram_uncorrectable>4</dram_uncorrectable></aggregate>
        </ecc_errors>
        <retired_pages><pending_blacklist>No</pending_blacklist><pending_retirement>Yes</pending_retirement></retired_pages>
        <remapped_rows>N/A</remapped_rows>
        <temperature><gpu_temp>40 C</gpu_temp><gpu_temp_slow_threshold>93 C</gpu_temp_slow_threshold></temperature>
        <power_readings><power_draw>26.78 W</power_draw><power_limit>70.00 W</power_limit></power_readings>
        <processes>
            <process_info><pid>4242</pid><type>C</type><process_name>/usr/bin/python3 -m vllm --api-key s3cret</process_name>
                <used_memory>1000 MiB</used_memory></process_info>
            <process_info><pid>9</pid><type>G</type><process_name>Xorg</process_name><used_memory>4 MiB</used_memory></process_info>
        </processes>
    </gpu>
</nvidia_smi_log>
"""


def gpu(change: tuple[str, str] = ("", "")) -> dict[str, Any]:
    assert change[0] in TURING
    parsed, problem = nvidia_xml.parse_query(TURING.replace(*change))
    assert problem == ""
    (found,) = parsed["gpus"]
    return dict(found)


def test_a_report_of_nvidia_smi() -> None:
    parsed, problem = nvidia_xml.parse_query(TURING)
    assert (problem, parsed["driver"], parsed["cuda"], parsed["attached"]) == ("", "515.105.01", "11.7", 1)
    found = gpu()
    assert (found["address"], found["device"], found["name"]) == ("0000:00:1e.0", "1eb8", "Tesla T4")
    assert (found["memory_total"], found["memory_used"]) == (15360 * MIB, 1032 * MIB)
    assert (found["temperature"], found["temperature_slowdown"], found["power"], found["power_limit"]) == (
        40,
        93,
        26.78,
        70,
    )
    assert (found["throttle"], found["persistence"]) == (["sw_thermal_slowdown"], False)
    assert (found["ecc"]["volatile_uncorrected"], found["ecc"]["aggregate_uncorrected"]) == (3, 7)
    assert (found["ecc"]["retirement_pending"], found["ecc"]["remap_pending"]) == (True, None)
    assert found["mig"] == {"mode": None, "pending": None, "instances": []}
    assert found["unknown"] == {}


def test_of_processes_only_those_that_compute_and_never_their_arguments() -> None:
    assert gpu()["processes"] == [{"pid": 4242, "name": "python3", "memory": 1000 * MIB}]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (
            ("<gpu_temp>40 C</gpu_temp>", "<gpu_temp>511 C</gpu_temp>"),
            "temperature",
            "says 511 C, which cannot be",
        ),
        (
            ("<gpu_temp>40 C</gpu_temp>", "<gpu_temp>Unknown Error</gpu_temp>"),
            "temperature",
            'says "Unknown Error"',
        ),
        (("<gpu_temp>40 C</gpu_temp>", ""), "temperature", "does not tell it"),
        (
            ("<used>1032 MiB</used>", "<used>99999 MiB</used>"),
            "memory_used",
            "more memory is used than there is",
        ),
        (("<total>15360 MiB</total>", "<total>0 MiB</total>"), "memory_total", "it has no memory"),
        (
            ("<total>15360 MiB</total>", "<total>15360 furlongs</total>"),
            "memory_total",
            "no size of a memory",
        ),
        (("<uuid>GPU-", "<uuid>"), "uuid", "tells no UUID"),
        ((">26.78 W<", ">ERR!<"), "power", "is no number"),
        ((">Yes<", ">Maybe<"), "ecc", "neither yes nor no"),
        (("<dram_uncorrectable>2<", "<dram_uncorrectable>-2<"), "ecc", "cannot be"),
    ],
)
def test_a_lie_in_a_field_makes_that_field_unknown(change: tuple[str, str], field: str, reason: str) -> None:
    found = gpu(change)
    assert list(found["unknown"]) == [field]
    assert reason in found["unknown"][field]


def test_ecc_that_is_on_and_counts_nothing_is_unknown() -> None:
    cut = TURING.partition("<ecc_errors>")[0] + TURING.partition("</ecc_errors>")[2]
    (found,) = nvidia_xml.parse_query(cut)[0]["gpus"]
    assert "not what it has counted" in found["unknown"]["ecc"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "said nothing"),
        (TURING[:900], "no XML, or only a part"),
        ("No devices were found", "no XML"),
        ("<html></html>", "none of its reports"),
        ('<!DOCTYPE a [<!ENTITY a "aaaa">]><nvidia_smi_log>&a;</nvidia_smi_log>', "none of its reports"),
    ],
)
def test_what_is_no_report_is_said_to_be_none(text: str, words: str) -> None:
    parsed, problem = nvidia_xml.parse_query(text)
    assert parsed["gpus"] == []
    assert words in problem


def test_ecc_of_older_cards_is_double_bit_errors() -> None:
    # Pascal and Volta keep this form in newer drivers
    old = TURING.replace(
        "<sram_uncorrectable>1</sram_uncorrectable><dram_uncorrectable>2</dram_uncorrectable>", ""
    ).replace(
        "<volatile>", "<volatile><double_bit><device_memory>5</device_memory><total>5</total></double_bit>"
    )
    (found,) = nvidia_xml.parse_query(old)[0]["gpus"]
    assert found["ecc"]["volatile_uncorrected"] == 5


def test_margins_count_to_the_point_where_the_gpu_slows_down() -> None:
    # nvidia-smi 575: T.Limit
    newer = (
        "<gpu_temp_slow_threshold>93 C</gpu_temp_slow_threshold>",
        "<gpu_temp_tlimit>46 C</gpu_temp_tlimit><gpu_temp_slow_tlimit_threshold>-2 C</gpu_temp_slow_tlimit_threshold>",
    )
    found = gpu(newer)
    assert (found["temperature_margin"], found["temperature_slowdown"]) == (48, None)


def test_a_table_of_nvidia_smi_and_complaints_between_its_lines() -> None:
    rows = nvidia_text.parse_csv(
        "Unable to determine the device handle for GPU1: 0000:0A:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
        "0, GPU-aaaaaaaa-1, 00000000:05:00.0, 24576, 12, 43, 43.33, Enabled, 8.6, NVIDIA RTX, with commas\n"
        "2, GPU-cccccccc-1, 00000000:0B:00.0, [Unknown Error], [N/A], 43, [N/A], Enabled, 8.6, [Unknown Error]\n"
    )
    assert [(row["index"], row["address"], row["name"], row["compute"]) for row in rows] == [
        (0, "0000:05:00.0", "NVIDIA RTX, with commas", "8.6"),
        (2, "0000:0b:00.0", None, "8.6"),
    ]
    assert rows[0]["memory_total"] == 24576 * MIB
    assert set(rows[1]["unknown"]) == {"memory_total", "memory_used"}


@pytest.mark.parametrize(
    ("line", "index", "where", "lost"),
    [
        (
            "Unable to determine the device handle for GPU 0000:05:00.0: GPU is lost.  Reboot",
            None,
            "0000:05:00.0",
            True,
        ),
        (
            "Unable to determine the device handle for GPU3: 0000:5F:00.0: Unknown Error",
            3,
            "0000:5f:00.0",
            False,
        ),
        (
            "Unable to determine the device handle for GPU0000:25:00.0: Unknown Error",
            None,
            "0000:25:00.0",
            False,
        ),
        (
            "unable to determine the device handle for gpu 0000:8C:00.0: GPU is lost.",
            None,
            "0000:8c:00.0",
            True,
        ),
        ("Unable to determine the device handle for GPU2: Unknown Error", 2, None, False),
    ],
)
def test_gpus_without_access_in_every_form_nvidia_smi_has_had(
    line: str, index: int | None, where: str | None, lost: bool
) -> None:
    (found,) = nvidia_text.parse_lost(f"0, GPU-1\n{line}\n")
    assert (found["index"], found["address"], found["lost"]) == (index, where, lost)


def test_instances_of_a_cut_gpu() -> None:
    listed = nvidia_text.parse_list(
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-fcf41002-68b6-5900-d7d1-74026173bb44)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-e07a497d-1bb6-5a42-b670-1c33bf55ab6e)\n"
        "  MIG 1c.3g.20gb  Device  1: (UUID: MIG-GPU-fcf41002/1/0)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-00000000-68b6-5900-d7d1-74026173bb44)\n"
    )
    assert [[one["profile"] for one in instances] for instances in listed.values()] == [
        ["3g.20gb", "1c.3g.20gb"],
        [],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.58.02  Release Build  (dvs-builder@U16) Tue Jun 25\n"
            "GCC version:  gcc version 14.2.1 20240801 (Red Hat 14.2.1-1) (GCC)\n",
            ("555.58.02", True),
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n",
            ("535.183.01", False),
        ),
        ("garbage 1.2.3", (None, None)),
    ],
)
def test_the_kernel_module(text: str, expected: tuple[str | None, bool | None]) -> None:
    assert nvidia_text.parse_kernel_module(text) == expected


def test_versions_of_the_userspace() -> None:
    whole = "NVIDIA-SMI version  : 590.48.01\nNVML version        : 590.48\nDRIVER version      : 590.48.01\nCUDA Version        : 13.1\n"
    assert nvidia_text.parse_versions(whole) == {"smi": "590.48.01", "nvml": "590.48", "cuda": "13.1"}
    mismatch = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.173\n"
    assert nvidia_text.parse_versions(mismatch)["nvml"] == "580.173"
    assert nvidia_text.parse_complaint(mismatch) == "mismatch"
    assert nvidia_text.parse_fabric_manager("\n\n\tFabric Manager version is : 535.161.08\n") == "535.161.08"


def test_devices_of_lspci() -> None:
    devices, odd = pci.parse_lspci(
        '00:02.0 "VGA compatible controller [0300]" "Intel Corporation [8086]" "TigerLake-LP GT2 [Iris Xe Graphics] [9a49]" -ra1\n'
        '41:00.0 "3D controller [0302]" "NVIDIA Corporation [10de]" "GA100 [A100 PCIe 40GB] [20f1]" -ra1 "NVIDIA [10de]" "Device [145f]"\n'
        '0001:05:00.0 "Bridge [0680]" "NVIDIA Corporation [10de]" "GH100 [H100 NVSwitch] [22a3]" -ra1 "" ""\n'
        '05:00.0 "Processing accelerators [1200]" "Advanced Micro Devices, Inc. [AMD/ATI] [1002]" "Aqua \\"V\\" [74a1]" "" ""\n'
        '41:00.1 "Audio device [0403]" "NVIDIA Corporation [10de]" "Device [228e]" -ra1\n'
    )
    assert odd == 0
    assert [(one["address"], one["role"], one["device"], one["name"]) for one in devices] == [
        ("0000:41:00.0", "gpu", "20f1", "GA100 [A100 PCIe 40GB]"),
        ("0001:05:00.0", "nvswitch", "22a3", "GH100 [H100 NVSwitch]"),
        ("0000:05:00.0", "gpu", "74a1", 'Aqua "V"'),
    ]
    assert pci.parse_lspci('41:00.0 "3D contr\npcilib: Cannot open /proc/bus/pci\n') == ([], 2)


def test_links_of_nvidia_smi_leave_network_cards_out() -> None:
    links, nodes, problem = topology.parse_nvidia(
        "\tGPU0\tGPU1\tGPU2\tmlx5_0\tCPU Affinity\tNUMA Affinity\n"
        "GPU0\t X \tNV2\tSYS\tNODE\t0-23,48-71\t0\n"
        "GPU1\tNV2\t X \tSYS\tNODE\t0-23,48-71\t0\n"
        "GPU2\tSYS\tSYS\t X \tPIX\t24-47,72-95\t1\n"
        "mlx5_0\tNODE\tNODE\tPIX\t X \t\t\n"
    )
    assert problem == ""
    assert [(link["gpus"], link["kind"]) for link in links] == [
        ([0, 1], "NV2"),
        ([0, 2], "SYS"),
        ([1, 2], "SYS"),
    ]
    assert nodes == {0: 0, 1: 0, 2: 1}
    assert [(one["kind"], one["gpus"]) for one in topology.groups("nvidia", links, nodes)] == [
        ("nvlink", [0, 1]), ("numa", [0, 1]), ("numa", [2]),
    ]  # fmt: skip


def test_connected_sets() -> None:
    assert topology.joined([[3, 4], [0, 1], [1, 2], [4, 5], [2, 0]]) == [[0, 1, 2], [3, 4, 5]]


# rocm-smi of ROCm 6.0 on MI100, shortened; keys were "GPU ID" and "Card series" in lower or upper case over time
ROCM = {
    "card0": {
        "Device ID": "0x738c",
        "Unique ID": "0x79ccd55167a2124a",
        "Temperature (Sensor edge) (C)": "53.0",
        "Temperature (Sensor junction) (C)": "55.0",
        "Max Graphics Package Power (W)": "290.0",
        "Average Graphics Package Power (W)": "36.0",
        "PCI Bus": "0000:83:00.0",
        "VRAM Total Memory (B)": "34342961152",
        "VRAM Total Used Memory (B)": "6750208",
        "Card Series": "Arcturus GL-XL [Instinct MI100]",
    },
    "card1": {"PCI Bus": "0000:A3:00.0"},
    "system": {"Driver version": "6.3.6", "(Topology) Link type between DRM devices 0 and 1": "PCIE"},
}


def test_rocm_smi_with_a_warning_before_its_json() -> None:
    value = values.json_in("WARNING: user is not in group render\n" + json.dumps(ROCM, indent=4) + "\n")
    gpus, driver, problem = amd.parse_rocm_smi(value)
    assert (driver, problem) == ("6.3.6", "")
    assert (gpus[0]["address"], gpus[0]["device"], gpus[0]["temperature"], gpus[0]["power"]) == (
        "0000:83:00.0",
        "738c",
        55,
        36,
    )
    assert (gpus[0]["memory_total"], gpus[0]["name"]) == (34342961152, "Arcturus GL-XL [Instinct MI100]")
    assert set(gpus[1]["unknown"]) == {"memory_total", "memory_used", "temperature", "ecc", "throttle"}
    assert topology.parse_rocm(ROCM["system"]) == ([{"gpus": [0, 1], "kind": "PCIE"}], "")


def test_amd_smi_in_both_of_its_shapes() -> None:
    static = {"gpu": 0, "asic": {"market_name": "Navi 33", "device_id": "0x7480", "target_graphics_version": "gfx1102"},
              "bus": {"bdf": "0000:c4:00.0"}, "vram": {"size": {"value": 8176, "unit": "MB"}},
              "driver": {"name": "amdgpu", "version": "6.12"}, "limit": {"slowdown_hotspot_temperature": {"value": 110, "unit": "C"}}}  # fmt: skip
    metric = {"gpu": 0, "temperature": {"edge": {"value": 54, "unit": "C"}, "hotspot": "N/A"}, "power": {"throttle_status": "THROTTLED"},
              "mem_usage": {"used_vram": {"value": 20, "unit": "MB"}}, "ecc": {"total_uncorrectable_count": 2}}  # fmt: skip
    process = [
        {
            "gpu": 0,
            "process_list": [
                {"process_info": {"name": "python3", "pid": 42, "mem_usage": {"value": 5, "unit": "B"}}}
            ],
        }
    ]
    for first, second in (([static], [metric]), ({"gpu_data": [static]}, {"gpu_data": [metric]})):
        (found,), driver, problem = amd.parse_amd_smi(first, second, None, process)
        assert (driver, problem, found["unknown"]) == ("6.12", "", {})
        assert (found["temperature"], found["memory_total"], found["throttle"]) == (
            54,
            8176 * MIB,
            ["throttled"],
        )
        assert (found["ecc"]["volatile_uncorrected"], found["compute"]) == (2, "gfx1102")
        assert found["processes"] == [{"pid": 42, "name": "python3", "memory": 5}]
    (found,), *_ = amd.parse_amd_smi([static], "nonsense", None, None)
    assert found["unknown"]["temperature"] == "amd-smi metric does not tell it"


def test_xid_errors_of_every_kind_of_log() -> None:
    found = xids.parse_log(
        "[ 1399.140323] NVRM: Xid (0000:01:00): 32, Channel ID 00000009 intr 00800000\n"
        "2026-01-15T03:00:00,000000+00:00 NVRM: Xid (PCI:0000:3B:00): 13, pid=4242, name=python3, Graphics Exception\n"
        "2026-01-15T03:00:01+0000 host kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
        "2026-01-15T03:00:02+0000 host kernel: NVRM: Xid (PCI:0000:3b:00): 13, pid=7, name=a, Graphics Exception\n"
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.00\n"
    )
    assert [(one["code"], one["address"], one["count"], one["time"]) for one in found] == [
        (32, "0000:01:00.0", 1, "1399.140323"),
        (79, "0000:3b:00.0", 1, "2026-01-15T03:00:01+0000"),
        (13, "0000:3b:00.0", 2, "2026-01-15T03:00:02+0000"),
    ]
    assert found[1]["text"] == "GPU has fallen off the bus."


@pytest.mark.parametrize("code", [13, 31, 43, 45, 48, 61, 62, 63, 64, 74, 79, 94, 95, 119, 120])
def test_each_well_known_xid_has_a_meaning_and_an_advice(code: int) -> None:
    known = xids.describe(code)
    assert known.meaning != xids.describe(9999).meaning
    assert known.advice.endswith(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"), ("3b:00", "0000:3b:00.0"), ("0000000F:01:00.0", "000f:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"), ("GPU-1", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_addresses(text: str | None, expected: str | None) -> None:
    assert values.address(text) == expected


TEXTS = st.text(max_size=400) | st.sampled_from(
    [
        TURING,
        json.dumps(ROCM),
        "\tGPU0\tGPU1\nGPU0\t X \tNV1\n",
        "NVRM: Xid (PCI:0000:01:00): 79, x",
        "GPU 0: a (UUID: GPU-1)",
    ]
).flatmap(
    lambda text: st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.text(max_size=20)).map(
        lambda cut: text[: cut[0]] + cut[2] + text[cut[1] :]
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["gpu", "gpu_data", "card0", "system", "links", "asic", "bus", "bdf", "value", "unit", "vram", "size",
                                       "temperature", "hotspot", "ecc", "process_list", "process_info", "pid", "mem_usage", "power"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(TEXTS)
def test_no_text_makes_a_parser_fail(text: str) -> None:
    nvidia_xml.parse_query(text)
    nvidia_text.parse_csv(text)
    nvidia_text.parse_list(text)
    nvidia_text.parse_lost(text)
    nvidia_text.parse_complaint(text)
    nvidia_text.parse_kernel_module(text)
    nvidia_text.parse_versions(text)
    nvidia_text.parse_fabric_manager(text)
    topology.parse_nvidia(text)
    xids.parse_log(text)
    pci.parse_lspci(text)
    pci.from_sysfs([(text, {"class": text, "vendor": text, "device": text})])
    values.json_in(text)
    values.address(text)
    reader = values.Reader("tool")
    reader.size("a", text)
    reader.truth("b", text)
    reader.count("c", text)


@given(JSON, JSON, JSON, JSON)
def test_no_json_makes_a_parser_fail(one: Any, two: Any, three: Any, four: Any) -> None:
    amd.parse_amd_smi(one, two, three, four)
    amd.parse_rocm_smi(one)
    topology.parse_amd(one)
    topology.parse_rocm(two)


@given(st.text(alphabet='[{]}\n"1,:', max_size=300))
def test_brackets_without_sense_are_no_json(text: str) -> None:
    values.json_in(text)


def test_a_very_deep_json_is_none() -> None:
    assert values.json_in("[" * 200_000) is None
